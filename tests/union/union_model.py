"""What a stack of layers shows, worked out the slow way: one flat table of paths, and the rules as they are written.

Nothing of `layerstore.union` is used here.
"""

import tarfile
from collections.abc import Sequence

from union_samples import Member

Parts = tuple[bytes, ...]


class Refused(Exception):
    """No tool would unpack this."""


class Thing:
    """An inode. Two are the same if they are one object."""

    def __init__(self, kind: str, data: bytes = b"", mode: int | None = None) -> None:
        self.kind, self.data, self.mode = kind, data, mode


class Model:
    """The merged stack: paths to inodes, the root left out."""

    def __init__(self) -> None:
        self.table: dict[Parts, Thing] = {}

    def apply(self, members: Sequence[Member]) -> None:
        own = [member for member in members if not _mark(member)]
        marks = [member for member in members if _mark(member)]
        meant = {clean(member.name) for member in own} | {
            (*clean(mark.name)[:-1], _mark(mark)) for mark in marks if _mark(mark) != b".wh..opq"
        }
        lower = Model()
        lower.table = dict(self.table)
        doomed = [path for mark in marks for path in lower.doomed_by(mark, meant)]
        for path in doomed:
            self.table.pop(path, None)
        kept = Model()
        kept.table = dict(self.table)
        for member in own:
            self.put(member, [self, *([] if kept.has(clean(member.target)) else [lower])])

    def doomed_by(self, mark: Member, meant: set[Parts]) -> list[Parts]:
        folder = clean(mark.name)[:-1]
        here: Parts = ()
        for length, part in enumerate(folder, 1):
            thing = self.table.get((*here, part))
            if thing is None:
                return []
            if thing.kind == "link" and folder[:length] in meant:
                return []
            try:
                here = self.real((*here, part))
            except (KeyError, Refused):
                return []
        name = _mark(mark)
        if name == b".wh..opq":
            return [path for path in self.table if len(path) > len(here) and path[: len(here)] == here]
        return [path for path in self.table if path[: len(here) + 1] == (*here, name)]

    def real(self, path: Parts, *, make: bool = False) -> Parts:
        """The path without links that ``path`` leads to. KeyError if there is nothing."""
        here: Parts = ()
        todo = list(path)
        steps = 0
        while todo:
            steps += 1
            if steps > 2000:
                raise Refused("a loop")
            part = todo.pop(0)
            if part == b"..":
                here = here[:-1]
            elif part not in (b"", b"."):
                here, more = self.step(here, part, make)
                todo = more + todo
        return here

    def step(self, here: Parts, part: bytes, make: bool) -> tuple[Parts, list[bytes]]:
        """Where a name leads to, and what is to be walked from there."""
        if here and self.table[here].kind != "folder":
            raise KeyError(here)
        thing = self.table.get((*here, part))
        if thing is not None and thing.kind == "link":
            return (() if thing.data.startswith(b"/") else here), thing.data.split(b"/")
        if make and (thing is None or thing.kind != "folder"):
            self.table[(*here, part)] = Thing("folder")
        elif thing is None:
            raise KeyError(part)
        return (*here, part), []

    def put(self, member: Member, sources: "list[Model]") -> None:
        path = clean(member.name)
        if not path:
            return
        place = (*self.real(path[:-1], make=True), path[-1])
        there = self.table.get(place)
        if member.kind == tarfile.DIRTYPE and there is not None and there.kind == "folder":
            self.table[place] = Thing("folder", b"", member.mode)
            return
        new = self.made(member, sources)
        for below in [one for one in self.table if one[: len(place)] == place]:
            del self.table[below]
        self.table[place] = new

    def at(self, path: Parts) -> Thing | None:
        """What is at a path, links on the way followed."""
        try:
            return self.table.get((*self.real(path[:-1]), path[-1])) if path else Thing("folder")
        except (KeyError, Refused):
            return None

    def has(self, path: Parts) -> bool:
        return self.at(path) is not None

    def made(self, member: Member, sources: "list[Model]") -> Thing:
        if member.kind == tarfile.LNKTYPE:
            target = clean(member.target)
            for model in sources:
                found = model.at(target)
                if found is None:
                    continue
                if found.kind == "folder":
                    raise Refused("a link to a directory")
                return found
            raise Refused("a link to nothing")
        if member.kind == tarfile.SYMTYPE:
            return Thing("link", member.target)
        if member.kind == tarfile.DIRTYPE:
            return Thing("folder", b"", member.mode)
        return Thing("file", member.data, member.mode)

    def groups(self) -> set[frozenset[bytes]]:
        """The names of each inode that has several."""
        names: dict[int, set[bytes]] = {}
        for path, thing in self.table.items():
            names.setdefault(id(thing), set()).add(b"/".join(path))
        return {frozenset(group) for group in names.values() if len(group) > 1}

    def shown(self) -> dict[bytes, object]:
        """As `union_samples.shown`."""
        shapes = {"folder": lambda thing: None, "link": lambda thing: [thing.data], "file": lambda thing: thing.data}
        return {b"/".join(path): shapes[thing.kind](thing) for path, thing in self.table.items()}


def clean(name: bytes) -> Parts:
    parts: list[bytes] = []
    for part in name.split(b"/"):
        if part == b"..":
            parts = parts[:-1]
        elif part not in (b"", b"."):
            parts.append(part)
    return tuple(parts)


def _mark(member: Member) -> bytes:
    """What a whiteout is the whiteout of, ``.wh..opq`` for an opaque mark; empty for all others."""
    name = (clean(member.name) or (b"",))[-1]
    return name[4:] if name.startswith(b".wh.") else b""
