"""SIGKILL at every durable step of a store's life: nothing acknowledged is lost, and nothing is left in the way."""

import shutil
from pathlib import Path

import crash_kills
import crash_scenarios
import pytest
from crash_model import Expected, assert_clean, assert_expected, check_after_crash, quick_verify

from layerstore import Store


@pytest.mark.parametrize(
    ("scenario", "shard", "shards", "steps_min"),
    [*(("life", shard, 4, 500) for shard in range(4)), *(("transfer", shard, 2, 200) for shard in range(2))],
)
def test_kill_at_every_step(
    scenario: str, shard: int, shards: int, steps_min: int, memory_path: Path, server, crash_thorough: bool
) -> None:
    """Steps are counted over all that a store does in its life, and that blobs go through.

    Of the latter every second one is tried, all with ``--crash-thorough``: many are those of the former.
    """
    at = shard + 1
    stride = shards if crash_thorough or scenario == "life" else 2 * shards
    while True:
        place = memory_path / f"{at}"
        place.mkdir()
        ended = server.run(crash_kills.run, scenario, at, [place / "store", place / "said"])
        expected = Expected.of(place / "said")
        thorough = scenario == "life" or at % 5 == 0
        try:
            check_after_crash(place / "store", expected, crash_scenarios.CONTENTS, thorough=thorough)
        except BaseException as error:
            error.add_note(f"killed at step {at}, after: {expected.last}")
            raise
        shutil.rmtree(place)
        if ended:
            break
        at += stride
    assert at > steps_min, "the scenario has fewer durable steps than it had"


def test_kill_at_every_step_of_healing(memory_path: Path, server) -> None:
    """A repair that is killed leaves no more damage than there was, and can be done again."""
    origin = memory_path / "origin"
    origin.mkdir()
    server.run(crash_scenarios.prepare_heal, origin / "store")
    at = 1
    while True:
        place = memory_path / f"{at}"
        shutil.copytree(origin, place)
        ended = server.run(crash_kills.run, "heal", at, [place / "store", place / "said"])
        expected = Expected.of(place / "said")
        with quick_verify(), Store.open(place / "store") as store, Store.open(place / "other") as other:
            problems = store.verify().problems
            assert {problem.kind for problem in problems} <= {"content"}, problems
            store.collect_garbage()
            store.repair(other)
            store.push_layer(crash_scenarios.LAYERS["wide"])
            assert_clean(store)
            assert_expected(store, expected, crash_scenarios.CONTENTS)
        shutil.rmtree(place)
        if ended:
            break
        at += 1
    assert at > 20
