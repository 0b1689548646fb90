"""A small SQLite database beside the store, which the threads of all worker processes have open at once."""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from layerstore.errors import StorageError, UnsupportedFormatError

_BUSY_SECONDS = 60.0


class Database:
    """The database. Its methods may be called from several threads, each of which gets a connection of its own."""

    def __init__(self, path: Path, schema: str, version: int) -> None:
        """``schema`` makes the tables that are not there. Raises `UnsupportedFormatError` for a later ``version``."""
        self._path = path
        self._local = threading.local()
        self._connections: dict[threading.Thread, sqlite3.Connection] = {}
        self._lock = threading.Lock()
        with self._translated():
            connection = self._connection()
            found = connection.execute("PRAGMA user_version").fetchone()[0]
            if found > version:
                raise UnsupportedFormatError(f"{path} was written by a newer layerstore")
            connection.executescript(schema)
            connection.execute(f"PRAGMA user_version = {version}")

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            for connection in self._connections.values():
                connection.close()
            self._connections.clear()

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Nobody else changes the database until the block is left; its changes come together, or not at all."""
        with self._translated():
            connection = self._connection()
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:  # SQLite ends it itself after some errors
                    connection.execute("ROLLBACK")
                raise

    def _connection(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = sqlite3.connect(
                self._path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            self._local.connection = connection
            with self._lock:
                # Threads come and go: those that have ended leave their connections behind.
                for thread in [one for one in self._connections if not one.is_alive()]:
                    self._connections.pop(thread).close()
                self._connections[threading.current_thread()] = connection
        return connection

    def _execute(self, statement: str, *values: object) -> int:
        """Change something; how many rows."""
        with self._translated():
            return self._connection().execute(statement, values).rowcount

    def _execute_lightly(self, statement: str, *values: object) -> int:
        """`_execute` of what need not survive a power cut; it waits for no disk."""
        with self._translated():
            connection = self._connection()
            connection.execute("PRAGMA synchronous = NORMAL")
            try:
                return connection.execute(statement, values).rowcount
            finally:
                connection.execute("PRAGMA synchronous = FULL")

    def _all(self, statement: str, *values: object) -> list[tuple[str, ...]]:
        with self._translated():
            return self._connection().execute(statement, values).fetchall()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StorageError(f"the registry's database {self._path} cannot be used: {error}") from error
