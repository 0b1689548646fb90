"""The files of an image: directories, the beginning of what can be read, and whole files to be saved."""

import stat
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote

from anyio import WouldBlock
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from layerstore import EntryKind, Node, View
from layerstore.objects import Image
from layerstore.registry.protocol import ErrorCode
from layerstore.registry.server.pages.addresses import asked, asked_page
from layerstore.registry.server.pages.figures import Figures, figures_of
from layerstore.registry.server.pages.paging import Page, page_of
from layerstore.registry.server.pages.readers import image_in, reader_in
from layerstore.registry.server.pages.rendering import page
from layerstore.registry.server.pages.text import Lines
from layerstore.registry.server.problems import ProblemError
from layerstore.registry.server.registry import registry_of
from layerstore.registry.server.streaming import sent

_ROWS = 500
_PREVIEW_SIZE_MAX = 256 << 10
_BLOCK_SIZE = 1 << 20
_RETRY_SECONDS = 10
_ESCAPE = "surrogateescape"
_TEXT_CONTROLS = frozenset("\t\n\r\f\x1b")
_KINDS = {
    EntryKind.FILE: "file",
    EntryKind.DIRECTORY: "directory",
    EntryKind.SYMLINK: "symbolic link",
    EntryKind.CHARACTER: "character device",
    EntryKind.BLOCK: "block device",
    EntryKind.FIFO: "fifo",
}


@dataclass(frozen=True, slots=True)
class Row:
    """Something in a directory."""

    node: Node
    kind: str
    mode: str
    modified: datetime | None
    layer: int | None
    """The number of the layer that it comes from, from 1."""


@dataclass(frozen=True, slots=True)
class Preview:
    """The beginning of a file."""

    text: Lines | None
    """None if it is no text."""
    is_whole: bool


def files(request: Request) -> Response:
    """A directory or a file of an image."""
    name = request.path_params["repository"]
    reader = reader_in(request, name)
    image = _image_with_files(request)
    path = _asked_path(request)
    with figures_of(request).view(image) as view:
        # The link itself is shown where it leads to nothing.
        here = view.stat(path) if view.exists(path) else view.lstat(path)
        listed = _listing(view, here, asked_page(request)) if here.is_dir else None
        preview = _preview(view, here) if here.is_file else None
        row = _row(view, here)
        rows = [_row(view, node) for node in listed.items] if listed is not None else []
    values = {
        "reader": reader,
        "name": name,
        "image": image,
        "tags": [tag for tag, digest in reader.registry.repositories.tags(name).items() if digest == image.digest],
        "here": here,
        "row": row,
        "asked_path": _clean(path),
        "trail": _trail(here.path),
        "listed": listed,
        "rows": rows,
        "preview": preview,
    }
    return page(request, "files.html", values)


def download(request: Request) -> Response:
    """A file of an image, to be saved. Nothing in it can run as a page of this site."""
    image = _image_with_files(request)
    path = _asked_path(request)
    figures = figures_of(request)
    with figures.view(image) as view:
        node = view.stat(path)
    if not node.is_file:
        raise ProblemError(404, ErrorCode.UNKNOWN, "only a file can be saved")
    headers = {
        "Content-Length": str(node.size),
        "Content-Disposition": _disposition(node.name),
        "Content-Security-Policy": "sandbox; default-src 'none'; frame-ancestors 'none'",
        "X-Content-Type-Options": "nosniff",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Cache-Control": "private, no-cache",
        "Vary": "Authorization",
    }
    body = sent(_contents(figures, image, path), node.size, registry_of(request).readers)
    return _Download(figures, body, headers)


class _Download(StreamingResponse):
    """A file, unless too many others are on their way."""

    def __init__(self, figures: Figures, body: AsyncIterator[bytes], headers: dict[str, str]) -> None:
        super().__init__(body, headers=headers, media_type="application/octet-stream")
        self._figures = figures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        try:
            self._figures.downloads.acquire_on_behalf_of_nowait(self)
        except WouldBlock:
            problem = ProblemError(
                429,
                ErrorCode.TOOMANYREQUESTS,
                "too many files are being saved at the same time; try again later",
                headers={"Retry-After": str(_RETRY_SECONDS)},
            )
            await problem.response()(scope, receive, send)
            return
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._figures.downloads.release_on_behalf_of(self)


def _contents(figures: Figures, image: Image, path: bytes) -> Iterator[bytes]:
    """The contents of a file. What they are read from is held as long as the iterator lives."""
    with figures.view(image) as view, view.open(path) as file:
        while block := file.read(_BLOCK_SIZE):
            yield block


def _image_with_files(request: Request) -> Image:
    name = request.path_params["repository"]
    image = image_in(reader_in(request, name), name, request.path_params["digest"])
    repositories = registry_of(request).repositories
    with repositories.turn_to_parse(len(image.manifest_bytes)):
        if image.is_index:
            raise ProblemError(404, ErrorCode.UNKNOWN, "an index has no files; each of its images has")
        if image.descriptor.artifact_type is not None:
            raise ProblemError(404, ErrorCode.UNKNOWN, "an artifact is no file system")
        diff_ids = image.config.diff_ids
    if not repositories.layers_with(name, image.digest).issuperset(diff_ids):
        raise ProblemError(404, ErrorCode.UNKNOWN, "its config names layers that are not its own")
    return image


def _asked_path(request: Request) -> bytes:
    return asked(request, "path").encode(errors=_ESCAPE)


def _clean(path: bytes) -> bytes:
    return b"/".join(part for part in path.split(b"/") if part not in (b"", b"."))


def _listing(view: View, here: Node, number: int) -> Page[Node]:
    """A part of a directory; only of that part it is looked up what it is."""
    names = page_of(view.listdir(here.path), number, _ROWS)
    prefix = here.path + b"/" if here.path else b""
    nodes = [view.lstat(prefix + name) for name in names.items]
    return Page(nodes, names.number, names.last, names.total, names.first_item)


def _row(view: View, node: Node) -> Row:
    layer = None if node.layer is None else view.layers.index(node.layer) + 1
    return Row(node, _KINDS[node.kind], stat.filemode(node.kind.file_type | node.mode), _modified(node), layer)


def _modified(node: Node) -> datetime | None:
    try:
        return datetime.fromtimestamp(node.mtime_ns // 10**9, UTC) if node.entry is not None else None
    except (ValueError, OverflowError, OSError):
        return None  # a tar may say any number


def _preview(view: View, node: Node) -> Preview | None:
    with view.open_node(node) as file:
        data = file.read(_PREVIEW_SIZE_MAX)
    is_whole = len(data) == node.size
    return Preview(_as_text(data, is_whole), is_whole)


def _as_text(data: bytes, is_whole: bool) -> Lines | None:
    """The text that bytes are; None if they are none."""
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        # The end may have been cut in the middle of a character.
        if is_whole or error.start < len(data) - 3:
            return None
        text = data[: error.start].decode()
    if any(one < " " and one not in _TEXT_CONTROLS for one in text):
        return None
    return Lines(text.replace("\r\n", "\n"))


def _trail(path: bytes) -> list[tuple[bytes, bytes]]:
    """Names and paths of the directories on the way, the thing itself last."""
    parts = path.split(b"/") if path else []
    return [(name, b"/".join(parts[: count + 1])) for count, name in enumerate(parts)]


def _disposition(name: bytes) -> str:
    text = name.decode(errors="replace")
    plain = "".join(one if one.isascii() and (one.isalnum() or one in "._-") else "_" for one in text)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(text, safe='')}"
