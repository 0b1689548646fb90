"""The databases of a registry that lie beside a store: which of its repositories has what no tag names.

A backup takes them after the index, so that all that the index has without a tag has its row. A row for an image that
the index does not have means nothing to a registry, and what was deleted in between is left as an image without a
repository.
"""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from layerstore.errors import ContentDamagedError, NoSpaceError, StorageError
from layerstore.storage.layout import sync_directory, sync_file, translate_os_errors

_FOLDER = "registry"
_NAMES = ("links.sqlite", "proxy.sqlite")
_BUSY_SECONDS = 60.0
_SIDE_FILES = ("-wal", "-shm", "-journal")


class DatabaseCopier:
    """Copies the databases of a store, as they are at one moment each."""

    def __init__(self, source: Path, target: Path, new: Path) -> None:
        """``source`` and ``target`` are the folders of stores; ``new`` is for what is not in place yet."""
        self._source = source / _FOLDER
        self._target = target / _FOLDER
        self._new = new / _FOLDER

    def bring(self) -> None:
        """Copy them. Raises `ContentDamagedError` for one that is damaged."""
        for name in _NAMES:
            with translate_os_errors(f"cannot read {self._source / name}"):
                is_there = (self._source / name).exists()
            if is_there:
                self._new.mkdir(mode=0o700, exist_ok=True)
                _copy(self._source / name, self._new / name)

    def install(self) -> None:
        """Put the copies in place. One that the store does not have any more stays as it is."""
        for path in sorted(self._new.glob("*.sqlite")):
            self._target.mkdir(mode=0o700, exist_ok=True)
            for suffix in _SIDE_FILES:
                # What a server on the backup has left there is not of the new one.
                (self._target / f"{path.name}{suffix}").unlink(missing_ok=True)
            sync_directory(self._target)
            path.replace(self._target / path.name)
            sync_directory(self._target)
        sync_directory(self._target.parent)


def _copy(source: Path, target: Path) -> None:
    try:
        with closing(_opened(source)) as database, closing(sqlite3.connect(target)) as copy:
            database.backup(copy)
            copy.execute("PRAGMA journal_mode = DELETE")  # all of it in one file
            found = copy.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise _damaged(source, str(error)) from error
        if error.sqlite_errorcode == sqlite3.SQLITE_FULL:
            raise NoSpaceError(f"cannot copy {source}: {error}") from error
        raise StorageError(f"cannot copy {source}: {error}") from error
    if found is None or found[0] != "ok":
        raise _damaged(source, "its check fails" if found is None else str(found[0]))
    with target.open("rb+") as file:
        sync_file(file.fileno())


def _opened(path: Path) -> sqlite3.Connection:
    # Without the right to write beside it, SQLite reads a database only if nobody can be writing to it.
    is_alone = not os.access(path.parent, os.W_OK) and not path.with_name(f"{path.name}-wal").exists()
    place = f"{path.absolute().as_uri()}?mode=ro{'&immutable=1' if is_alone else ''}"
    return sqlite3.connect(place, uri=True, timeout=_BUSY_SECONDS)


def _damaged(path: Path, reason: str) -> ContentDamagedError:
    return ContentDamagedError(
        f"{path} is damaged ({reason}). The backup was left as it was. Stop the server, put the file of an earlier "
        "backup in its place (without it, what no tag names is in no repository any more), and then back up again"
    )
