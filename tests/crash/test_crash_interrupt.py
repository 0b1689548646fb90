"""Ctrl-C and SIGTERM: an exception right after a commit has succeeded, before the operation knows of it.

A signal that arrives while LMDB waits for the disk is raised by Python just then. Unlike a SIGKILL, it lets all
clean-up code run, which must not take back what is committed.
"""

import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from layerstore import Store
from layerstore.operations import batch
from layerstore.storage.index import Index

rng = random.Random(5)
COMMON = rng.randbytes(150_000)
FIRST = COMMON + rng.randbytes(120_000)
SECOND = rng.randbytes(90_000) + COMMON
THIRD = rng.randbytes(200_000)


class Interrupter:
    """Raises KeyboardInterrupt behind the commit of one write transaction."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left = -1
        original = Index._write_once

        def write_once(index: Index, change: Callable[..., Any]) -> Any:
            result = original(index, change)
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt
            return result

        monkeypatch.setattr(Index, "_write_once", write_once)


@pytest.fixture
def interrupter(monkeypatch: pytest.MonkeyPatch) -> Interrupter:
    monkeypatch.setattr(batch, "BATCH_SIZE_MAX", 60_000)
    return Interrupter(monkeypatch)


def life(path: Path, acknowledged: dict[str, bytes]) -> Iterator[str]:
    """Steps over the whole life of a store; what each promised is in ``acknowledged`` before the next one."""
    with Store.open(path) as store:
        first = store.push_layer(FIRST).layer
        acknowledged[first.diff_id] = FIRST
        yield "first push"
        image = store.create_image([first], tag="shop:1.0")
        yield "image"
        second = store.push_layer(SECOND).layer
        acknowledged[second.diff_id] = SECOND
        store.create_image([second], base=image, tag="shop:1.1")
        yield "child"
        third = store.push_layer(THIRD).layer
        store.create_image([third], tag="gone:1")
        store.delete_image("gone:1", ttl=0)
        yield "deleted"
        store.collect_garbage()
        yield "collected"
        again = store.push_layer(THIRD).layer
        acknowledged[again.diff_id] = THIRD
        yield "pushed again"


def check(path: Path, acknowledged: dict[str, bytes]) -> None:
    with Store.open(path) as store:
        report = store.verify()
        assert report.is_clean, report.problems
        for diff_id, content in acknowledged.items():
            assert b"".join(store.layers[diff_id].blocks()) == content
        for content in (FIRST, SECOND, THIRD):
            assert b"".join(store.push_layer(content).layer.blocks()) == content
        store.collect_garbage()
        assert store.verify().is_clean


def test_an_interrupt_behind_any_commit_loses_nothing(memory_path: Path, interrupter: Interrupter) -> None:
    number = 0
    while True:
        number += 1
        path = memory_path / f"store-{number}"
        Store.create(path, frame_size=1 << 15, pack_size_max=1 << 17).close()
        acknowledged: dict[str, bytes] = {}
        interrupter.left = number
        try:
            for _ in life(path, acknowledged):
                pass
        except KeyboardInterrupt:
            interrupter.left = -1
            check(path, acknowledged)
            continue
        break
    assert number > 20  # the scenario has that many commits, and each was interrupted


def test_the_same_push_after_an_interrupted_one_is_whole(tmp_path: Path, interrupter: Interrupter) -> None:
    with Store.create(tmp_path / "store") as store:
        for number in range(1, 12):
            content = rng.randbytes(130_000)
            interrupter.left = number
            with suppress(KeyboardInterrupt):
                store.push_layer(content)
            interrupter.left = -1
            assert b"".join(store.push_layer(content).layer.blocks()) == content
        store.collect_garbage()
        assert store.verify().is_clean
