"""Many processes at once: nothing is lost, nothing is stored twice, and nobody sees an error that is not theirs."""

import json
import subprocess
import sys
from pathlib import Path

from concurrency_workers import assert_pulls
from crash_model import assert_clean, assert_disk_is_index, assert_nothing_left_behind, assert_stored_once

from crash_model import remove_everything  # isort: skip

from layerstore import Store

WORKERS = Path(__file__).with_name("concurrency_workers.py")
ROLES = ("pusher", "pusher", "pusher", "collector", "collector", "reader", "verifier")


def test_many_processes_at_once(tmp_path: Path, crash_thorough: bool) -> None:
    """Fifteen seconds, or sixty with ``--crash-thorough``."""
    seconds = 60 if crash_thorough else 15
    path = tmp_path / "store"
    Store.create(path, frame_size=1 << 14, pack_size_max=1 << 17, trash_ttl=0).close()
    processes = [
        (role, subprocess.Popen(
            [sys.executable, str(WORKERS), role, str(path), str(seed), str(seconds)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        ))
        for seed, role in enumerate(ROLES)
    ]  # fmt: skip
    results = []
    failures = []
    for role, process in processes:
        output, errors = process.communicate(timeout=seconds + 120)
        if process.returncode:
            failures.append(f"{role}: {errors}")
        else:
            results.append((role, json.loads(output)))
    assert not failures, "\n".join(failures)
    print(results)
    with Store.open(path) as store:
        assert_clean(store)
        assert_stored_once(store)
        for role, result in results:
            assert result["turns"] > 0, role
            if role == "pusher":
                for image, layers in result["images"].items():
                    assert [str(layer.diff_id) for layer in store.images[image].layers] == layers
                    for layer in layers:
                        assert_pulls(store, layer)
                assert {tag: store.tags[tag] for tag in result["tags"]} == result["tags"]
        store.collect_garbage()
        assert_clean(store)
        assert_disk_is_index(store)
        assert_nothing_left_behind(store)
        assert remove_everything(store)
        assert_clean(store)
        assert not list((path / "packs").iterdir())
