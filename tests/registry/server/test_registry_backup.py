"""A backup of a store that is served: what no tag names belongs to its repository in the copy, too."""

import sqlite3
import threading
from pathlib import Path

import pytest
from registry_requests import OCI, Registry, descriptor, image_of, manifest_of
from threaded_server import served

from layerstore import Digest, Store
from layerstore.errors import ContentDamagedError
from layerstore.registry.server.settings import ServerSettings

LAYER = b"layer" * 1000


def push_untagged(registry: Registry, repository: str, layer: bytes = LAYER) -> str:
    """Push an image by its digest alone; the digest."""
    manifest, config = image_of(layer)
    for blob in (layer, config):
        assert registry.push_blob(repository, blob).status == 201
    digest = str(Digest.of(manifest))
    assert registry.put(repository, digest, manifest).status == 201
    return digest


def backed_up(store: Path, copy: Path) -> ServerSettings:
    with Store.open(store) as opened:
        opened.backup(copy)
    return ServerSettings(store=copy, collection_interval=0)


def has(settings: ServerSettings, repository: str, *digests: str) -> list[bool]:
    with served(settings) as registry:
        return [registry.manifest(repository, one).status == 200 for one in digests]


def test_what_no_tag_names_is_in_its_repository_after_a_restore(
    registry: Registry, settings: ServerSettings, tmp_path: Path
) -> None:
    first = push_untagged(registry, "team/app")
    waiting = b"a blob without a manifest"
    assert registry.push_blob("team/app", waiting).status == 201
    copy = backed_up(settings.store, tmp_path / "copy")
    with served(copy) as again:
        assert again.manifest("team/app", first).status == 200
        assert again.manifest("team/other", first).status == 404
        assert again.blob("team/app", waiting).body == waiting
    second = push_untagged(registry, "team/app", b"another layer" * 100)
    assert has(copy, "team/app", first, second) == [True, False]
    backed_up(settings.store, tmp_path / "copy")
    assert has(copy, "team/app", first, second) == [True, True]
    restored = backed_up(tmp_path / "copy", tmp_path / "restored")
    assert has(restored, "team/app", first, second) == [True, True]
    with Store.open(tmp_path / "restored") as store:
        assert store.verify().is_clean


def test_what_a_server_on_the_backup_left_there_is_undone(
    registry: Registry, settings: ServerSettings, tmp_path: Path
) -> None:
    first = push_untagged(registry, "a")
    copy = backed_up(settings.store, tmp_path / "copy")
    with served(copy) as other:
        own = push_untagged(other, "b", b"only there" * 100)
    log = copy.folder / "links.sqlite-wal"
    log.write_bytes(b"left over")
    backed_up(settings.store, tmp_path / "copy")
    assert not log.exists()
    assert has(copy, "a", first) == [True]
    assert has(copy, "b", own) == [False]


def test_a_damaged_database_stops_the_backup_before_it_changes_anything(
    settings: ServerSettings, tmp_path: Path
) -> None:
    with served(settings) as registry:
        first = push_untagged(registry, "a")
        copy = backed_up(settings.store, tmp_path / "copy")
        second = push_untagged(registry, "a", b"another layer" * 100)
    links = settings.folder / "links.sqlite"
    whole = links.read_bytes()
    for damaged in (b"no database at all" * 1000, whole[:100] + bytes(len(whole) - 100)):
        links.write_bytes(damaged)
        with pytest.raises(ContentDamagedError, match=r"links\.sqlite is damaged"):
            backed_up(settings.store, tmp_path / "copy")
        assert has(copy, "a", first, second) == [True, False]


def test_a_database_that_is_gone_is_kept_by_the_backup(settings: ServerSettings, tmp_path: Path) -> None:
    with served(settings) as registry:
        first = push_untagged(registry, "a")
        copy = backed_up(settings.store, tmp_path / "copy")
    (settings.folder / "links.sqlite").unlink()
    backed_up(settings.store, tmp_path / "copy")
    assert has(copy, "a", first) == [True]


def test_a_store_without_a_registry_has_a_backup_without_one(store_path: Path, tmp_path: Path) -> None:
    copy = backed_up(store_path, tmp_path / "copy")
    assert not copy.folder.exists()


def test_secrets_of_the_server_stay_out_of_the_backup(
    registry: Registry, settings: ServerSettings, tmp_path: Path
) -> None:
    push_untagged(registry, "a")
    (settings.folder / "token-secret").write_text("secret")
    copy = backed_up(settings.store, tmp_path / "copy")
    assert [path.name for path in copy.folder.iterdir()] == ["links.sqlite"]
    assert copy.folder.stat().st_mode & 0o077 == 0


def test_the_copy_is_of_one_moment_while_others_push(
    registry: Registry, settings: ServerSettings, tmp_path: Path
) -> None:
    """Whatever image the copy has, its repository has it."""
    _, config = image_of(LAYER)
    push_untagged(registry, "a")
    stop = threading.Event()

    def push() -> None:
        number = 0
        while not stop.is_set():
            manifest = manifest_of(
                descriptor(config, f"{OCI}.config.v1+json"), descriptor(LAYER), annotations={"number": str(number)}
            )
            registry.put("a", str(Digest.of(manifest)), manifest)
            number += 1

    thread = threading.Thread(target=push)
    thread.start()
    try:
        for number in range(5):
            backed_up(settings.store, tmp_path / f"copy{number}")
    finally:
        stop.set()
        thread.join()
    for number in range(5):
        with Store.open(tmp_path / f"copy{number}") as store:
            images = {str(one) for one in store.images}
        with sqlite3.connect(tmp_path / f"copy{number}" / "registry" / "links.sqlite") as database:
            rows = {one for (one,) in database.execute("SELECT digest FROM manifests")}
        assert images <= rows
