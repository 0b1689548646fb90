"""Containers are what the kernel's overlayfs is: the same operations, the same files, directories that both can use."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from container_disk import groups_on_disk, lower_directory, missing_for_overlays, overlay, picture_of_disk
from container_operations import Both, Draw, draws
from container_samples import Picture, changed, check_commit, everything, groups, picture
from hypothesis import event, given, settings
from hypothesis import strategies as st
from unpacking_stacks import random_stack

from layerstore import Container, OCILayout, Store, copy
from layerstore.unpacking import unpack

MISSING = missing_for_overlays()
pytestmark = pytest.mark.skipif(MISSING is not None, reason=MISSING or "")
START = time.time_ns() - 10**9
seeds = st.integers(0, 10**6)


@contextmanager
def place_in(memory: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=memory) as name:
        yield Path(name)


def without_now(shown: Picture) -> Picture:
    """A picture in which all times of this test are one."""
    end = time.time_ns() + 10**9
    return {path: replace(seen, mtime_ns=-1) if START < seen.mtime_ns < end else seen for path, seen in shown.items()}


def image_layers(seed: int) -> list[bytes]:
    return everything() if seed % 10 == 0 else random_stack(seed)


@contextmanager
def container_and_overlay(store: Store, seed: int, place: Path) -> Iterator[tuple[Container, Path]]:
    """A container of an image, and an overlay over the same image unpacked; its upper directory is ``place/upper``."""
    image = store.create_image([store.push_layer(data).layer for data in image_layers(seed)])
    with image.view() as view:
        unpack(view, place / "lower")
        root = view.lstat("/")
    for folder in ("upper", "work"):
        (place / folder).mkdir()
    (place / "upper").chmod(root.mode)  # as an engine does
    os.utime(place / "upper", ns=(root.mtime_ns, root.mtime_ns))
    with (
        image.container() as container,
        overlay(place / "merged", place / "lower", upper=place / "upper", work=place / "work") as merged,
    ):
        yield container, merged
    container.remove()


@given(seeds, draws)
def test_the_same_operations_show_the_same(memory: Path, kept_store: Store, seed: int, operations: list[Draw]) -> None:
    """And each upper directory means the same to the other side: to a container, to a mount, and as a layer."""
    with place_in(memory) as place, ExitStack() as stack:
        container, root = stack.enter_context(container_and_overlay(kept_store, seed, place))
        both = Both(container, root)
        for operation in operations:
            both.do(operation)
        shown = picture(container)
        assert without_now(shown) == without_now(picture_of_disk(root))
        upper = container._folder.upper
        assert groups_on_disk(upper) == groups_on_disk(place / "upper")
        container.close()
        assert picture(container) == shown, "it is on the disk as it was in memory"
        check_commit(container).close()
        changes = changed(container)
        event("changed" if changes else "nothing changed")
        container.close()
        with overlay(place / "ours", place / "lower", upper=upper, work=container._folder.work) as ours:
            assert picture_of_disk(ours) == shown
        stack.close()
        check_upper_of_the_kernel(kept_store, seed, place / "upper", shown, changes)


def check_upper_of_the_kernel(store: Store, seed: int, upper: Path, shown: Picture, changes: str) -> None:
    """A container that is given the upper directory of the kernel's."""
    image = store.create_image([store.push_layer(data).layer for data in image_layers(seed)])
    container = image.container()
    container.close()
    container._folder.upper.rmdir()
    upper.rename(container._folder.upper)
    with container:
        assert without_now(picture(container)) == without_now(shown)
        assert changed(container) == changes
        check_commit(container).close()
    container.remove()


@settings(max_examples=max(10, settings().max_examples // 5))
@given(seeds, draws)
def test_a_committed_image_is_unpacked_by_umoci_to_what_the_container_shows(
    memory: Path, kept_store: Store, seed: int, operations: list[Draw]
) -> None:
    if shutil.which("umoci") is None:
        pytest.skip("umoci is not installed")
    with place_in(memory) as place:
        with container_and_overlay(kept_store, seed, place) as (container, root):
            both = Both(container, root)
            for operation in operations:
                both.do(operation)
            check_commit(container).close()
            image = container.commit("umoci:1")
            with image.view() as view:
                shown, together = picture(view), groups(view)
        copy(kept_store, OCILayout(place / "layout"), ["umoci:1"], name="1.0")
        command = ["umoci", "raw", "unpack", "--image", f"{place / 'layout'}:1.0", str(place / "theirs")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert unrooted(without_directory_times(picture_of_disk(place / "theirs"))) == unrooted(
            without_directory_times(shown)
        )
        assert groups_on_disk(place / "theirs") == together


def without_directory_times(shown: Picture) -> Picture:
    """umoci gives a directory the time of its own last step where a layer changes only what is in it."""
    return {path: replace(seen, mtime_ns=0) if seen.kind == "DIRECTORY" else seen for path, seen in shown.items()}


def unrooted(shown: Picture) -> Picture:
    return {path: seen for path, seen in shown.items() if path}


@given(seeds)
def test_a_view_is_what_overlayfs_makes_of_the_layers(memory: Path, kept_store: Store, seed: int) -> None:
    """Layer upon layer, each as a lower directory of its own.

    The stacks are such as real layers are: folders are no links, and nothing is put below what is no directory.
    """
    with place_in(memory) as place:
        layers = random_stack(seed)
        ids = [kept_store.push_layer(data).layer for data in layers]
        (place / "l0").mkdir()
        lowers = [place / "l0"]
        for number, data in enumerate(layers, 1):
            lowers.append(place / f"l{number}")
            with kept_store.view(ids[: number - 1]) as below:
                lower_directory(data, lowers[-1], below)
        with kept_store.view(ids) as view, overlay(place / "merged", *lowers) as merged:
            assert unrooted(picture(view)) == unrooted(picture_of_disk(merged))
            layer_of = {node.path: node.inode[0] for node in view.nodes()}
            for number, lower in enumerate(lowers[1:]):
                for group in groups_on_disk(lower):
                    left = frozenset(path for path in group if layer_of.get(path) == number)
                    assert len(left) < 2 or any(left <= one for one in groups(view))
