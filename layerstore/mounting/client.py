"""Mounting views and containers, and unmounting them."""

import errno
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from layerstore.digest import Digest
from layerstore.errors import (
    AlreadyMountedError,
    LayerstoreError,
    MountBusyError,
    MountTargetError,
    MountUnavailableError,
    NotMountedError,
)
from layerstore.mounting.attaching import check_available, detach, run_fusermount
from layerstore.mounting.connection import Connection, ServerGoneError, connect, find_server, start_single
from layerstore.mounting.messages import Message
from layerstore.mounting.mount_table import OVERLAY_SOURCE, MountEntry, mount_at, read_mounts, resolved
from layerstore.mounting.runtime import RuntimeFolder, all_folders, mounting_lock, overlay_targets
from layerstore.mounting.system_calls import MS_BIND, MS_NODEV, MS_NOSUID, MS_RDONLY, MS_REMOUNT
from layerstore.mounting.system_calls import mount as mount_call
from layerstore.mounting.system_calls import unmount as unmount_call

_OPTIONS_SIZE_MAX = 4095
_DEAD = (errno.ENOTCONN, errno.ECONNABORTED)


class Mount:
    """Something that is mounted. As a context manager it is unmounted at the end."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __repr__(self) -> str:
        return f"<Mount at {str(self.target)!r}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.unmount()

    def unmount(self, *, lazy: bool = False) -> None:
        """As the function `unmount`."""
        unmount(self.target, lazy=lazy)


@dataclass(frozen=True, slots=True)
class MountInfo:
    """What is mounted somewhere."""

    target: Path
    is_container: bool
    """Whether it is a container, which can be written to, or a view."""
    store: Path | None
    """The store it comes from; None if its server is dead."""
    layers: tuple[Digest, ...]
    """The layers that are seen, the lowest first; none are known if its server is dead."""

    @property
    def is_alive(self) -> bool:
        """Whether there is a server that answers for it."""
        return self.store is not None


def mount_view(store_root: Path, store_id: str, diff_ids: Sequence[Digest], target: Path) -> Mount:
    """Mount a stack of layers, the lowest first, read-only at a directory. Set-uid bits and devices do nothing there.

    Raises `MountUnavailableError`, `MountTargetError`, `AlreadyMountedError`, and the errors of `View`.
    """
    check_available()
    with _claimed(target) as place:
        if os.geteuid() == 0:
            with _shown(store_root, store_id, diff_ids) as (_, folder):
                _call(place, str(folder), "none", MS_BIND, b"")
                try:
                    # The directory may be open to every user, and the image from anybody.
                    _call(place, "none", "none", MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV, b"")
                except BaseException:
                    _unmount(place, lazy=True)
                    raise
                _check_answers(place)
        else:
            with start_single(RuntimeFolder.of_one_mount(), store_root, place) as connection:
                connection.ask(_show_message(diff_ids))
                _check_answers(place)
    return Mount(place)


def mount_container(
    store_root: Path,
    store_id: str,
    diff_ids: Sequence[Digest],
    target: Path,
    *,
    upper: Path,
    work: Path,
    lock: Path,
    user_xattrs: bool,
) -> Mount:
    """Mount a stack of layers with a container's changes on top at a directory, to be read and written.

    ``lock`` is held by the server as long as the container is mounted. Raises `ContainerInUseError`, and what
    `mount_view` raises. Without root it needs ``fuse-overlayfs``.
    """
    check_available()
    program = None if os.geteuid() == 0 else _fuse_overlayfs()
    upper, work, lock = upper.resolve(), work.resolve(), lock.resolve()
    with _claimed(target) as place:
        hold: Message = {"do": "hold", "lock": str(lock), "upper": str(upper), "target": str(place)}
        if program is None:
            with _shown(store_root, store_id, diff_ids) as (connection, lower):
                connection.ask(hold)
                options = _overlay_options(lower, upper, work, user_xattrs)
                _call(place, OVERLAY_SOURCE, "overlay", MS_NOSUID | MS_NODEV, options)
        else:
            folder = RuntimeFolder.of_one_mount()
            with start_single(folder, store_root, folder.file_system) as connection:
                connection.ask(hold)
                connection.ask(_show_message(diff_ids))
                folder.overlay_target.write_bytes(os.fsencode(place))
                _run_fuse_overlayfs(program, place, folder.file_system, upper, work)
        _check_answers(place)
    return Mount(place)


def unmount(target: Path, *, lazy: bool = False) -> None:
    """Unmount what layerstore has mounted at a directory, be its server alive or dead.

    ``lazy`` takes it away from the directory at once and leaves it to those who still use it. Otherwise raises
    `MountBusyError` if somebody does. Raises `NotMountedError` if nothing of ours is mounted there.
    """
    place = resolved(target)
    entry = mount_at(place)
    if entry is None or not _is_ours(entry, overlay_targets()):
        raise NotMountedError(f"layerstore has mounted nothing at {target}")
    is_dead = _is_dead(entry)
    if lazy and not is_dead:
        for folder in all_folders():
            _tell(folder, {"do": "keep", "target": str(place)})
    try:
        _unmount(place, lazy=lazy or is_dead)
    except OSError as error:
        if error.errno == errno.EBUSY or "busy" in (error.strerror or "").lower():
            raise MountBusyError(f"{target} is in use; end what uses it, or unmount it lazily") from None
        raise MountUnavailableError(f"cannot unmount {target}: {error.strerror}") from None
    for folder in all_folders():
        _settle(folder)


def mounts() -> list[MountInfo]:
    """What layerstore has mounted in this mount namespace, by target."""
    known: dict[Path, MountInfo] = {}
    for folder in all_folders():
        connection = find_server(folder)
        if connection is not None:
            with connection:
                try:
                    answer = connection.ask({"do": "list"})
                except ServerGoneError:
                    continue  # with the last of its mounts
            for one in answer["mounts"]:
                target, layers = Path(one["target"]), tuple(Digest(layer) for layer in one["layers"])
                known[target] = MountInfo(target, one["kind"] == "container", Path(answer["store"]), layers)
    found = {}
    private = {folder.file_system for folder in all_folders()}
    targets = overlay_targets()
    for entry in read_mounts():
        if _is_ours(entry, targets) and not entry.has_all_views and entry.target not in private:
            dead = MountInfo(entry.target, not entry.is_view, None, ())
            found[entry.target] = known.get(entry.target, dead)
    return [found[target] for target in sorted(found)]


@contextmanager
def _claimed(target: Path) -> Iterator[Path]:
    """A directory on which nothing is mounted, and nothing else of ours will be meanwhile."""
    place = resolved(target)
    with mounting_lock():
        entry = mount_at(place)
        if entry is not None and _is_ours(entry, overlay_targets()) and _is_dead(entry):
            _unmount(place, lazy=True)
            entry = mount_at(place)
        if entry is not None:
            raise AlreadyMountedError(f"something is mounted at {target} already")
        try:
            is_directory = stat.S_ISDIR(place.lstat().st_mode)
        except OSError as error:
            raise MountTargetError(f"cannot mount at {target}: {error.strerror}") from None
        if not is_directory:
            raise MountTargetError(f"cannot mount at {target}: it is no directory")
        yield place


@contextmanager
def _shown(store_root: Path, store_id: str, diff_ids: Sequence[Digest]) -> Iterator[tuple[Connection, Path]]:
    """The directory of a view, which stays until the end of this."""
    folder = RuntimeFolder.of_store(store_root, store_id)
    connection, answer = connect(folder, store_root, _show_message(diff_ids))
    with connection:
        try:
            yield connection, Path(answer["path"])
        except BaseException:
            # What was held for a mount that failed is free again before the caller hears of it.
            with suppress(LayerstoreError):
                connection.ask({"do": "release"})
            raise


def _show_message(diff_ids: Sequence[Digest]) -> Message:
    return {"do": "show", "layers": [str(one) for one in diff_ids]}


def _call(target: Path, source: str, kind: str, flags: int, options: bytes) -> None:
    try:
        mount_call(source, target, kind, flags, options)
    except OSError as error:
        raise MountUnavailableError(f"cannot mount at {target}: {error.strerror}") from None


def _overlay_options(lower: Path, upper: Path, work: Path, user_xattrs: bool) -> bytes:
    """Options of overlayfs. All that would leave in the upper directory what is no changeset is off."""
    options = b",".join(
        [
            b"lowerdir=" + _escaped(lower).replace(b":", b"\\:"),
            b"upperdir=" + _escaped(upper),
            b"workdir=" + _escaped(work),
            b"redirect_dir=nofollow,metacopy=off,index=off,xino=off",
            *([b"userxattr"] if user_xattrs else []),
        ]
    )
    if len(options) > _OPTIONS_SIZE_MAX:
        raise MountUnavailableError(f"the paths of the container at {upper.parent} are too long for overlayfs")
    return options


def _escaped(path: Path) -> bytes:
    return os.fsencode(path).replace(b"\\", b"\\\\").replace(b",", b"\\,")


def _fuse_overlayfs() -> str:
    program = shutil.which("fuse-overlayfs")
    if program is None:
        raise MountUnavailableError(
            "a container is mounted without root by `fuse-overlayfs`, which is missing: "
            "install it, for example with `apt install fuse-overlayfs`"
        )
    return program


def _run_fuse_overlayfs(program: str, target: Path, lower: Path, upper: Path, work: Path) -> None:
    folders = [b"lowerdir=" + _escaped(lower), b"upperdir=" + _escaped(upper), b"workdir=" + _escaped(work)]
    # Everything belongs to the user, as they could not keep other owners of what they change.
    owner = f"squash_to_uid={os.geteuid()},squash_to_gid={os.getegid()}"
    options = b",".join([*folders, owner.encode()])
    done = subprocess.run([program, "-o", options, target], capture_output=True, check=False)
    if done.returncode:
        raise MountUnavailableError(f"fuse-overlayfs failed: {os.fsdecode(done.stderr).strip()}")


def _check_answers(place: Path) -> None:
    """Wait for the first answer: only now the file system is there for everybody."""
    try:
        os.statvfs(place)
        device = place.stat().st_dev
    except OSError as error:
        raise MountUnavailableError(f"what was mounted at {place} does not answer: {error.strerror}") from None
    if device == place.parent.stat().st_dev:
        raise MountUnavailableError(f"nothing was mounted at {place}")


def _is_ours(entry: MountEntry, targets: set[Path]) -> bool:
    return entry.is_view or entry.is_container or (entry.is_user_overlay and entry.target in targets)


def _is_dead(entry: MountEntry) -> bool:
    """Whether the server has gone that answered for a mount."""
    lower = entry.option(b"lowerdir") if entry.is_container else None
    try:
        # Unlike stat, which the kernel may answer by itself.
        os.statvfs(lower if lower is not None else entry.target)
    except OSError as error:
        # A view's directory has a name that no other server uses.
        return error.errno in _DEAD or (lower is not None and error.errno == errno.ENOENT)
    return False


def _unmount(place: Path, *, lazy: bool) -> None:
    if os.geteuid() == 0:
        unmount_call(place, lazy=lazy)
    else:
        run_fusermount(place, lazy=lazy)


def _settle(folder: RuntimeFolder) -> None:
    """Let a server see what was unmounted before we go on; take away what a dead one has left."""
    if not _tell(folder, {"do": "sweep"}):
        with folder.of_dead_server() as is_dead:
            if is_dead:
                detach(folder.file_system)


def _tell(folder: RuntimeFolder, message: Message) -> bool:
    """Tell a server something, if there is one; it may end meanwhile."""
    connection = find_server(folder)
    if connection is None:
        return False
    with connection, suppress(LayerstoreError):
        connection.ask(message)
    return True
