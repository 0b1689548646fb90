"""Where something of this machine is mounted over a container's files while it runs."""

import os
import posixpath
from contextlib import suppress
from pathlib import Path
from typing import Any

from layerstore.containers.errors import DirectoryNotEmptyError
from layerstore.errors import ContainerInUseError, InvalidInputError, NotFoundError
from layerstore.objects import Container
from layerstore.union.errors import NotADirectoryInViewError


class MountPoints:
    """What was made in a container to be mounted over. It is no change of the container's: it goes after the run."""

    def __init__(self, container: Container) -> None:
        self._container = container
        self._made: list[bytes] = []
        self._times: dict[bytes, tuple[int, int]] = {}
        """Of the directories in which something was made: before, and after it."""

    def make(self, document: dict[str, Any]) -> dict[str, Any]:
        """Make what is mounted over, if it is not there: not every runtime could, as the user that it runs for.

        The document that comes back names it by paths without symbolic links. Raises `InvalidInputError` if a link
        stands where the system's own directories belong.
        """
        mounts = []
        for mount in document["mounts"]:
            target = os.fsencode(mount["destination"])
            if target.startswith(b"/dev/"):
                mounts.append(mount)
                continue
            if not self._container.exists(target):
                self._make(target, is_file=_is_file(mount))
            found = b"/" + self._container.stat(target).path
            if mount["type"] != "bind" and found != target:
                raise InvalidInputError(f"{mount['destination']} of the container is a symbolic link: it cannot be run")
            mounts.append({**mount, "destination": os.fsdecode(found)})
        return {**document, "mounts": mounts}

    def _make(self, target: bytes, *, is_file: bool) -> None:
        missing = [posixpath.normpath(target)]
        while not self._container.exists(parent := posixpath.dirname(missing[-1])):
            missing.append(parent)
        folder = self._container.stat(parent)
        place = (b"/" + folder.path).rstrip(b"/")
        for path in reversed(missing):
            # The way there may lead over links, which the program may change.
            real = place + path[len(parent.rstrip(b"/")) :]
            if is_file and path == missing[0]:
                self._container.write_bytes(real, b"")
            else:
                self._container.mkdir(real)
            self._made.append(real)
        before = self._times.get(folder.path, (folder.mtime_ns, 0))[0]
        self._times[folder.path] = (before, self._container.stat(folder.path).mtime_ns)

    def remove(self) -> None:
        """Take away what is still as it was made, and let the directories around be as old as they were."""
        if not self._made:
            return
        with suppress(ContainerInUseError):  # then they stay: somebody goes on in the container already
            container = self._container
            try:
                untouched = {path for path in self._times if self._is_untouched(path)}
                for path in reversed(self._made):
                    if not self._remove(path):
                        untouched.discard(posixpath.dirname(path).lstrip(b"/"))
                for path in untouched:
                    container.utime(path, self._times[path][0])
            finally:
                container.close()

    def _is_untouched(self, path: bytes) -> bool:
        return self._container.is_dir(path) and self._container.stat(path).mtime_ns == self._times[path][1]

    def _remove(self, path: bytes) -> bool:
        """Take away what is empty; whether nothing is there then."""
        try:
            node = self._container.lstat(path)
            if node.is_dir:
                self._container.rmdir(path)
            elif node.is_file and not node.size:
                self._container.unlink(path)
            else:
                return False
        except DirectoryNotEmptyError:
            return False
        except (NotFoundError, NotADirectoryInViewError):
            pass  # the program has done it
        return True


def _is_file(mount: dict[str, Any]) -> bool:
    return mount["type"] == "bind" and not Path(mount["source"]).is_dir()
