"""SIGKILL at random instants of pushes, deletions and collections, in one store that goes on."""

import os
import random
import signal
import time
from pathlib import Path

import crash_scenarios
import pytest
from crash_model import Expected, assert_stored_once, check_after_crash

from layerstore import Store

KILLS_PER_STORE = 20


@pytest.mark.parametrize("store_seed", range(15))
def test_kill_at_random_instants(store_seed: int, memory_path: Path, server, crash_thorough: bool) -> None:
    """Forty kills; three hundred with ``--crash-thorough``."""
    if store_seed >= 2 and not crash_thorough:
        pytest.skip("only with --crash-thorough")
    chooser = random.Random(store_seed)
    path = memory_path / "store"
    sizes = {"frame_size": crash_scenarios.FRAME_SIZE, "pack_size_max": crash_scenarios.PACK_SIZE_MAX}
    Store.create(path, **sizes, trash_ttl=0).close()
    actions = 0
    for kill in range(KILLS_PER_STORE):
        said = memory_path / f"said-{kill}"
        child = server.start(crash_scenarios.churn, path, said, 1000 * store_seed + kill)
        while not said.exists():
            time.sleep(0.001)
        time.sleep(chooser.uniform(0, 0.25))
        os.kill(child, signal.SIGKILL)
        assert not server.wait()
        expected = Expected.of(said)
        actions += said.read_bytes().count(b'"done"')
        try:
            check_after_crash(path, expected, crash_scenarios.CONTENTS, thorough=False)
        except BaseException as error:
            error.add_note(f"kill {kill}, after: {expected.last}")
            raise
    with Store.open(path) as store:
        assert_stored_once(store)
        assert store.verify().is_clean  # with the index walked in a process of its own
    check_after_crash(path, expected, crash_scenarios.CONTENTS)
    assert actions > 5 * KILLS_PER_STORE
