"""The allowed imports, row by row: who may know of whom (ARCHITECTURE.md draws the same)."""

import ast
import graphlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import layerstore

ROOT = Path(layerstore.__file__).parent
NAMES = {"errors", "digest", "os_errors", "progress", "directories"}

# Each part of the package, and the other parts that its modules may import.
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "os_errors": {"errors"},
    "directories": set(),
    "progress": set(),
    "_zstd": set(),
    "wording": set(),
    "digest": {"errors"},
    "decoding": {"errors", "_zstd"},
    "chunking": NAMES,
    "tar": NAMES,
    "oci": NAMES,
    "storage": NAMES | {"_zstd"},
    "encodings": NAMES,
    "operations": NAMES | {"_zstd", "decoding", "chunking", "tar", "oci", "storage", "encodings"},
    "union": NAMES | {"operations", "storage", "tar"},
    "containers": NAMES | {"oci", "operations", "storage", "tar", "union"},
    "mounting": NAMES | {"operations", "storage", "tar", "union"},
    "objects": NAMES
    | {"containers", "decoding", "encodings", "mounting", "operations", "oci", "storage", "tar", "union"},
    "store": NAMES | {"decoding", "mounting", "objects", "operations", "oci", "storage", "tar", "union"},
    "places": NAMES | {"_zstd", "decoding", "encodings", "objects", "oci", "store"},
    "unpacking": NAMES | {"places", "tar", "union"},
    "running": NAMES | {"containers", "mounting", "objects", "oci", "store", "tar", "union", "unpacking"},
    "filesystem": NAMES | {"objects", "places", "store", "tar", "union"},
    "registry": NAMES | {"objects", "oci", "places", "store", "wording", "__init__"},
    "cli": NAMES
    | {
        "__init__",
        "encodings",
        "mounting",
        "objects",
        "places",
        "registry",
        "running",
        "store",
        "unpacking",
        "wording",
    },
    "__init__": NAMES
    | {
        "decoding",
        "mounting",
        "objects",
        "oci",
        "operations",
        "places",
        "registry",
        "store",
        "tar",
        "union",
        "unpacking",
    },
    "__main__": {"cli"},
}

# Each package from elsewhere, and the modules that may import it.
OUTSIDE: dict[str, set[str]] = {
    "lmdb": {"storage.index"},
    "blake3": {"digest", "storage.frames"},
    "pydantic": {
        "registry.server.configuration",
        "digest",
        "storage.containers",
        "storage.layout",
        "oci.config",
        "oci.documents",
    },
    "pydantic_core": {"digest", "oci.config", "oci.documents"},
    "isal": {"decoding"},
    "pyfastcdc": {"chunking.fastcdc"},
    "backports": {"_zstd"},
    "compression": {"_zstd"},
    "click": {"cli"},
    "rich": {"cli"},
    "fsspec": {"filesystem"},
    "urllib3": {"registry.client.transport", "registry.client.transport_errors"},
    "starlette": {"registry.server"},
    "anyio": {"registry.server"},
    "uvicorn": {
        "registry.server.connections",
        "registry.server.serving",
        "registry.server.uvicorn_config",
        "registry.server.worker",
    },
    "prometheus_client": {
        "registry.server.measures",
        "registry.server.proxy_measures",
        "registry.server.metrics",
        "registry.server.serving",
    },
    "bcrypt": {"registry.server.accounts"},
    "jwt": {"registry.server.signing"},
    "yaml": {"registry.server.configuration"},
    "jinja2": {"registry.server.pages"},
}


def modules() -> dict[str, ast.Module]:
    """Every module by its name without ``layerstore.``."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)
        found[name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


MODULES = modules()


def imported(tree: ast.AST) -> Iterator[str]:
    """The full names of all modules that a module imports, and of those that may be modules."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            assert node.module is not None
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own(name: str) -> str | None:
    """The module of ours, without ``layerstore.``, that ``name`` is or lies in."""
    if name == "layerstore":
        return "__init__"
    inside = name.removeprefix("layerstore.")
    if inside == name:
        return None
    while inside and inside not in MODULES:
        inside = inside.rpartition(".")[0]
    return inside or None


def part(module: str) -> str:
    return module.partition(".")[0]


def own_imports(module: str) -> set[str]:
    names = list(imported(MODULES[module]))
    found = {found for name in names if (found := own(name)) is not None} - {module}
    # `from layerstore.x import name` names the package x as well as what it takes from there.
    return {one for one in found if one != "__init__" or "layerstore" in names}


def test_every_part_has_its_row() -> None:
    assert {part(module) for module in MODULES} == set(ALLOWED)


@pytest.mark.parametrize("name", sorted(ALLOWED))
def test_a_part_imports_only_what_its_row_allows(name: str) -> None:
    allowed = ALLOWED[name] | {name}
    for module in MODULES:
        if part(module) == name:
            foreign = {one for one in own_imports(module) if part(one) not in allowed}
            assert not foreign, f"{module} imports {sorted(foreign)}"


@pytest.mark.parametrize("package", sorted(OUTSIDE))
def test_a_package_is_imported_only_where_it_belongs(package: str) -> None:
    for module, tree in MODULES.items():
        if any(name.partition(".")[0] == package for name in imported(tree)):
            places = OUTSIDE[package]
            assert any(module == one or module.startswith(f"{one}.") for one in places), f"{module} imports {package}"


def test_nothing_else_is_imported() -> None:
    known = set(OUTSIDE) | {"layerstore"} | set(sys.stdlib_module_names)
    for module, tree in MODULES.items():
        assert {name.partition(".")[0] for name in imported(tree)} <= known, module


@pytest.mark.parametrize("first", ["chunking", "tar", "oci", "storage"])
def test_the_four_know_nothing_of_each_other(first: str) -> None:
    others = {"chunking", "tar", "oci", "storage", "operations", "decoding"} - {first}
    assert not ALLOWED[first] & others


def test_no_module_imports_itself_by_a_detour() -> None:
    packages = {name for name in MODULES if any(other.startswith(f"{name}.") for other in MODULES)}
    graph = {name: own_imports(name) - (packages if "." in name else set()) for name in MODULES}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError


def test_imports_stand_at_the_top() -> None:
    for module, tree in MODULES.items():
        for function in ast.walk(tree):
            if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
                inner = [node for node in ast.walk(function) if isinstance(node, (ast.Import, ast.ImportFrom))]
                assert not inner, f"{module} imports inside a function, line {inner[0].lineno}"


def test_no_lmdb_object_is_named_outside_its_module() -> None:
    for module in MODULES:
        if module != "storage.index" and part(module) in ("operations", "storage", "objects", "store"):
            names = {node.id for node in ast.walk(MODULES[module]) if isinstance(node, ast.Name)}
            assert "lmdb" not in names, module
