"""Which repository has which manifests and blobs, beyond what tags say: a small database beside the store.

A store knows images and tags. That a manifest without a tag belongs to a repository, and that a blob was uploaded to it
and waits for its manifest, stands here. Tags themselves are in the store alone.

Each worker process has the database open. Whoever takes something away holds `exclusive` meanwhile, so that nothing
which was put at the same time is lost: putting writes its row before and after it touches the store.
"""

import time
from pathlib import Path

from layerstore.digest import Digest
from layerstore.registry.server.database import Database

_VERSION = 1
_FRESH_SECONDS = 600
"""A row that is older says anew when it was pushed, so that nobody takes it for one that was left over."""
_SCHEMA = """
CREATE TABLE IF NOT EXISTS manifests (
    repository TEXT NOT NULL, digest TEXT NOT NULL, pushed INTEGER NOT NULL, PRIMARY KEY (repository, digest)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS manifests_by_digest ON manifests (digest);
CREATE TABLE IF NOT EXISTS blobs (
    repository TEXT NOT NULL, digest TEXT NOT NULL, expires INTEGER NOT NULL, PRIMARY KEY (repository, digest)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS uploads (
    id TEXT NOT NULL PRIMARY KEY, repository TEXT NOT NULL, algorithm TEXT NOT NULL, begun INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS upload_owners (id TEXT NOT NULL PRIMARY KEY, owner TEXT NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS upload_owners_by_owner ON upload_owners (owner);
CREATE TRIGGER IF NOT EXISTS upload_ended AFTER DELETE ON uploads BEGIN
    DELETE FROM upload_owners WHERE id = OLD.id;
END;
CREATE TABLE IF NOT EXISTS history (
    moment INTEGER NOT NULL PRIMARY KEY, logical INTEGER NOT NULL, stored INTEGER NOT NULL
) WITHOUT ROWID;
"""


class Links(Database):
    """The database. Its methods may be called from several threads, each of which gets a connection of its own."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, _SCHEMA, _VERSION)

    def add_manifest(self, repository: str, digest: Digest) -> None:
        """Let a repository have a manifest."""
        now = int(time.time())
        rows = self._all("SELECT pushed FROM manifests WHERE repository = ? AND digest = ?", repository, str(digest))
        if not rows or int(rows[0][0]) < now - _FRESH_SECONDS:
            self._execute("INSERT OR REPLACE INTO manifests VALUES (?, ?, ?)", repository, str(digest), now)

    def has_manifest(self, repository: str, digest: Digest) -> bool:
        """Whether a repository was given a manifest."""
        return bool(self._all("SELECT 1 FROM manifests WHERE repository = ? AND digest = ?", repository, str(digest)))

    def remove_manifest(self, repository: str, digest: Digest) -> None:
        """Let a repository no longer have a manifest."""
        self._execute("DELETE FROM manifests WHERE repository = ? AND digest = ?", repository, str(digest))

    def remove_old_manifest(self, repository: str, digest: Digest, pushed_before: float) -> None:
        """Let a repository no longer have a manifest, unless it is being pushed again."""
        self._execute(
            "DELETE FROM manifests WHERE repository = ? AND digest = ? AND pushed < ?",
            repository,
            str(digest),
            int(pushed_before),
        )

    def manifests(self, repository: str) -> list[Digest]:
        """The manifests that a repository was given, the oldest first."""
        rows = self._all("SELECT digest FROM manifests WHERE repository = ? ORDER BY pushed, digest", repository)
        return [Digest(text) for (text,) in rows]

    def repositories_with(self, digest: Digest) -> list[str]:
        """The repositories that were given a manifest."""
        return [name for (name,) in self._all("SELECT repository FROM manifests WHERE digest = ?", str(digest))]

    def all_manifests(self, pushed_before: float) -> list[tuple[str, Digest]]:
        """All manifests that were given to repositories before a moment (seconds since 1970)."""
        rows = self._all("SELECT repository, digest FROM manifests WHERE pushed < ?", int(pushed_before))
        return [(name, Digest(text)) for name, text in rows]

    def repositories(self) -> list[str]:
        """The repositories that were given manifests."""
        return [name for (name,) in self._all("SELECT DISTINCT repository FROM manifests")]

    def add_blob(self, repository: str, digest: Digest, expires: float) -> None:
        """Let a repository have a blob until a moment (seconds since 1970), or until the later one that it has."""
        self._execute(
            "INSERT INTO blobs VALUES (?, ?, ?) "
            "ON CONFLICT (repository, digest) DO UPDATE SET expires = max(expires, excluded.expires)",
            repository,
            str(digest),
            int(expires),
        )

    def has_blobs(self, repository: str) -> bool:
        """Whether any blob was uploaded to a repository, and is kept for it."""
        query = "SELECT 1 FROM blobs WHERE repository = ? AND expires > ? LIMIT 1"
        return bool(self._all(query, repository, int(time.time())))

    def blob_expires(self, repository: str, digest: Digest) -> float:
        """Until when a repository has a blob that was uploaded to it; 0 if it was not."""
        rows = self._all("SELECT expires FROM blobs WHERE repository = ? AND digest = ?", repository, str(digest))
        return float(rows[0][0]) if rows else 0.0

    def remove_blob(self, repository: str, digest: Digest) -> None:
        """Forget that a blob was uploaded."""
        self._execute("DELETE FROM blobs WHERE repository = ? AND digest = ?", repository, str(digest))

    def repositories_with_blob(self, digest: Digest) -> list[str]:
        """The repositories that a blob was uploaded to, and is kept for."""
        rows = self._all("SELECT repository FROM blobs WHERE digest = ? AND expires > ?", str(digest), int(time.time()))
        return [name for (name,) in rows]

    def forget_expired_blobs(self) -> None:
        """Forget the blobs whose time is over."""
        self._execute("DELETE FROM blobs WHERE expires < ?", int(time.time()))

    def add_upload(self, identifier: str, repository: str, algorithm: str) -> None:
        """Note an upload that has begun."""
        # Should a power cut take the row, the client begins anew, as it would have to for most of the file.
        statement = "INSERT INTO uploads VALUES (?, ?, ?, ?)"
        self._execute_lightly(statement, identifier, repository, algorithm, int(time.time()))

    def own_upload(self, identifier: str, owner: str, begun_after: float) -> int:
        """Note who has begun an upload; how many of theirs began after a moment (seconds since 1970) and go on."""
        self._execute_lightly("INSERT OR REPLACE INTO upload_owners VALUES (?, ?)", identifier, owner)
        query = "SELECT count(*) FROM upload_owners JOIN uploads USING (id) WHERE owner = ? AND begun > ?"
        return int(self._all(query, owner, int(begun_after))[0][0])

    def upload(self, identifier: str) -> tuple[str, str] | None:
        """The repository and the digest algorithm of an upload."""
        rows = self._all("SELECT repository, algorithm FROM uploads WHERE id = ?", identifier)
        return (str(rows[0][0]), str(rows[0][1])) if rows else None

    def remove_upload(self, identifier: str) -> bool:
        """Forget an upload; whether it was there."""
        return self._execute_lightly("DELETE FROM uploads WHERE id = ?", identifier) > 0

    def uploads(self, begun_before: float) -> list[str]:
        """The uploads that began before a moment (seconds since 1970)."""
        return [one for (one,) in self._all("SELECT id FROM uploads WHERE begun < ?", int(begun_before))]

    def add_history(self, moment: float, logical: int, stored: int) -> None:
        """Note the store's sizes at a moment."""
        self._execute("INSERT OR REPLACE INTO history VALUES (?, ?, ?)", int(moment), logical, stored)

    def history(self) -> list[tuple[int, int, int]]:
        """Moments (seconds since 1970), the bytes of all images then, and those of the store on disk; in order."""
        rows = self._all("SELECT moment, logical, stored FROM history ORDER BY moment")
        return [(int(moment), int(logical), int(stored)) for moment, logical, stored in rows]
