"""Several processes push, prove, read, delete and collect the same blobs at the same time."""

import json
import subprocess
import sys
from pathlib import Path

from samples import assert_clean

from layerstore import Store

WORKER = Path(__file__).with_name("blob_worker.py")


def test_processes_share_blobs(tmp_path: Path, crash_thorough: bool) -> None:
    """4 processes of 60 turns each, of 600 with ``--crash-thorough``."""
    path = tmp_path / "store"
    Store.create(path, frame_size=1 << 14, pack_size_max=1 << 16, encoding_cache_max=60_000).close()
    turns = "600" if crash_thorough else "60"
    command = [sys.executable, str(WORKER), str(path)]
    workers = [
        subprocess.Popen([*command, str(seed), turns], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for seed in range(4)
    ]
    ended = [worker.communicate() for worker in workers]
    assert [worker.returncode for worker in workers] == [0] * len(workers), [errors for _, errors in ended]
    expected = {digest for output, _ in ended for digest in json.loads(output)}
    with Store.open(path) as store:
        assert set(store.images) == expected
        assert_clean(store)
        for digest in expected:
            store.delete_image(digest, ttl=0)
        store.collect_garbage()
        assert_clean(store)
        assert (len(store.layers), len(store.encodings), store.stats().raw_bytes) == (0, 0, 0)
        assert list((path / "raw").iterdir()) == []
