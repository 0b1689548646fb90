"""Paths as objects: what `ImagePath` promises beside what the file system behind it does."""

import copy
import importlib.resources
import io
import json
import os
import pickle
from collections.abc import Iterator
from importlib.resources.abc import Traversable
from pathlib import PurePosixPath

import pytest
from union_samples import Member, file, folder, layer, symlink, view_of

from layerstore import Store, View
from layerstore.errors import InvalidInputError, InvalidOptionError, NotFoundError, ReadOnlyError
from layerstore.union.errors import LinkLoopError, PathNotFoundError
from layerstore.union.path import ImagePath

LAYER = layer(
    folder(b"etc"),
    file(b"etc/os", b"NAME=\xc3\xa4\r\nID=1\n", uid=7),
    symlink(b"etc/release", b"../usr/lib/os"),
    symlink(b"etc/broken", b"nowhere"),
    symlink(b"loop", b"loop"),
    symlink(b"way", b"usr/lib"),
    file(b"usr/lib/os", b"deep"),
    file(b"usr/lib/a.tar.gz", b"\x00\xff"),
    file(b"usr/lib/sub/b.py", b"pass"),
    file(b"usr/[x]/c.py", b""),
    file(b"n\xff", b"odd"),
    Member(b"null", b"3", device=(1, 3)),
)


@pytest.fixture
def view(store: Store) -> Iterator[View]:
    with view_of(store, LAYER) as opened:
        yield opened


@pytest.fixture
def root(view: View) -> ImagePath:
    return ImagePath(view)


def test_the_parts_of_a_path(view: View) -> None:
    path = ImagePath(view, "usr//lib/./a.tar.gz/")
    assert str(path) == "/usr/lib/a.tar.gz"
    assert (path.name, path.stem, path.suffix, path.suffixes) == ("a.tar.gz", "a.tar", ".gz", [".tar", ".gz"])
    assert path.parts == ("/", "usr", "lib", "a.tar.gz")
    assert str(path.parent) == "/usr/lib"
    assert [str(one) for one in path.parents] == ["/usr/lib", "/usr", "/"]
    assert str(path.with_name("x")) == "/usr/lib/x" and str(path.with_suffix(".xz")) == "/usr/lib/a.tar.xz"
    assert path.relative_to("usr") == PurePosixPath("lib/a.tar.gz")
    assert path.relative_to(path.parent) == PurePosixPath("a.tar.gz")
    assert path.is_relative_to("/usr") and not path.is_relative_to("us")
    with pytest.raises(ValueError, match="etc"):
        path.relative_to("etc")
    root = ImagePath(view)
    assert (str(root), root.name, root.parent, root.parents) == ("/", "", root, ())
    assert path.pure == PurePosixPath("/usr/lib/a.tar.gz")


def test_paths_are_joined(root: ImagePath) -> None:
    assert str(root / "usr" / "lib") == str(root.joinpath("usr", "lib")) == "/usr/lib"
    assert str(root / "usr" / "/etc") == "/etc"
    assert str(root / PurePosixPath("usr/lib") / b"n\xff") == "/usr/lib/n\udcff"
    assert root / (root / "usr") == root / "usr"
    assert str(ImagePath(root._files, "//usr")) == "/usr"


def test_paths_are_compared(store: Store, view: View, root: ImagePath) -> None:
    path = root / "etc"
    assert path == ImagePath(view, b"/etc") and hash(path) == hash(ImagePath(view, "etc"))
    assert path != root and path != "/etc" and path != PurePosixPath("/etc")
    assert sorted([root / "b", root / "a!", root / "a/b", root / "a"]) == [
        root / "a",
        root / "a/b",
        root / "a!",
        root / "b",
    ]
    assert root < path and path >= root
    with view_of(store, LAYER) as other:
        assert ImagePath(other, "etc") != path
        with pytest.raises(TypeError):
            _ = ImagePath(other, "etc") < path
    assert repr(path) == "<ImagePath '/etc' of <View of 1 layers>>"
    assert {path: 1}[ImagePath(view, "etc")] == 1


def test_it_is_no_path_of_this_machine_and_never_changes(root: ImagePath) -> None:
    assert not hasattr(root, "__fspath__") and not hasattr(root, "__dict__")
    with pytest.raises(TypeError):
        open(root)  # type: ignore[call-overload] # noqa: PTH123, SIM115  # it must not open
    with pytest.raises(TypeError):
        os.fspath(root)  # type: ignore[call-overload]
    with pytest.raises(AttributeError):
        root.name = "other"  # type: ignore[misc]
    assert copy.copy(root) == root
    with pytest.raises(TypeError):
        pickle.dumps(root)


def test_what_is_there(root: ImagePath) -> None:
    os_, release, broken = root / "etc/os", root / "etc/release", root / "etc/broken"
    assert os_.exists() and os_.is_file() and not os_.is_dir() and not os_.is_symlink()
    assert release.exists() and release.is_file() and release.is_symlink()
    assert broken.is_symlink() and not broken.exists() and not broken.is_file()
    loop = root / "loop"
    assert loop.is_symlink() and not loop.exists()
    assert not (root / "no/such").exists() and not (root / "no/such").is_symlink()
    assert not (root / "etc/os/x").is_symlink() and not (loop / "x").is_symlink()
    assert (root / "way").is_dir()
    assert release.stat().size == 4 and release.lstat().is_symlink
    assert (os_.uid(), os_.gid(), release.uid()) == (7, 0, 0)
    assert release.readlink() == PurePosixPath("../usr/lib/os")
    with pytest.raises(FileNotFoundError):
        broken.stat()
    with pytest.raises(OSError, match="Invalid argument"):
        os_.readlink()


def test_paths_are_resolved(root: ImagePath) -> None:
    assert str((root / "etc/release").resolve()) == "/usr/lib/os"
    assert str((root / "way/../x/../y").resolve()) == "/usr/y"
    assert str((root / "../..").resolve(strict=True)) == "/"
    assert str((root / "way/new/file").resolve()) == "/usr/lib/new/file"
    assert str((root / "etc/os/below").resolve()) == "/etc/os/below"
    assert str((root / "etc/broken").resolve()) == "/etc/broken"
    with pytest.raises(PathNotFoundError):
        (root / "way/new").resolve(strict=True)
    with pytest.raises(LinkLoopError):
        (root / "loop/x").resolve()
    deep = root / "/".join(["x"] * 3000)
    assert deep.resolve() == deep


def test_directories(root: ImagePath) -> None:
    assert [path.name for path in root.iterdir()] == ["etc", "loop", "null", "n\udcff", "usr", "way"]
    assert next((root / "way").iterdir()) == root / "way/a.tar.gz"
    with pytest.raises(NotADirectoryError):
        (root / "etc/os").iterdir()


@pytest.mark.parametrize(
    ("start", "pattern", "found"),
    [
        ("", "*.py", []),
        ("", "**/*.py", ["/usr/[x]/c.py", "/usr/lib/sub/b.py"]),
        ("usr/[x]", "*", ["/usr/[x]/c.py"]),
        ("usr", "lib/*", ["/usr/lib/a.tar.gz", "/usr/lib/os", "/usr/lib/sub"]),
        ("way", "*.gz", ["/way/a.tar.gz"]),
        ("", "way/o*", ["/usr/lib/os"]),
        ("etc", "../way/o*", ["/usr/lib/os"]),
        ("etc/os", "*", []),
        ("none", "*", []),
        ("", "n*", ["/null", "/n\udcff"]),
    ],
)
def test_glob(root: ImagePath, start: str, pattern: str, found: list[str]) -> None:
    assert [str(path) for path in (root / start).glob(pattern)] == found


def test_glob_in_all_directories(root: ImagePath) -> None:
    assert [path.name for path in (root / "usr").rglob("*.py")] == ["c.py", "b.py"]
    for pattern in ("", "/etc"):
        with pytest.raises(InvalidInputError):
            root.glob(pattern)
    with pytest.raises(InvalidInputError):
        root.rglob("/etc")


def test_files_are_read(root: ImagePath) -> None:
    os_ = root / "etc/os"
    assert os_.read_bytes() == b"NAME=\xc3\xa4\r\nID=1\n"
    assert os_.read_text() == "NAME=ä\nID=1\n"
    assert os_.read_text(newline="") == "NAME=ä\r\nID=1\n"
    assert os_.read_text("ascii", "replace") == "NAME=\ufffd\ufffd\nID=1\n"
    with os_.open() as text, os_.open("rb") as binary:
        assert text.readline() == "NAME=ä\n"
        assert text.encoding == "utf-8"
        binary.seek(-5, io.SEEK_END)
        assert binary.read() == b"ID=1\n"
    with pytest.raises(UnicodeDecodeError):
        (root / "way/a.tar.gz").read_text()
    assert (root / b"n\xff").read_text() == "odd"
    with pytest.raises(IsADirectoryError):
        (root / "etc").read_bytes()
    with pytest.raises(NotFoundError):
        (root / "etc/none").open()


@pytest.mark.parametrize("mode", ["w", "wb", "a", "xb", "r+", "r+b", "w+"])
def test_layers_never_change(root: ImagePath, mode: str) -> None:
    with pytest.raises(ReadOnlyError, match="Read-only file system: b'/etc/os'"):
        (root / "etc/os").open(mode)


@pytest.mark.parametrize("mode", ["", "z", "rw", "rbt", "rr", "b", "wr"])
def test_modes_that_are_none(root: ImagePath, mode: str) -> None:
    with pytest.raises(InvalidOptionError):
        (root / "etc/os").open(mode)


def test_a_binary_file_has_no_encoding(root: ImagePath) -> None:
    with pytest.raises(InvalidOptionError):
        (root / "etc/os").open("rb", encoding="utf-8")


class Writable(View):
    """A file system that takes modes, as the layer of a container does."""

    def open(self, path: str | bytes, mode: str = "rb") -> io.BytesIO:  # type: ignore[override]
        self.asked = (path, mode)
        return io.BytesIO()


def test_modes_are_handed_on_to_what_takes_them(view: View) -> None:
    view.__class__ = Writable
    path = ImagePath(view, "etc/os")
    with path.open("w", encoding="utf-8") as text:
        text.write("new")
    assert view.asked == (b"/etc/os", "wb")  # type: ignore[attr-defined]
    path.open("r+").close()
    assert view.asked == (b"/etc/os", "r+b")  # type: ignore[attr-defined]


def test_it_is_a_traversable(root: ImagePath, tmp_path: object) -> None:
    traversable: Traversable = root
    assert isinstance(traversable, Traversable)
    with importlib.resources.as_file(root / "etc/os") as path:
        assert path.read_bytes() == (root / "etc/os").read_bytes()
    assert json.dumps([one.name for one in traversable.joinpath("usr").iterdir()]) == '["[x]", "lib"]'
