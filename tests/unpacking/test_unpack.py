"""What `unpack` promises beside what is unpacked: holes, order, progress, and nothing left of what failed."""

import errno
import os
import stat
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from samples import END, gnu_sparse, noise, pax_sparse
from unpacking_stacks import describe, directory, entry, hard, layer_of, link

from layerstore import Progress, Store, View
from layerstore.errors import ConflictError, NoSpaceError, NotFoundError, StorageError
from layerstore.unpacking import unpack
from layerstore.unpacking.contents import ContentWriter, batches

KIBI = 1 << 10
MEBI = 1 << 20
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

Viewed = Callable[..., View]


@pytest.fixture
def viewed(store: Store) -> Iterator[Viewed]:
    """Pushes layers; the view of them."""
    opened: list[View] = []

    def push(*layers: bytes) -> View:
        opened.append(store.view([store.push_layer(layer).layer for layer in layers]))
        return opened[-1]

    yield push
    for view in opened:
        view.close()


def data_regions(path: Path) -> list[tuple[int, int]]:
    """Where the file system says that a file has data."""
    found = []
    with path.open("rb") as file:
        end = 0
        while True:
            try:
                start = os.lseek(file.fileno(), end, os.SEEK_DATA)
            except OSError as error:
                assert error.errno == errno.ENXIO
                return found
            end = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            found.append((start, end - start))


@pytest.mark.parametrize("make", [gnu_sparse, pax_sparse])
@pytest.mark.parametrize("size", [8 << 30, 423 * 10**9])
def test_sparse_files_have_their_holes(viewed: Viewed, tmp_path: Path, make: Callable[..., bytes], size: int) -> None:
    parts = [(0, noise(4096, 1)), (3 * MEBI, noise(8192, 2)), (6 << 30, noise(700, 3))]
    report = unpack(viewed(make(b"lastlog", size, parts) + END), tmp_path / "target")
    path = tmp_path / "target" / "lastlog"
    assert path.stat().st_size == size == report.size
    assert path.stat().st_blocks * 512 < 64 * KIBI
    assert report.bytes_written == 4096 + 8192 + 700
    with path.open("rb") as file:
        for offset, data in parts:
            file.seek(offset)
            assert file.read(len(data)) == data
    assert [start for start, _ in data_regions(path)] == [0, 3 * MEBI, 6 << 30]


def test_a_file_that_is_one_hole(viewed: Viewed, tmp_path: Path) -> None:
    unpack(viewed(gnu_sparse(b"hole", 5 * MEBI, []) + END), tmp_path / "target")
    status = (tmp_path / "target" / "hole").stat()
    assert (status.st_size, status.st_blocks) == (5 * MEBI, 0)


@pytest.mark.parametrize(
    ("data", "written"),
    [
        (bytes(10 * MEBI), 0),
        (bytes(63 * KIBI), 63 * KIBI),
        (noise(MEBI, 1) + bytes(3 * MEBI + 17) + noise(100, 2), MEBI + 17 + 100),
        (noise(100, 3) + bytes(200 * KIBI), 64 * KIBI),
        (b"\0" + bytes(64 * KIBI) + b"\0" * 5 + b"x", 7),
        (noise(3 * MEBI + 5, 4), 3 * MEBI + 5),
        (b"", 0),
    ],
)
def test_long_runs_of_zeros_become_holes(viewed: Viewed, tmp_path: Path, data: bytes, written: int) -> None:
    report = unpack(viewed(layer_of(entry("f", data=data))), tmp_path / "target")
    assert (tmp_path / "target" / "f").read_bytes() == data
    assert (report.bytes_written, report.size) == (written, len(data))


def test_the_report(viewed: Viewed, tmp_path: Path) -> None:
    view = viewed(
        layer_of(
            directory("d"),
            entry("d/f", data=b"12345"),
            hard("d/g", "d/f"),
            hard("h", "d/f"),
            link("l", "d"),
            hard("m", "l"),
            entry("p", tarfile.FIFOTYPE),
        )
    )
    report = unpack(view, str(tmp_path / "target"))
    counts = (report.directories, report.files, report.symlinks, report.devices, report.links, report.size)
    assert counts == (1, 1, 1, 1, 3, 5)
    assert (report.owners_not_set, report.xattrs_not_set, report.devices_replaced, report.shortfalls) == (0, 0, 0, ())
    assert (tmp_path / "target/h").stat().st_nlink == 3
    assert (tmp_path / "target/m").readlink() == Path("d")


@as_root
def test_a_given_owner(viewed: Viewed, tmp_path: Path) -> None:
    view = viewed(layer_of(directory("./"), directory("d", uid=1), entry("d/f", uid=2), link("l", "d", gid=3)))
    report = unpack(view, tmp_path / "target", owner=(1234, 56))
    owners = {(status.st_uid, status.st_gid) for path in tmp_path.glob("target/**/*") if (status := path.lstat())}
    assert owners | {((tmp_path / "target").stat().st_uid, (tmp_path / "target").stat().st_gid)} == {(1234, 56)}
    assert not report.rootless


@as_root
def test_attributes_that_cannot_be_set_are_told(viewed: Viewed, tmp_path: Path) -> None:
    view = viewed(
        layer_of(link("l", "d", xattrs={"user.no": "x"}), entry("f", xattrs={"nonsense": "x", "user.a": "b"}))
    )
    report = unpack(view, tmp_path / "target")
    assert report.xattrs_not_set == 2
    assert {(one.path, one.what) for one in report.shortfalls} == {(b"f", "xattr nonsense"), (b"l", "xattr user.no")}
    assert os.getxattr(tmp_path / "target/f", "user.a") == b"b"


def test_contents_are_read_in_the_order_of_the_layers(viewed: Viewed) -> None:
    names = [f"{chr(122 - n)}{n}" for n in range(26)]
    view = viewed(
        layer_of(*(entry(name, data=noise(500, n)) for n, name in enumerate(names))),
        layer_of(entry("a-upper", data=b"1"), entry(names[3], data=b"2"), entry("A", data=b"3")),
    )
    ordered = [
        node.path.decode() for batch in batches([node for node in view.nodes() if node.is_file]) for node in batch
    ]
    assert ordered == [name for name in names if name != names[3]] + ["a-upper", names[3], "A"]


def test_many_files_and_all_threads(viewed: Viewed, tmp_path: Path) -> None:
    files = {f"d{n % 17}/f{n}": noise(n * 37 % 9000, n) for n in range(1500)}
    files |= {f"big{n}": noise(3 * MEBI + n, n) for n in range(4)}
    view = viewed(layer_of(*(entry(name, data=data, mtime=n) for n, (name, data) in enumerate(files.items()))))
    before = threading.active_count()
    report = unpack(view, tmp_path / "target")
    assert threading.active_count() == before
    assert report.files == len(files)
    assert {name: (tmp_path / "target" / name).read_bytes() for name in files} == files


def test_progress(viewed: Viewed, tmp_path: Path) -> None:
    told: list[Progress] = []
    unpack(viewed(layer_of(entry("f", data=bytes(5000)))), tmp_path / "target", on_progress=told.append)
    assert told[-1] == Progress("unpack", str(tmp_path / "target"), 5000, 5000)


@pytest.mark.parametrize("is_there", [False, True])
@pytest.mark.parametrize("failure", [KeyboardInterrupt(), ValueError("from the caller")])
def test_what_fails_is_removed(viewed: Viewed, tmp_path: Path, is_there: bool, failure: BaseException) -> None:
    target = tmp_path / "target"
    if is_there:
        target.mkdir(0o711)
    view = viewed(layer_of(directory("d", mode=0), entry("d/f", data=noise(9 * MEBI, 1)), link("l", "d")))

    def fail(_: Progress) -> None:
        raise failure

    with pytest.raises(type(failure)):
        unpack(view, target, on_progress=fail)
    assert target.exists() == is_there
    if is_there:
        assert list(target.iterdir()) == []
        assert stat.S_IMODE(target.stat().st_mode) == 0o711


@pytest.mark.parametrize(
    ("number", "expected"), [(errno.ENOSPC, NoSpaceError), (errno.EIO, StorageError), (errno.EPERM, StorageError)]
)
@pytest.mark.parametrize("step", ["write", "symlink", "link", "mkdir", "utime"])
def test_what_the_system_refuses(
    viewed: Viewed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, expected: type[Exception], step: str
) -> None:
    view = viewed(layer_of(directory("d"), entry("d/f", data=b"12"), link("d/l", "f"), hard("d/h", "d/f")))

    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    where = "layerstore.unpacking.contents.write_all" if step == "write" else f"os.{step}"
    monkeypatch.setattr(where, refuse)
    with pytest.raises(expected, match=r"cannot (write /d|unpack into)"):
        unpack(view, tmp_path / "target")
    assert not (tmp_path / "target").exists()


def test_what_others_put_there_stays(viewed: Viewed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that comes into being meanwhile is neither overwritten nor removed with the rest."""
    view = viewed(layer_of(directory("d"), entry("d/f", data=b"ours"), entry("d/g", data=b"ours")))
    write = ContentWriter.write

    def disturbed(self: ContentWriter, batch: list) -> object:  # type: ignore[type-arg]
        (tmp_path / "target/d/other").write_text("theirs")
        (tmp_path / "target/d/g").symlink_to("/etc/passwd")
        return write(self, batch)

    monkeypatch.setattr(ContentWriter, "write", disturbed)
    with pytest.raises(StorageError, match="File exists"):
        unpack(view, tmp_path / "target")
    assert (tmp_path / "target/d/other").read_text() == "theirs"
    assert not (tmp_path / "target/d/f").exists()


def test_the_target(viewed: Viewed, tmp_path: Path) -> None:
    view = viewed(layer_of(entry("f", data=b"x")))
    (tmp_path / "full" / "x").mkdir(parents=True)
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to("nowhere")
    for name in ("full", "file", "dangling"):
        with pytest.raises(ConflictError, match="new or empty"):
            unpack(view, tmp_path / name)
    with pytest.raises(NotFoundError, match="there is no directory"):
        unpack(view, tmp_path / "no" / "such")
    assert describe(tmp_path / "full").keys() == {b"x"}
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty").chmod(0o2750)
    (tmp_path / "way").symlink_to("empty")
    unpack(view, tmp_path / "way")
    assert (tmp_path / "empty/f").read_bytes() == b"x"
    assert stat.S_IMODE((tmp_path / "empty").stat().st_mode) == 0o2750
    unpack(view, tmp_path / "new")
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o755


def test_nobody_else_gets_in_before_it_is_complete(viewed: Viewed, tmp_path: Path) -> None:
    modes: set[int] = set()
    view = viewed(
        layer_of(directory("./", mode=0o777), directory("d", mode=0o777), entry("d/f", data=b"x", mode=0o777))
    )

    def look(_: Progress) -> None:
        modes.update(stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("target", "target/d"))

    unpack(view, tmp_path / "target", on_progress=look)
    assert modes == {0o700}
    assert stat.S_IMODE((tmp_path / "target/d").stat().st_mode) == 0o777
    assert stat.S_IMODE((tmp_path / "target").stat().st_mode) == 0o777
