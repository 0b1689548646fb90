"""Images for `fsspec`, and so for pandas, pyarrow, zarr, dask and whatever else opens its URLs.

Installed with ``layerstore[fsspec]``; nothing else of layerstore imports this module. An image is named by the option
``image`` or in the URL, and the store by the option ``store`` or the environment::

    fsspec.open("layerstore://shop:1.0!/data/sales.csv", store="/var/lib/layers")
    fsspec.open("layerstore:///data/sales.csv", store="/var/lib/layers", image="shop:1.0")

A URL names an image by what stands before its first ``!/``, or before a ``!`` at its end. No reference and no digest
contains one. A URL whose path begins with a slash names none, so any name of a file can be written in that form. A path
without the protocol, as the methods take and give it, is nothing but a path.
"""

import atexit
import hashlib
import io
import os
import threading
import weakref
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn

from fsspec.spec import AbstractFileSystem  # type: ignore[import-untyped]

from layerstore.digest import Digest
from layerstore.errors import ImageNotFoundError, InvalidOptionError, StoreNotFoundError
from layerstore.objects import Image
from layerstore.places.platforms import WantedPlatform, image_for
from layerstore.store import Store
from layerstore.tar.entries import EntryKind
from layerstore.union.errors import LinkLoopError, NotADirectoryInViewError, PathNotFoundError
from layerstore.union.node import Node
from layerstore.union.path import ReadOnlyFilesError
from layerstore.union.view import View

STORE_VARIABLE = "LAYERSTORE_PATH"
"""Names the store where the option is not given; the one that the command line reads."""

_PROTOCOL = "layerstore"
_ESCAPE = "surrogateescape"
_UNREACHABLE = (PathNotFoundError, NotADirectoryInViewError, LinkLoopError)
_BUFFER_SIZE = 1 << 16
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TYPES = {EntryKind.FILE: "file", EntryKind.DIRECTORY: "directory", EntryKind.SYMLINK: "link"}


class ImageFile(io.BufferedReader):
    """A file of an image, seekable. It keeps its view open, whatever becomes of the file system."""

    mode = "rb"  # the type of what it wraps has none, and callers ask for it

    def __init__(self, path: str, node: Node, opened: "_OpenedView") -> None:
        super().__init__(opened.view.open_node(node).detach(), max(1, min(node.size, _BUFFER_SIZE)))
        self._opened = opened
        self.path = path
        self.size = node.size


class LayerstoreFileSystem(AbstractFileSystem):  # type: ignore[misc]
    """The files of an image, all layers taken together, read-only. Nothing is unpacked.

    Options: ``store`` is the store's folder, by default what ``LAYERSTORE_PATH`` names; ``image`` a reference, a digest
    or the beginning of one; ``platform`` chooses from an index, by default for this machine. The store is opened when
    something is first asked for. What the reference names then is kept from collection until `close`, if its copies for
    other threads and its files are gone, too. fsspec itself keeps file systems for the same options; those that are
    gone without a `close` are closed by `clear_instance_cache`, by the next that opens, or when the process ends.

    A copy that came here by a pickle opens the store itself. One that came by a fork cannot, as LMDB cannot be opened
    again there: use the start methods spawn or forkserver. While one is open, this process cannot open the same store
    to write in it, unless it had done so before.

    Paths have no slash in front. Symbolic links are followed inside of the image. In listings a link to a file is a
    ``file``, and all others are ``link``, so that no walk ever runs in circles; ``islink`` and ``destination`` tell of
    links. Everything that would write raises an `OSError` (EROFS) that is a `layerstore.errors.ReadOnlyError`, too.
    """

    protocol = _PROTOCOL
    root_marker = ""

    def __init__(
        self,
        store: str | os.PathLike[str] | None = None,
        image: str | None = None,
        platform: str | None = None,
        **storage_options: Any,
    ) -> None:
        super().__init__(**storage_options)
        self.store = store
        self.image = image
        self.platform = platform
        self._opened: _OpenedView | None = None

    # --- URLs ---------------------------------------------------------------------------------------------------------

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        if isinstance(path, list):
            return [cls._strip_protocol(one) for one in path]
        return _split_url(_url_text(path))[1].strip("/")

    @staticmethod
    def _get_kwargs_from_urls(path: Any) -> dict[str, Any]:
        image, _ = _split_url(_url_text(path))
        return {} if image is None else {"image": image}

    def unstrip_protocol(self, name: str) -> str:
        """The URL of a path, with the image in it."""
        if name.startswith(f"{_PROTOCOL}://"):
            return name
        return f"{_PROTOCOL}://{'' if self.image is None else self.image + '!'}/{name.lstrip('/')}"

    @property
    def fsid(self) -> str:
        """Equal for equal contents: the digest of the image."""
        return f"{_PROTOCOL}-{self._open_view().digest}"

    # --- the view -----------------------------------------------------------------------------------------------------

    @property
    def view(self) -> View:
        """The view of the image. It belongs to the file system; do not close it."""
        return self._open_view().view

    def close(self) -> None:
        """Let go of the image. What is asked for afterwards opens it again, and finds what the reference names then."""
        self._opened = None
        _close_unused()

    @classmethod
    def clear_instance_cache(cls) -> None:
        """Forget all file systems that fsspec keeps; those that nobody else has are closed."""
        super().clear_instance_cache()
        _close_unused()

    def invalidate_cache(self, path: str | None = None) -> None:
        """As `close`: only a reference can come to name something else, an image never changes."""
        super().invalidate_cache(path)
        self.close()

    def _open_view(self) -> "_OpenedView":
        opened = self._opened
        if opened is None or opened.pid != os.getpid():  # after a fork, the store refuses
            opened = self._opened = _shared.open(self.store, self.image, self.platform)
        return opened

    # --- what is there ------------------------------------------------------------------------------------------------

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        """What stands at a path, links followed; a link to nothing is a ``link``.

        Beside what is usual: mode, uid, gid, mtime, ino, nlink, islink, destination (of a link), xattrs, and layer, the
        DiffID of where it comes from.
        """
        path = self._strip_protocol(path)
        return self._info(path, self.view.lstat(path))

    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> list[Any]:
        """What is in a directory, or the file itself, sorted by name."""
        path = self._strip_protocol(path)
        node = self.view.stat(path)
        if not node.is_dir:
            return [self.info(path)] if detail else [path]
        found = self.view.scandir(path)
        names = [f"{path}/{_text(one.name)}" if path else _text(one.name) for one in found]
        if not detail:
            return names
        infos = [self._info(name, one) for name, one in zip(names, found, strict=True)]
        # A walk enters what is called a directory, and links may go round in circles.
        return [{**one, "type": "link"} if one["islink"] and one["type"] == "directory" else one for one in infos]

    def find(
        self, path: str, maxdepth: int | None = None, withdirs: bool = False, detail: bool = False, **kwargs: Any
    ) -> Any:
        """All files below a path, and with ``withdirs`` all directories and links to such.

        Devices and links to nothing are left out: nobody who looks for files can open them.
        """
        found = super().find(path, maxdepth=maxdepth, withdirs=withdirs, detail=True, **kwargs)
        kept = {
            name: one
            for name, one in found.items()
            if one["type"] in ("file", "directory") or (one["type"] == "link" and withdirs and self.isdir(name))
        }
        return kept if detail else list(kept)

    def exists(self, path: str, **kwargs: Any) -> bool:
        """Whether a path leads to something."""
        return self.view.exists(self._strip_protocol(path))

    def lexists(self, path: str, **kwargs: Any) -> bool:
        """Whether something stands at a path, be it a link to nothing."""
        try:
            self.view.lstat(self._strip_protocol(path))
        except _UNREACHABLE:
            return False
        return True

    def isfile(self, path: str) -> bool:
        """Whether a path leads to a regular file."""
        return self.view.is_file(self._strip_protocol(path))

    def isdir(self, path: str) -> bool:
        """Whether a path leads to a directory."""
        return self.view.is_dir(self._strip_protocol(path))

    def islink(self, path: str) -> bool:
        """Whether a symbolic link stands at a path."""
        return self.lexists(path) and self.view.lstat(self._strip_protocol(path)).is_symlink

    def modified(self, path: str) -> datetime:
        """The time of modification. What no calendar has becomes the first or the last that there is."""
        time_ns = self.view.stat(self._strip_protocol(path)).mtime_ns
        try:
            return _EPOCH + timedelta(microseconds=time_ns // 1000)
        except OverflowError:
            return (datetime.max if time_ns > 0 else datetime.min).replace(tzinfo=UTC)

    def created(self, path: str) -> datetime:
        """The time of modification: a layer has no other."""
        return self.modified(path)

    def ukey(self, path: str) -> str:
        """Equal for equal contents of files: where in which layer they are, on every machine the same."""
        path = self._strip_protocol(path)
        node = self.view.stat(path)
        if node.is_file and node.entry is not None:
            return f"{node.layer}+{node.entry.payload_offset}+{node.size}"
        return f"{self.fsid}/{path}"

    def checksum(self, path: str) -> int:
        """`ukey` as a number."""
        return int.from_bytes(hashlib.sha256(self.ukey(path).encode(errors=_ESCAPE)).digest())

    # --- contents -----------------------------------------------------------------------------------------------------

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        """The bytes of a file, or those from ``start`` to ``end``, which count from its end if they are negative."""
        opened = self._open_view()
        contents = opened.view.contents(opened.view.stat(self._strip_protocol(path)))
        first, last, _ = slice(start, end).indices(contents.size)
        data = bytearray(max(0, last - first))
        contents.read_into(memoryview(data), first)
        return bytes(data)

    def _open(
        self,
        path: str,
        mode: str = "rb",
        block_size: int | None = None,
        autocommit: bool = True,
        cache_options: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> ImageFile:
        path = self._strip_protocol(path)
        if mode != "rb":
            raise ReadOnlyFilesError(path.encode(errors=_ESCAPE))
        opened = self._open_view()
        return ImageFile(path, opened.view.stat(path), opened)

    # --- what would write ---------------------------------------------------------------------------------------------

    def _refuse(self, path: Any, *args: Any, **kwargs: Any) -> NoReturn:
        raise ReadOnlyFilesError(_url_text(path).encode(errors=_ESCAPE))

    mkdir = makedirs = rmdir = rm = rm_file = _rm = mv = cp_file = touch = pipe_file = put_file = _refuse

    # ------------------------------------------------------------------------------------------------------------------

    def _info(self, name: str, node: Node) -> dict[str, Any]:
        seen = node
        if node.is_symlink:
            with suppress(*_UNREACHABLE):
                seen = self.view.stat(name)
        info = {
            "name": name,
            "size": seen.size,
            "type": _TYPES.get(seen.kind, "other"),
            "mode": seen.kind.file_type | seen.mode,
            "uid": seen.uid,
            "gid": seen.gid,
            "mtime": seen.mtime_ns / 1e9,
            "ino": (seen.inode[0] + 1 << 32) + seen.inode[1],
            "nlink": seen.links,
            "islink": node.is_symlink,
            "xattrs": {_text(key): value for key, value in seen.xattrs.items()},
            "layer": None if seen.layer is None else str(seen.layer),
        }
        if node.is_symlink:
            info["destination"] = _text(node.link_target)
        return info


class _OpenedView:
    """The view of an image. When nobody has it any more, it is queued to be closed with its store."""

    def __init__(self, store: Store, image: Image) -> None:
        self.view = image.view()
        self.digest = image.digest
        self.pid = os.getpid()
        # The collector of garbage may end a view anywhere, in the midst of what holds a lock that closing waits for.
        self.retire = weakref.finalize(self, _unused.append, (self.view, store, self.pid))
        self.retire.atexit = False  # see `_SharedViews.close`


_unused: deque[tuple[View, Store, int]] = deque()


def _close_unused() -> None:
    """Close the views that nobody has any more. It is called where no lock is held."""
    while _unused:
        with suppress(IndexError):  # another thread was faster
            view, store, pid = _unused.popleft()
            if pid == os.getpid():  # else it is the parent's, who may be at it
                view.close()
                store.close()


class _SharedViews:
    """The views that are open in this process. fsspec makes a file system for each thread; one view is enough."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin anew. In a forked child the views are the parent's, and the lock may be held by a thread of it."""
        self._lock = threading.Lock()
        self._views: weakref.WeakValueDictionary[tuple[Path, Digest], _OpenedView] = weakref.WeakValueDictionary()

    def close(self) -> None:
        """Close all views, and what is queued, as the process ends."""
        with self._lock:
            for opened in list(self._views.values()):
                opened.retire()
        _close_unused()

    def open(self, store: str | os.PathLike[str] | None, image: str | None, platform: str | None) -> _OpenedView:
        """The view of what an image's name means now."""
        _close_unused()
        place = os.environ.get(STORE_VARIABLE, "") if store is None else store
        if not os.fspath(place):
            raise StoreNotFoundError(f"no store given: use the option store, or set {STORE_VARIABLE}")
        if not image:
            raise InvalidOptionError(f"no image given: use the option image, or {_PROTOCOL}://IMAGE!/PATH")
        opened = Store.open(place, read_only=True)
        try:
            found = _for_platform(opened.images[image], image, platform)
            with self._lock:
                key = (opened.path.resolve(), found.digest)
                known = self._views.get(key)
                if known is None:
                    self._views[key] = made = _OpenedView(opened, found)
                    return made
        except BaseException:
            opened.close()
            raise
        opened.close()
        return known


_shared = _SharedViews()

atexit.register(_shared.close)
os.register_at_fork(after_in_child=_shared.forget)


def _for_platform(image: Image, text: str, platform: str | None) -> Image:
    wanted = WantedPlatform.of_this_machine() if platform is None else WantedPlatform.parse(platform)
    found = image_for(image, wanted)
    if found is None:
        raise ImageNotFoundError(f"{text} is not there for {wanted}; choose another by the option platform")
    return found


def _split_url(url: str) -> tuple[str | None, str]:
    """The image that a URL names, and the path."""
    rest = url.removeprefix(f"{_PROTOCOL}://")
    if len(rest) == len(url) or rest.startswith("/"):
        return None, rest
    image, sign, path = rest.partition("!/")
    if sign:
        return image, path
    return (rest[:-1], "") if rest.endswith("!") else (None, rest)


def _url_text(path: Any) -> str:
    return str(path) if not isinstance(path, os.PathLike) else os.fspath(path)


def _text(name: bytes) -> str:
    return name.decode(errors=_ESCAPE)
