"""The journal's checkpoint: whatever becomes of its transaction, journal and index agree at the end."""

import lmdb
import pytest

from layerstore.operations import rebuild
from layerstore.storage.index import Index
from layerstore.store import Store


@pytest.fixture
def path(tmp_path):
    with Store.create(tmp_path / "s") as store:
        layer = store.push_layer(b"contents").layer
        for number in range(5):
            store.create_image([layer], tag=f"image:{number}", author=str(number))
            store.tags[f"moved:{number}"] = store.tags["image:0"]
            del store.tags[f"moved:{number}"]
    return tmp_path / "s"


@pytest.mark.parametrize("meanwhile", [False, True])
def test_a_checkpoint_whose_commit_must_be_repeated(path, monkeypatch, meanwhile):
    """The map can be found to be full in the commit alone: after the new file was put in place."""
    real = Index._write_once
    attempts = []

    def write_once(index, change):
        if len(attempts) == 2:
            return real(index, change)
        attempts.append(change)

        def fail(transaction):
            change(transaction)
            raise lmdb.MapFullError("commit")

        if len(attempts) == 2 and meanwhile:
            monkeypatch.setattr(Index, "_write_once", real)
            store.tags["between:1"] = store.tags["image:1"]
            monkeypatch.setattr(Index, "_write_once", write_once)
        return real(index, fail)

    with Store.open(path) as store:
        monkeypatch.setattr(Index, "_write_once", write_once)
        monkeypatch.setattr(Index, "_grow", lambda index: True)
        store._opened.journal.checkpoint(store._opened.index)
        assert len(attempts) == 2
        assert store._opened.journal.is_sound(store._opened.index)
        store.tags["after:1"] = store.tags["image:1"]
        tags = dict(store.tags)
        assert store.verify().is_clean
    assert not list(path.glob(".journal.*"))
    report = rebuild.rebuild_index(path, None)
    assert report.is_clean
    with Store.open(path) as store:
        assert dict(store.tags) == tags
