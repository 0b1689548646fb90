"""What a push reads and a pull writes: iterables, directories, files."""

import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from samples import make_tar, noise

from layerstore import Store
from layerstore.errors import InvalidInputError
from layerstore.operations.source import open_source

A = make_tar({"a": noise(40_000, 1)})


def test_large_blocks_of_an_iterable_are_not_copied_again_and_again() -> None:
    """Read in small parts: copying the rest each time would move 8 GiB here."""
    size = 128 << 20
    block = bytearray(size)

    def blocks() -> Iterator[bytearray]:
        yield block
        block.clear()  # nobody holds on to a block that was read
        yield bytearray(b"end")

    started = time.process_time()
    with open_source(blocks()) as source:  # type: ignore[arg-type]
        parts = list(source.blocks())
    assert b"".join(parts) == bytes(size) + b"end"
    assert time.process_time() - started < 1


@pytest.mark.parametrize("blocks", [["text"], [b"bytes", "text"], [1]])
def test_an_iterable_of_what_is_no_bytes_is_refused(store: Store, blocks: list[object]) -> None:
    with pytest.raises(InvalidInputError, match="not bytes"):
        store.push_layer(iter(blocks))  # type: ignore[arg-type]
    assert len(store.layers) == 0


def test_a_pulled_file_has_the_permissions_of_any_other(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = store.push_layer(A).layer
    before = os.umask(0o027)
    try:
        with monkeypatch.context() as patch:
            # To ask for the umask is to change it, in all threads.
            patch.setattr(os, "umask", lambda _: pytest.fail("the umask is every thread's"))
            layer.pull(tmp_path / "pulled")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "pulled").stat().st_mode) == 0o640
    assert (tmp_path / "pulled").read_bytes() == A
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pulled", "store"]


def test_sockets_are_left_out_and_named(store: Store, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "run").mkdir(parents=True)
    (tree / "file").write_bytes(b"1")
    plain = store.push_tree(tree)
    assert (plain.skipped, plain.skipped_count) == ((), 0)
    for number in range(101):
        os.mknod(tree / "run" / f"{number:03}", stat.S_IFSOCK | 0o600)
    result = store.push_tree(tree)
    assert [entry.path for entry in result.layer.entries()] == [b"file", b"run"]
    assert result.skipped_count == 101
    assert result.skipped == tuple(b"run/%03d" % number for number in range(100))
