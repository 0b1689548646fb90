"""The base layer of the default corpus: the interpreter that runs the benchmark, and a patch of it."""

import hashlib
import re
import sys
import sysconfig
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.layer_tar import Node, Tree, link

LEFT_OUT = frozenset({"__pycache__", "site-packages", "dist-packages", "test", "tests", "idle_test"})
"""Folders that image builders remove, or that differ with what is installed."""
PATCHED_EVERY = 25
"""The patch changes one module in this many."""
VERSION = "{}.{}".format(*sys.version_info)


def base_tree() -> dict[str, Node]:
    """Return the standard library, the interpreter and its shared library as they lie in a container image."""
    library = Path(sysconfig.get_paths()["stdlib"])
    tree: dict[str, Node] = {}
    for path in sorted(library.rglob("*")):
        relative = path.relative_to(library)
        hidden = LEFT_OUT.intersection(relative.parts) or relative.parts[0].startswith("config-")
        if path.is_file() and not hidden and path.suffix not in (".pyc", ".a"):
            mode = 0o755 if path.suffix == ".so" else 0o644
            tree[f"usr/local/lib/python{VERSION}/{relative.as_posix()}"] = Node(mode, path.read_bytes)
    tree[f"usr/local/bin/python{VERSION}"] = Node(0o755, Path(sys.executable).resolve().read_bytes)
    tree["usr/local/bin/python3"] = link(f"python{VERSION}")
    shared = _shared_library()
    if shared is not None:
        tree[f"usr/local/lib/{shared.name}"] = Node(0o755, shared.read_bytes)
    return tree


def patched_tree(tree: Tree) -> dict[str, Node]:
    """Return the tree after a security update: some modules gained a line, the binaries name another version."""
    patched = dict(tree)
    modules = [name for name in sorted(tree) if name.endswith(".py")]
    for name in modules[::PATCHED_EVERY]:
        patched[name] = Node(tree[name].mode, partial(_changed, tree[name].read, _with_line))
    for name, node in tree.items():
        if not node.target and ("/bin/" in name or "libpython" in name):
            patched[name] = Node(node.mode, partial(_changed, node.read, _with_version))
    return patched


def fingerprint(tree: Tree) -> str:
    """Return what identifies the interpreter's files without reading all of them: names, and what Python it is."""
    names = "\n".join([sys.version, str(sysconfig.get_paths()["stdlib"]), *sorted(tree)])
    return hashlib.sha256(names.encode()).hexdigest()


def _shared_library() -> Path | None:
    """Return the file of libpython, where the interpreter has one."""
    folder, name = sysconfig.get_config_vars("LIBDIR", "INSTSONAME")
    path = Path(str(folder)) / str(name)
    return path if path.suffix != ".a" and path.is_file() else None


def _changed(read: Callable[[], bytes], change: Callable[[bytes], bytes]) -> bytes:
    return change(read())


def _with_line(source: bytes) -> bytes:
    """Insert a line in the middle, as a small fix does; all that follows moves."""
    lines = source.splitlines(keepends=True)
    lines.insert(len(lines) // 2, b"# Changed by an update.\n")
    return b"".join(lines)


def _with_version(binary: bytes) -> bytes:
    """Count the last digit of the version up wherever the binary names it; no byte moves."""
    version = "{}.{}.{}".format(*sys.version_info)
    following = version[:-1] + str((int(version[-1]) + 1) % 10)
    return re.sub(re.escape(version.encode()), following.encode(), binary)
