"""The public API is pinned: a change of it is meant, and shows in `golden/public_api.txt`.

After a change that is meant: ``python tests/test_public_api.py > tests/golden/public_api.txt``.
"""

import ast
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import layerstore
from layerstore import errors
from layerstore.errors import LayerstoreError

GOLDEN = Path(__file__).parent / "golden" / "public_api.txt"

CODES = {
    "LayerstoreError": "error",
    "InvalidInputError": "invalid-input",
    "InvalidDigestError": "invalid-digest",
    "InvalidReferenceError": "invalid-reference",
    "InvalidManifestError": "invalid-manifest",
    "InvalidOptionError": "invalid-option",
    "UndecodableError": "undecodable",
    "OversizedError": "oversized",
    "MountTargetError": "mount-target",
    "DigestMismatchError": "digest-mismatch",
    "NotFoundError": "not-found",
    "StoreNotFoundError": "store-not-found",
    "LayerNotFoundError": "layer-not-found",
    "ImageNotFoundError": "image-not-found",
    "TagNotFoundError": "tag-not-found",
    "BlobNotFoundError": "blob-not-found",
    "ContainerNotFoundError": "container-not-found",
    "NotMountedError": "not-mounted",
    "ConflictError": "conflict",
    "StoreExistsError": "store-exists",
    "LayerInUseError": "layer-in-use",
    "LeaseEndedError": "lease-ended",
    "ContainerExistsError": "container-exists",
    "ContainerInUseError": "container-in-use",
    "AlreadyMountedError": "already-mounted",
    "MountBusyError": "mount-busy",
    "StoreClosedError": "store-closed",
    "UnavailableError": "unavailable",
    "NoSpaceError": "no-space",
    "IndexFullError": "index-full",
    "ReadOnlyError": "read-only",
    "UnsupportedPlaceError": "unsupported-place",
    "UnsupportedFormatError": "unsupported-format",
    "UpgradeNeededError": "upgrade-needed",
    "MountUnavailableError": "mount-unavailable",
    "RuntimeUnavailableError": "runtime-unavailable",
    "EncoderUnavailableError": "encoder-unavailable",
    "RegistryError": "registry",
    "AuthenticationError": "authentication",
    "DeniedError": "denied",
    "StorageError": "storage",
    "DamagedError": "damaged",
    "ContentDamagedError": "content-damaged",
    "IndexDamagedError": "index-damaged",
}


def public_api() -> Iterator[str]:
    """One line for each public name: parameters with their defaults, and what is a property."""
    for name in sorted(layerstore.__all__):
        thing = getattr(layerstore, name)
        if not inspect.isclass(thing):
            yield f"{name}: {type(thing).__name__}"
            continue
        yield f"class {name}({', '.join(base.__name__ for base in thing.__bases__)})"
        fields = set(getattr(thing, "model_fields", ())) | set(getattr(thing, "__annotations__", ()))
        for member, value in sorted(vars(thing).items()):
            if not member.startswith(("_", "model_")):
                yield f"    {_member(member, value)}"
        yield from (f"    {field}: field" for field in sorted(fields - set(vars(thing))) if not field.startswith("_"))


def _member(name: str, value: object) -> str:
    if isinstance(value, (classmethod, staticmethod)):
        return f"{type(value).__name__} {name}{_parameters(value.__func__)}"
    if inspect.isfunction(value):
        return f"{name}{_parameters(value)}"
    if isinstance(value, property):
        return f"{name}: property"
    return f"{name}: field"


def _parameters(function: object) -> str:
    signature = inspect.signature(function)  # type: ignore[arg-type]
    bare = [one.replace(annotation=inspect.Parameter.empty) for one in signature.parameters.values()]
    return str(signature.replace(parameters=bare, return_annotation=inspect.Signature.empty))


def test_the_public_api_is_what_it_was() -> None:
    assert "\n".join(public_api()) + "\n" == GOLDEN.read_text()


def test_what_a_push_tells() -> None:
    told = re.findall(r"self\.(\w+)(?:: [^=]+)? =", inspect.getsource(layerstore.PushResult.__init__))
    assert told == [
        "layer",
        "size",
        "already_present",
        "encoding",
        "undecodable",
        "bytes_new",
        "bytes_stored",
        "chunks_new",
        "chunks_reused",
        "skipped_count",
        "skipped",
    ]


def modules() -> list[str]:
    found = [one.name for one in pkgutil.walk_packages(layerstore.__path__, "layerstore.")]
    return ["layerstore", *(name for name in found if not name.endswith("__main__"))]


@pytest.mark.parametrize("name", modules())
def test_every_public_name_has_a_docstring(name: str) -> None:
    module = importlib.import_module(name)
    if not str(module.__file__).endswith(".py"):
        return  # compiled: its .pyi says what it has
    tree = ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), name
    bare = [node for node in _public(tree) if not ast.get_docstring(node)]
    assert not bare, [f"{node.name}, line {node.lineno}" for node in bare]


def _public(node: ast.AST) -> Iterator[ast.FunctionDef | ast.ClassDef]:
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, (ast.FunctionDef, ast.ClassDef)) or child.name.startswith("_"):
            continue
        if isinstance(child, ast.ClassDef):
            yield child
            if not _is_protocol(child):
                yield from _public(child)
        elif not any(isinstance(one, ast.Attribute) and one.attr == "setter" for one in child.decorator_list):
            yield child


def _is_protocol(node: ast.ClassDef) -> bool:
    return any(isinstance(base, ast.Name) and base.id == "Protocol" for base in node.bases)


def error_classes() -> dict[str, type[LayerstoreError]]:
    return {
        name: thing
        for name, thing in vars(errors).items()
        if inspect.isclass(thing) and issubclass(thing, LayerstoreError)
    }


def test_codes_are_pinned_and_unique() -> None:
    assert {name: one.code for name, one in error_classes().items()} == CODES
    assert len(set(CODES.values())) == len(CODES)


def test_the_tree_in_the_docstring_is_the_real_one() -> None:
    parents: list[str] = []
    drawn = {}
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"    ((?:[│├└─ ]{4})*)(\w+Error)\b", line)
        if match:
            depth = len(match[1]) // 4
            parents[depth:] = [match[2]]
            drawn[match[2]] = parents[depth - 1] if depth else "Exception"
    assert drawn == {name: one.__bases__[0].__name__ for name, one in error_classes().items()}


def test_errors_elsewhere_keep_the_code_of_their_kind() -> None:
    for name in modules():
        for thing in vars(importlib.import_module(name)).values():
            if inspect.isclass(thing) and issubclass(thing, LayerstoreError):
                assert thing.code in CODES.values(), thing


if __name__ == "__main__":
    print("\n".join(public_api()))
