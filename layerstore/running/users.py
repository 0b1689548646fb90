"""Who a container runs as, by the image's own /etc/passwd and /etc/group (OCI image specification, conversion.md).

Both are the image's, so nothing in them is trusted: they are read inside of its root, up to a size, and what is no
entry is left out.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from layerstore.errors import InvalidOptionError, LayerstoreError
from layerstore.union.file_system import FileSystem

_FILE_SIZE_MAX = 1 << 20
_ID_MAX = 2**31 - 1


@dataclass(frozen=True, slots=True)
class ContainerUser:
    """Numbers of a user and his groups."""

    uid: int
    gid: int
    further_groups: tuple[int, ...] = ()
    home: str = "/"


def find_user(files: FileSystem, text: str) -> ContainerUser:
    """The user that ``USER[:GROUP]`` names; root for an empty text. Raises `InvalidOptionError` for an unknown name."""
    name, colon, group_name = text.partition(":")
    passwd = list(_entries(files, "/etc/passwd", 7))
    groups = list(_entries(files, "/etc/group", 4))
    uid = _number(name or "0")
    row = next((one for one in passwd if one[0] == name or (uid is not None and _number(one[2]) == uid)), None)
    found = uid if row is None else _number(row[2])
    if found is None:
        raise InvalidOptionError(f"the image has no user {name!r} in its /etc/passwd; give a number")
    home = row[5] if row is not None and row[5].startswith("/") else "/"
    if colon:
        return ContainerUser(found, _group(groups, group_name), (), home)
    gid = (_number(row[3]) if row is not None else None) or 0
    further = () if row is None else tuple(sorted(_groups_of(groups, row[0]) - {gid}))
    return ContainerUser(found, gid, further, home)


def _group(groups: list[list[str]], name: str) -> int:
    gid = _number(name)
    if gid is None:
        gid = next((number for one in groups if one[0] == name and (number := _number(one[2])) is not None), None)
    if gid is None:
        raise InvalidOptionError(f"the image has no group {name!r} in its /etc/group; give a number")
    return gid


def _groups_of(groups: list[list[str]], user: str) -> set[int]:
    found = (_number(one[2]) for one in groups if user in one[3].split(","))
    return {gid for gid in found if gid is not None}


def _entries(files: FileSystem, path: str, fields: int) -> Iterator[list[str]]:
    try:
        with files.open(path) as file:
            text = file.read(_FILE_SIZE_MAX).decode("utf-8", "surrogateescape")
    except LayerstoreError as error:
        if not isinstance(error, OSError):
            raise
        return  # many images have none
    for line in text.split("\n"):
        parts = line.split(":")
        if len(parts) >= fields and parts[0] and not line.startswith("#"):
            yield parts


def _number(text: str) -> int | None:
    if not (text.isascii() and text.isdecimal()) or len(text) > 10:
        return None
    number = int(text)
    return number if number <= _ID_MAX else None
