"""Places as commands take them: opened and closed again, with ``-`` for the standard input and output."""

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import click

from layerstore import RemoteRepository
from layerstore.cli.progress import progress_bar
from layerstore.cli.registry_options import RegistryOptions
from layerstore.cli.settings import Settings
from layerstore.errors import LayerstoreError, NotFoundError
from layerstore.places.opening import FORMATS, REMOTE, Place, open_place
from layerstore.places.store_place import StorePlace
from layerstore.progress import OnProgress, Progress
from layerstore.registry.client.references import DEFAULT_TAG, RemoteName, names_registry

OpenedPlace = Place | RemoteRepository

_STDIO = "-"
_BLOCK_SIZE = 1 << 20
_COMPRESSED = (".tgz", ".tar.gz", ".tar.zst", ".tar.xz", ".tar.bz2")
_PIPE_FILE = "archive.tar"


@contextmanager
def opened_source(
    settings: Settings, text: str, format: str | None, registry: RegistryOptions
) -> Iterator[tuple[OpenedPlace, str | None]]:
    """A place to copy from, and the name that was given with it. An archive from a pipe is read to its end first."""
    if _is_remote(text, format):
        remote = RemoteName.parse(text)
        with closing(RemoteRepository(remote.repository, options=registry.connection(remote))) as repository:
            yield repository, remote.image
        return
    if is_pipe(text):
        format = _pipe_format(text, format)
        if sys.stdin is None or sys.stdin.isatty():
            raise click.UsageError("the standard input is closed or a terminal; pipe an archive into it")
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, _PIPE_FILE)
            with progress_bar(settings, "reading") as on_progress:
                _spool(file, on_progress)
            with _called(file, "the standard input"):
                place, _ = open_place(str(file), format)
                place.name = "the standard input"
                if not isinstance(place, StorePlace):
                    place.repository = None  # it has no file's name that mere tags could belong to
                yield place, None
        return
    place, name = open_place(text, format)
    try:
        if not isinstance(place, StorePlace) and not place.path.exists():
            hint = f"; write {REMOTE}{text} for an image in a registry" if names_registry(text) else ""
            raise NotFoundError(f"there is no file or directory {place.path}{hint}")
        yield place, name
    finally:
        _close(place)


@contextmanager
def opened_sink(text: str, format: str | None, registry: RegistryOptions) -> Iterator[tuple[OpenedPlace, str | None]]:
    """A place to copy into, and the name that was given with it. A pipe gets the archive when it is whole."""
    if _is_remote(text, format):
        remote = RemoteName.parse(text)
        if remote.digest is not None:
            raise click.UsageError(f"{remote.repository} gets an image by a tag; leave out the digest")
        with closing(RemoteRepository(remote.repository, options=registry.connection(remote))) as repository:
            yield repository, remote.tag
        return
    if is_pipe(text):
        format = _pipe_format(text, format)
        if sys.stdout is None or sys.stdout.isatty():
            raise click.UsageError(
                "the standard output is closed or a terminal, an archive is binary; name a file or pipe it on"
            )
        if format == "oci":
            raise click.UsageError(
                "a layout is a directory and cannot go to the standard output; give another --format"
            )
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, _PIPE_FILE)
            with _called(file, "the standard output"):
                place, _ = open_place(str(file), format)
                place.name = "the standard output"
                yield place, None
            with file.open("rb") as archive:
                shutil.copyfileobj(archive, sys.stdout.buffer, _BLOCK_SIZE)
            sys.stdout.buffer.flush()
        return
    if format is None and names_registry(text) and not Path(text).parent.is_dir():
        raise click.UsageError(f"write {REMOTE}{text} for the registry, or ./{text} for a folder")
    is_guessed = format is None and not text.startswith("oci:")
    if is_guessed and text.lower().endswith(_COMPRESSED) and not Path(text).exists():
        raise click.UsageError(f"{text!r} looks compressed, and archives are not: their layers are; name it .tar")
    place, name = open_place(text, format)
    try:
        yield place, name
    finally:
        _close(place)


def is_pipe(text: str) -> bool:
    """Whether a place is the standard input or output: ``-``, or for example ``oci-archive:-``."""
    return text == _STDIO or _kind_of_pipe(text) is not None


def _kind_of_pipe(text: str) -> str | None:
    kind, _, path = text.partition(":")
    return kind if path == _STDIO and kind in FORMATS else None


def _pipe_format(text: str, format: str | None) -> str | None:
    kind = _kind_of_pipe(text)
    if None not in (kind, format) and kind != format:
        raise click.UsageError(f"{text!r} is not of the format {format}")
    return kind or format


def one_name(option: str | None, in_place: str | None) -> str | None:
    """The name for the sink: that of ``--name`` or that in the place's text."""
    if option is not None and in_place is not None:
        raise click.UsageError(f"the place has the name {in_place!r} already; leave out --name")
    return in_place if option is None else option


def chosen_references(source: OpenedPlace, references: tuple[str, ...], in_place: str | None) -> list[str] | None:
    """Which images of a source are meant: None for all. Of a repository in a registry it is the latest one."""
    if references and in_place is not None:
        raise click.UsageError(f"the place names the image {in_place!r} already; leave out other names")
    if in_place is not None:
        return [in_place]
    if not references and isinstance(source, RemoteRepository):
        return [DEFAULT_TAG]
    return list(references) or None


def _is_remote(text: str, format: str | None) -> bool:
    if not text.startswith(REMOTE) or Path(text).exists():
        return False
    if format is not None:
        raise click.UsageError(f"{text!r} is in a registry: leave out --format")
    return True


@contextmanager
def _called(file: Path, name: str) -> Iterator[None]:
    """Let errors speak of the pipe, and not of the file that its bytes go through."""
    try:
        yield
    except LayerstoreError as error:
        error.args = tuple(one.replace(str(file), name) if isinstance(one, str) else one for one in error.args)
        raise


def _close(place: Place) -> None:
    if isinstance(place, StorePlace):
        place.store.close()


def _spool(file: Path, on_progress: OnProgress | None) -> None:
    done = 0
    with file.open("wb") as target:
        while block := sys.stdin.buffer.read(_BLOCK_SIZE):
            target.write(block)
            done += len(block)
            if on_progress is not None:
                on_progress(Progress("copy", "the standard input", done, None))
