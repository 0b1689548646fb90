"""Patterns of paths: ``*``, ``?`` and ``[…]`` within a name, ``**`` for any number of directories."""

from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase

from layerstore.tar.entries import EntryKind
from layerstore.union.errors import LinkLoopError, NotADirectoryInViewError, PathNotFoundError
from layerstore.union.inode import Inode, Trail
from layerstore.union.resolution import resolve

_DEEP = b"**"


def matches(root: Inode, pattern: bytes) -> dict[bytes, Inode]:
    """What matches, by path, each once. Names with a dot in front match like all others.

    On the way, links to directories are followed, but not by ``**``. A slash at the end matches directories alone.
    """
    names = [part for part in pattern.split(b"/") if part not in (b"", b".")]
    # Two "**" in a row mean what one does, at a far higher price.
    parts = [part for count, part in enumerate(names) if part != _DEEP or names[count - 1 : count] != [_DEEP]]
    found: dict[bytes, Trail] = {b"": []}
    for count, part in enumerate(parts, 1):
        last = count == len(parts)
        steps: dict[bytes, Trail] = {}
        for trail in found.values():
            for step in _step(root, trail, part, last=last):
                steps[trail_path(step)] = step
        if not last or pattern.endswith((b"/", b"/.")):
            steps = dict(_directories(root, steps.values()))
        found = steps
    return {path: trail[-1][1] if trail else root for path, trail in found.items()}


def trail_path(trail: Trail) -> bytes:
    """The path that a trail is."""
    return b"/".join([name for name, _ in trail])


def _step(root: Inode, trail: Trail, part: bytes, *, last: bool) -> Iterator[Trail]:
    """What one part of a pattern leads to from a directory."""
    here = trail[-1][1] if trail else root
    if part == b"..":
        yield trail[:-1]
    elif part == _DEEP:
        if not last:
            yield trail
        yield from _below(trail, here, directories_only=not last)
    else:
        children = here.children or {}
        if not any(sign in part for sign in (b"*", b"?", b"[")):
            names = [part] if part in children else []
        else:
            names = [name for name in children if fnmatchcase(name, part)]
        for name in names:
            yield [*trail, (name, children[name])]


def _below(trail: Trail, here: Inode, *, directories_only: bool) -> Iterator[Trail]:
    stack = [(trail, here)]
    while stack:
        trail, here = stack.pop()
        for name, child in (here.children or {}).items():
            step = [*trail, (name, child)]
            if child.children is not None:
                stack.append((step, child))
            elif directories_only:
                continue
            yield step


def _directories(root: Inode, trails: Iterable[Trail]) -> Iterator[tuple[bytes, Trail]]:
    """Those of the trails that are directories or links to such, at their own place."""
    for trail in trails:
        if trail and trail[-1][1].kind is EntryKind.SYMLINK:
            try:
                trail = resolve(root, trail[-1][0], start=trail[:-1])
            except (PathNotFoundError, NotADirectoryInViewError, LinkLoopError):
                continue
        if not trail or trail[-1][1].children is not None:
            yield trail_path(trail), trail
