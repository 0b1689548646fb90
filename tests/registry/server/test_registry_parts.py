"""Parts of the server by themselves: what must not happen whatever the order of things."""

import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from layerstore import Digest, Store
from layerstore.errors import LayerstoreError
from layerstore.registry.server.audit import AuditLog
from layerstore.registry.server.links import Links
from layerstore.registry.server.problems import ProblemError
from layerstore.registry.server.repositories import Repositories
from layerstore.registry.server.uploads import Uploads


@pytest.fixture
def links(tmp_path: Path) -> Iterator[Links]:
    found = Links(tmp_path / "links.sqlite")
    yield found
    found.close()


def test_an_upload_never_adds_to_what_became_a_blob(tmp_path: Path, links: Links) -> None:
    """Its file is the store's by a second name from the moment that it was pushed, whatever happens then."""
    with Store.create(tmp_path / "store") as store:
        uploads = Uploads(Repositories(store, links), tmp_path / "uploads", pushes=1, size_max=1 << 20)
        identifier = uploads.begin("app", "sha256")
        with uploads.opened("app", identifier) as upload:
            upload.write(b"content")
            os.link(upload.path, tmp_path / "raw")  # and the process is killed before it forgets the upload
        with pytest.raises(ProblemError) as caught, uploads.opened("app", identifier):
            pass
        assert caught.value.status == 404


def test_connections_of_ended_threads_are_closed(links: Links) -> None:
    def open_files() -> int:
        found = 0
        for one in Path("/proc/self/fd").iterdir():
            with suppress(FileNotFoundError):  # that of the listing itself
                found += "links.sqlite" in str(one.readlink())
        return found

    for _ in range(30):
        thread = threading.Thread(target=links.has_manifest, args=("app", Digest.of(b"")))
        thread.start()
        thread.join()
    assert open_files() < 12


def test_an_audit_log_that_cannot_be_opened_closes_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    log = AuditLog(path)
    log.write({"event": "first"})
    path.rename(tmp_path / "audit.log.1")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(LayerstoreError):
        log.write({"event": "second"})
    foreign = os.open(tmp_path, os.O_RDONLY)  # gets the number that the log had
    try:
        with pytest.raises(LayerstoreError):
            log.write({"event": "third"})
        os.fstat(foreign)
    finally:
        os.close(foreign)
