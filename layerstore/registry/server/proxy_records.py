"""What is known of repositories that are read through this server and is not in the store: a database of its own.

The store takes an image when all of its blobs are there, which for an index of many platforms is never. Until then, and
for what upstream has last said of a tag, this is the place.
"""

import time
from pathlib import Path

from layerstore.digest import Digest
from layerstore.registry.server.database import Database

_VERSION = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS tags (
    repository TEXT NOT NULL, tag TEXT NOT NULL, digest TEXT NOT NULL, checked REAL NOT NULL,
    PRIMARY KEY (repository, tag)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS manifests (
    repository TEXT NOT NULL, digest TEXT NOT NULL, media_type TEXT NOT NULL, data BLOB NOT NULL,
    PRIMARY KEY (repository, digest)
);
CREATE TABLE IF NOT EXISTS wanted (
    digest TEXT NOT NULL, repository TEXT NOT NULL, since INTEGER NOT NULL, PRIMARY KEY (digest, repository)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS pulls (
    repository TEXT NOT NULL, digest TEXT NOT NULL, pulled INTEGER NOT NULL, PRIMARY KEY (repository, digest)
) WITHOUT ROWID;
"""
_WANTED_SECONDS_MAX = 24 * 3600
_PULL_SECONDS = 600
"""So often is it noted anew that a manifest is pulled."""


class ProxyRecords(Database):
    """The database. Its methods may be called from several threads, each of which gets a connection of its own."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, _SCHEMA, _VERSION)
        self._execute("DELETE FROM wanted WHERE since < ?", int(time.time()) - _WANTED_SECONDS_MAX)

    def tag(self, repository: str, tag: str) -> tuple[Digest, float] | None:
        """What upstream's tag named when it was looked at last, and when that was (seconds since 1970)."""
        rows = self._all("SELECT digest, checked FROM tags WHERE repository = ? AND tag = ?", repository, tag)
        return (Digest(rows[0][0]), float(rows[0][1])) if rows else None

    def set_tag(self, repository: str, tag: str, digest: Digest) -> None:
        """Note what upstream's tag names now."""
        self._execute("INSERT OR REPLACE INTO tags VALUES (?, ?, ?, ?)", repository, tag, str(digest), time.time())

    def remove_tag(self, repository: str, tag: str) -> None:
        """Forget a tag."""
        self._execute("DELETE FROM tags WHERE repository = ? AND tag = ?", repository, tag)

    def tags(self, repository: str) -> dict[str, Digest]:
        """The tags that are known, and what they name."""
        rows = self._all("SELECT tag, digest FROM tags WHERE repository = ?", repository)
        return {tag: Digest(text) for tag, text in rows}

    def tags_of(self, repository: str, digest: Digest) -> list[str]:
        """The tags that name a manifest."""
        rows = self._all("SELECT tag FROM tags WHERE repository = ? AND digest = ?", repository, str(digest))
        return [tag for (tag,) in rows]

    def add_manifest(self, repository: str, digest: Digest, media_type: str, data: bytes) -> None:
        """Keep a manifest or index."""
        self._execute("INSERT OR IGNORE INTO manifests VALUES (?, ?, ?, ?)", repository, str(digest), media_type, data)

    def manifest(self, repository: str, digest: Digest) -> tuple[bytes, str] | None:
        """The bytes and the media type of a manifest or index."""
        query = "SELECT data, media_type FROM manifests WHERE repository = ? AND digest = ?"
        rows = self._all(query, repository, str(digest))
        return (bytes(rows[0][0]), str(rows[0][1])) if rows else None  # type: ignore[arg-type]  # a BLOB is bytes

    def manifests_naming(self, repository: str, digest: Digest) -> list[Digest]:
        """The manifests and indexes in which a digest stands somewhere."""
        query = "SELECT digest FROM manifests WHERE repository = ? AND instr(data, CAST(? AS BLOB)) > 0"
        return [Digest(text) for (text,) in self._all(query, repository, str(digest))]

    def remove_manifest(self, repository: str, digest: Digest) -> None:
        """Forget a manifest and the tags that name it."""
        with self.exclusive():
            self._execute("DELETE FROM tags WHERE repository = ? AND digest = ?", repository, str(digest))
            self._execute("DELETE FROM manifests WHERE repository = ? AND digest = ?", repository, str(digest))
            self._execute("DELETE FROM pulls WHERE repository = ? AND digest = ?", repository, str(digest))

    def repositories(self) -> list[str]:
        """The repositories of which manifests are kept."""
        return [name for (name,) in self._all("SELECT DISTINCT repository FROM manifests")]

    def manifests(self, repository: str) -> list[Digest]:
        """The manifests and indexes that are kept of a repository."""
        rows = self._all("SELECT digest FROM manifests WHERE repository = ?", repository)
        return [Digest(text) for (text,) in rows]

    def note_pull(self, repository: str, digest: Digest) -> None:
        """Note that a manifest is pulled."""
        now = int(time.time())
        found = self._pulled(repository, digest)
        if found is None or not 0 <= now - found < _PULL_SECONDS:
            self._execute_lightly("INSERT OR REPLACE INTO pulls VALUES (?, ?, ?)", repository, str(digest), now)

    def last_pull(self, repository: str, digest: Digest) -> float:
        """When a manifest was pulled last (seconds since 1970); now, and from now on, if nothing is known of it."""
        found = self._pulled(repository, digest)
        if found is None:
            self.note_pull(repository, digest)
            return time.time()
        return float(found)

    def pulled_before(self, repository: str, moment: float) -> list[Digest]:
        """What was pulled last before a moment (seconds since 1970)."""
        rows = self._all("SELECT digest FROM pulls WHERE repository = ? AND pulled < ?", repository, int(moment))
        return [Digest(text) for (text,) in rows]

    def forget_pulls(self, repository: str, digest: Digest) -> None:
        """Forget when a manifest was pulled."""
        self._execute_lightly("DELETE FROM pulls WHERE repository = ? AND digest = ?", repository, str(digest))

    def _pulled(self, repository: str, digest: Digest) -> int | None:
        rows = self._all("SELECT pulled FROM pulls WHERE repository = ? AND digest = ?", repository, str(digest))
        return int(rows[0][0]) if rows else None

    def want(self, repository: str, digest: Digest) -> None:
        """Note that upstream has a blob in a repository, which is to have it here as soon as it has come."""
        self._execute("INSERT OR REPLACE INTO wanted VALUES (?, ?, ?)", str(digest), repository, int(time.time()))

    def take_wanted(self, digest: Digest) -> list[str]:
        """The repositories that are to have a blob; they are forgotten."""
        with self.exclusive():
            rows = self._all("SELECT repository FROM wanted WHERE digest = ?", str(digest))
            self._execute("DELETE FROM wanted WHERE digest = ?", str(digest))
        return [repository for (repository,) in rows]
