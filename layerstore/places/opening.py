"""Places as they are typed: ``oci:DIR[:NAME]``, ``docker-archive:FILE[:NAME]`` and the like, or a mere path."""

from collections.abc import Callable
from pathlib import Path

from layerstore.errors import InvalidOptionError
from layerstore.places.archive import OCIArchive
from layerstore.places.docker_archive import DockerArchive
from layerstore.places.docker_documents import MANIFEST_NAME
from layerstore.places.index_file import LAYOUT_NAME
from layerstore.places.layout import OCILayout
from layerstore.places.store_place import StorePlace
from layerstore.places.tar_reader import TarReader
from layerstore.store import Store

Place = OCILayout | OCIArchive | DockerArchive | StorePlace

_STORE_MARK = "layerstore.json"
_KINDS: dict[str, Callable[[Path], Place]] = {
    "oci": OCILayout,
    "oci-archive": OCIArchive,
    "docker-archive": DockerArchive,
    "store": lambda path: StorePlace(Store.open(path)),
}
_ELSEWHERE = frozenset(
    {"docker", "docker-daemon", "containers-storage", "dir", "sif", "ostree", "tarball", "registry", "http", "https"}
)
"""What other tools call places that this one does not know; none is meant to become a folder of that name."""
REMOTE = "docker://"
"""What stands before the name of a repository in a registry."""
FORMATS = ("oci", "oci-archive", "docker-archive")


def open_place(text: str, format: str | None = None) -> tuple[Place, str | None]:
    """The place that a text means, and the name of an image there if it has one.

    ``KIND:PATH[:NAME]`` ends the path at its first colon, as skopeo does. A mere path may have colons: what is there
    tells the kind; where nothing is yet, a name in ``.tar`` means a Docker archive, which is an OCI archive too, and
    any other a layout. ``format`` says it instead. The store of a `StorePlace` is the caller's to close.

    Raises `InvalidOptionError` for what means nothing, and as `Store.open` does.
    """
    if format is not None and format not in FORMATS:
        raise InvalidOptionError(f"{format!r} is no format: choose {', '.join(FORMATS)}")
    kind, colon, rest = text.partition(":")
    if not colon or kind not in _KINDS:
        if not text:
            raise InvalidOptionError("a place cannot be empty")
        path = Path(text)
        if text.startswith(REMOTE) and not path.exists():
            raise InvalidOptionError(f"{text} is in a registry: open it as a `RemoteRepository`")
        if colon and kind in _ELSEWHERE and not path.exists():
            raise InvalidOptionError(
                f"{kind}: is a place that layerstore does not reach; copy to oci:DIR, and from there with "
                f"`skopeo copy oci:DIR:NAME {text}`, or the other way round. Write ./{text} if it is a path"
            )
        return _KINDS[format or _kind_of(path)](path), None
    path_text, _, name = rest.partition(":")
    if not path_text:
        raise InvalidOptionError(f"{text!r} has no path after {kind}:")
    if format is not None and format != kind:
        raise InvalidOptionError(f"{text!r} is not of the format {format}")
    return _KINDS[kind](Path(path_text)), name or None


def _kind_of(path: Path) -> str:
    if path.is_dir():
        return "store" if (path / _STORE_MARK).exists() and not (path / LAYOUT_NAME).exists() else "oci"
    if path.exists():
        return "docker-archive" if MANIFEST_NAME in TarReader(path, str(path)) else "oci-archive"
    return "docker-archive" if path.suffix.lower() == ".tar" else "oci"
