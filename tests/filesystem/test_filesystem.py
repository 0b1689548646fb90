"""The file system for fsspec: its URLs, what it tells, what it reads, and how long it holds the store."""

import gc
import json
import os
import pickle
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

import fsspec
import pytest
from filesystem_samples import FILES, LARGE, tar_of
from fsspec.core import url_to_fs

from layerstore import Store
from layerstore.errors import ImageNotFoundError, InvalidOptionError, ReadOnlyError, StoreNotFoundError
from layerstore.filesystem import LayerstoreFileSystem

NAMES = ["data", "late", "null", "n\udcff"]
CSVS = ["data/a.csv", "data/deep/b.csv", "data/now.csv"]


def leases(store: Store) -> set[str]:
    return {path.name for path in (store.path / "leases").iterdir() if path.name.startswith("layer-")}


# --- URLs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "image", "path"),
    [
        ("layerstore://shop:1.0!/data/a.csv", "shop:1.0", "data/a.csv"),
        ("layerstore://shop:1.0!/", "shop:1.0", ""),
        ("layerstore://shop:1.0!", "shop:1.0", ""),
        ("layerstore://r.io:5000/a/b:1@sha256:00!/x!/y", "r.io:5000/a/b:1@sha256:00", "x!/y"),
        ("layerstore:///data/bang!/x", None, "data/bang!/x"),
        ("layerstore://data/a.csv", None, "data/a.csv"),
        ("layerstore://", None, ""),
        ("data/bang!/x", None, "data/bang!/x"),
        ("/data/", None, "data"),
        ("", None, ""),
    ],
)
def test_urls(url: str, image: str | None, path: str) -> None:
    assert LayerstoreFileSystem._strip_protocol(url) == path
    assert LayerstoreFileSystem._get_kwargs_from_urls(url) == ({} if image is None else {"image": image})


def test_files_are_opened_by_url(store: Store, image: str, monkeypatch: pytest.MonkeyPatch) -> None:
    place = str(store.path)
    for name in ("shop:1.0", image, image[7:19], f"docker.io/library/shop:1.0@{image}"):
        with fsspec.open(f"layerstore://{name}!/data/a.csv", "rt", store=place) as file:
            assert file.readline() == "x,y\n"
    for url in ("layerstore:///data/bang!/x", "layerstore://data/large"):
        with fsspec.open(url, store=place, image="shop:1.0") as file:
            assert file.read(4) in (b"bang", LARGE[:4])
    monkeypatch.setenv("LAYERSTORE_PATH", place)
    opened = fsspec.open_files("layerstore://shop:1.0!/data/**/*.csv")
    assert [one.path for one in opened] == CSVS
    assert opened[0].full_name == "layerstore://shop:1.0!/data/a.csv"


def test_urls_come_back_whole(files: LayerstoreFileSystem, store: Store) -> None:
    url = files.unstrip_protocol("data/bang!/x")
    assert url == "layerstore://shop:1.0!/data/bang!/x" == files.unstrip_protocol(url)
    again, path = url_to_fs(url, store=str(store.path))
    assert again.cat(path) == b"bang"
    assert LayerstoreFileSystem(store="s").unstrip_protocol("x") == "layerstore:///x"


def test_an_option_that_contradicts_the_url(store: Store, image: str) -> None:
    with pytest.raises(TypeError, match="image"):
        url_to_fs("layerstore://shop:1.0!/data", store=str(store.path), image="other:1")


def test_chained_urls(store: Store, push: Callable[..., str], tmp_path: Path) -> None:
    archive = BytesIO()
    with zipfile.ZipFile(archive, "w") as made:
        made.writestr("inner.txt", "inside")
    push("zips:1", [("pub/a.zip", archive.getvalue(), {})])
    with fsspec.open("zip://inner.txt::layerstore://zips:1!/pub/a.zip", layerstore={"store": str(store.path)}) as file:
        assert file.read() == b"inside"
    cached = "simplecache::layerstore://zips:1!/pub/a.zip"
    options = {"layerstore": {"store": str(store.path)}, "simplecache": {"cache_storage": str(tmp_path / "cache")}}
    with fsspec.open(cached, **options) as file:
        assert file.read() == archive.getvalue()


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"image": "shop:1.0"}, StoreNotFoundError),
        ({"store": "none", "image": "shop:1.0"}, StoreNotFoundError),
        ({"store": ""}, StoreNotFoundError),
        ({"store": "{}"}, InvalidOptionError),
        ({"store": "{}", "image": "none:1"}, ImageNotFoundError),
    ],
)
def test_what_is_not_there(
    store: Store, image: str, tmp_path: Path, options: dict[str, str], error: type[Exception]
) -> None:
    options = {key: value.replace("{}", str(store.path)) for key, value in options.items()}
    files = LayerstoreFileSystem(**options, skip_instance_cache=True)
    before = leases(store)
    with pytest.raises(error):
        files.ls("")
    assert leases(store) == before


# --- what is there ----------------------------------------------------------------------------------------------------


def test_ls(files: LayerstoreFileSystem) -> None:
    assert files.ls("", detail=False) == files.ls("/", detail=False) == NAMES
    assert [one["name"] for one in files.ls("data")] == [
        "data/a.csv",
        "data/bang!",
        "data/deep",
        "data/gone",
        "data/large",
        "data/now.csv",
        "data/up",
    ]
    types = {one["name"][5:]: one["type"] for one in files.ls("data")}
    assert types == {
        "a.csv": "file",
        "bang!": "directory",
        "deep": "directory",
        "gone": "link",
        "large": "file",
        "now.csv": "file",
        "up": "link",
    }
    assert [one["type"] for one in files.ls("")] == ["directory", "file", "other", "file"]
    assert files.ls("data/a.csv") == [files.info("data/a.csv")]
    assert files.ls("data/up/data/deep", detail=False) == ["data/up/data/deep/b.csv"]
    with pytest.raises(FileNotFoundError):
        files.ls("none")
    with pytest.raises(NotADirectoryError):
        files.ls("data/a.csv/x")


def test_info(files: LayerstoreFileSystem, store: Store) -> None:
    info = files.info("/data/a.csv")
    layer = str(store.images["shop:1.0"].layers[0].diff_id)
    assert info.pop("ino") > 0
    assert info == {
        "name": "data/a.csv",
        "size": 12,
        "type": "file",
        "mode": 0o100640,
        "uid": 3,
        "gid": 4,
        "mtime": pytest.approx(1_700_000_000.25),
        "nlink": 1,
        "islink": False,
        "xattrs": {},
        "layer": layer,
    }
    link = files.info("data/now.csv")
    assert (link["islink"], link["destination"], link["type"], link["size"]) == (True, "a.csv", "file", 12)
    up, gone = files.info("data/up"), files.info("data/gone")
    assert (up["type"], up["destination"]) == ("directory", "..")
    assert (gone["type"], gone["size"], gone["destination"]) == ("link", 0, "/no/such")
    assert (files.info("")["type"], files.info("")["name"]) == ("directory", "")
    assert files.info("null")["type"] == "other"
    with pytest.raises(FileNotFoundError):
        files.info("none")


def test_xattrs(store: Store, push: Callable[..., str]) -> None:
    push("x:1", [("f", b"", {"pax_headers": {"SCHILY.xattr.user.a": "b"}})])
    assert LayerstoreFileSystem(store=store.path, image="x:1").info("f")["xattrs"] == {"user.a": b"b"}


def test_questions(files: LayerstoreFileSystem) -> None:
    for path, exists, lexists, isfile, isdir, islink in [
        ("data", True, True, False, True, False),
        ("data/a.csv", True, True, True, False, False),
        ("data/up", True, True, False, True, True),
        ("data/gone", False, True, False, False, True),
        ("data/gone/x", False, False, False, False, False),
        ("null", True, True, False, False, False),
        ("", True, True, False, True, False),
    ]:
        told = (files.exists(path), files.lexists(path), files.isfile(path), files.isdir(path), files.islink(path))
        assert told == (exists, lexists, isfile, isdir, islink), path


def test_find_walk_glob_du(files: LayerstoreFileSystem) -> None:
    every = ["data/a.csv", "data/bang!/x", "data/deep/b.csv", "data/large", "data/now.csv", "late", "n\udcff"]
    assert files.find("") == sorted(every)
    assert files.find("data/deep", withdirs=True) == ["data/deep", "data/deep/b.csv"]
    assert "data/up" in files.find("data", withdirs=True) and "data/gone" not in files.find("data", withdirs=True)
    assert files.find("data", maxdepth=1) == ["data/a.csv", "data/large", "data/now.csv"]
    assert files.find("data/a.csv") == ["data/a.csv"]
    assert files.find("none") == []
    assert files.find("data/deep", detail=True) == {"data/deep/b.csv": files.info("data/deep/b.csv")}
    assert [path for path, _, _ in files.walk("")] == ["", "data", "data/bang!", "data/deep"]
    assert files.glob("data/**/*.csv") == files.glob("/data/**/*.csv") == CSVS
    assert files.glob("data/[a]*") == ["data/a.csv"]
    assert files.du("data/deep") == 8
    assert files.tree("data/deep").endswith("b.csv")


def test_times(files: LayerstoreFileSystem) -> None:
    assert files.modified("data/a.csv").replace(microsecond=0) == datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)
    assert files.created("data") == datetime(1970, 1, 2, tzinfo=UTC)
    assert files.modified("late").year == 9999


def test_keys_depend_on_contents_alone(
    files: LayerstoreFileSystem, push: Callable[..., str], store: Store, tmp_path: Path
) -> None:
    push("again:1", FILES)
    again = LayerstoreFileSystem(store=str(store.path), image="again:1")
    for path in ("data/a.csv", "data/now.csv", "data", "null"):
        assert files.ukey(path) == again.ukey(path)
        assert files.checksum(path) == again.checksum(path)
    assert files.ukey("data/a.csv") == files.ukey("data/now.csv") != files.ukey("data/large")
    assert files.fsid == again.fsid
    push("other:1", [("data/a.csv", b"other", {})])
    other = LayerstoreFileSystem(store=str(store.path), image="other:1")
    assert other.ukey("data/a.csv") != files.ukey("data/a.csv") and other.fsid != files.fsid


# --- contents ---------------------------------------------------------------------------------------------------------


def test_files_are_read(files: LayerstoreFileSystem) -> None:
    assert files.cat("data/a.csv") == files.cat_file("data/now.csv") == b"x,y\n1,2\n3,4\n"
    assert files.cat(CSVS)["data/deep/b.csv"] == b"x,y\n5,6\n"
    assert files.cat("n\udcff") == b"odd"
    assert files.read_text("data/a.csv").splitlines()[1] == "1,2"
    assert files.head("data/large", 5) == LARGE[:5] and files.tail("data/large", 5) == LARGE[-5:]
    with files.open("data/large") as file:
        assert (file.size, file.path, file.mode) == (len(LARGE), "data/large", "rb")
        file.seek(-1000, os.SEEK_END)
        assert file.read(300) == LARGE[-1000:-700] and file.tell() == len(LARGE) - 700
        file.seek(3)
        assert file.read() == LARGE[3:]
    assert files.read_block("data/a.csv", 1, 3) == b",y\n"


@pytest.mark.parametrize(
    ("start", "end"), [(None, None), (5, 20), (-10, None), (-10, -3), (0, 0), (9, 3), (10**9, None), (None, 10**9)]
)
def test_ranges(files: LayerstoreFileSystem, start: int | None, end: int | None) -> None:
    assert files.cat_file("data/large", start, end) == LARGE[start:end]
    assert files.cat_ranges(["data/large"] * 2, [start, 1], [end, 4]) == [LARGE[start:end], LARGE[1:4]]


def test_what_cannot_be_read(files: LayerstoreFileSystem) -> None:
    with pytest.raises(IsADirectoryError):
        files.open("data")
    with pytest.raises(FileNotFoundError):
        files.cat("data/gone")
    with pytest.raises(OSError, match="Invalid argument"):
        files.cat_file("null")


def test_files_are_copied_out(files: LayerstoreFileSystem, tmp_path: Path) -> None:
    files.get("data", str(tmp_path / "out"), recursive=True)
    assert (tmp_path / "out/deep/b.csv").read_bytes() == b"x,y\n5,6\n"
    assert (tmp_path / "out/now.csv").read_bytes() == b"x,y\n1,2\n3,4\n"
    assert (tmp_path / "out/up").is_dir() and not (tmp_path / "out/up").is_symlink()
    assert not (tmp_path / "out/gone").exists()
    files.get_file("data/large", str(tmp_path / "large"))
    assert (tmp_path / "large").read_bytes() == LARGE


def test_nothing_can_be_written(files: LayerstoreFileSystem, tmp_path: Path) -> None:
    (tmp_path / "local").touch()
    for act in (
        lambda: files.open("data/a.csv", "wb"),
        lambda: files.open("data/new", "w"),
        lambda: files.open("data/a.csv", "ab"),
        lambda: files.open("data/a.csv", "r+b"),
        lambda: files.pipe("data/new", b"x"),
        lambda: files.pipe_file("data/new", b"x"),
        lambda: files.write_text("data/new", "x"),
        lambda: files.put(str(tmp_path / "local"), "data/new"),
        lambda: files.mkdir("new"),
        lambda: files.makedirs("new/er", exist_ok=True),
        lambda: files.rm("data", recursive=True),
        lambda: files.rm_file("data/a.csv"),
        lambda: files.rmdir("data/deep"),
        lambda: files.cp("data/a.csv", "data/b.csv"),
        lambda: files.mv("data/a.csv", "data/b.csv"),
        lambda: files.touch("data/new"),
    ):
        with pytest.raises(OSError, match="Read-only file system") as caught:
            act()
        assert isinstance(caught.value, ReadOnlyError)
    assert files.exists("data/a.csv")
    with pytest.raises(NotImplementedError):
        files.sign("data/a.csv")


# --- how long the store is held ---------------------------------------------------------------------------------------


def test_nothing_is_opened_before_it_is_needed(store: Store) -> None:
    files = LayerstoreFileSystem(store="nowhere", image="none")
    assert files._strip_protocol("layerstore://x!/y") == "y"
    assert pickle.loads(pickle.dumps(files)).storage_options == {"store": "nowhere", "image": "none"}


def test_instances_and_threads_share_one_view(files: LayerstoreFileSystem, store: Store) -> None:
    same = LayerstoreFileSystem(store=str(store.path), image="shop:1.0")
    assert same is files
    other = LayerstoreFileSystem(store=str(store.path), image="shop:1.0", skip_instance_cache=True)
    assert other is not files and other.view is files.view
    seen = []

    def look() -> None:
        own = LayerstoreFileSystem(store=str(store.path), image="shop:1.0")
        seen.append((own is files, own.view is files.view, own.cat("data/large") == LARGE))

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [(False, True, True)] * 4


def test_the_view_is_closed_when_nobody_has_it(store: Store, image: str) -> None:
    before = leases(store)
    files = LayerstoreFileSystem(store=str(store.path), image="shop:1.0")
    file = files.open("data/large")
    assert len(leases(store) - before) == 1
    LayerstoreFileSystem.clear_instance_cache()
    del files
    gc.collect()
    assert file.read() == LARGE, "a file keeps its view"
    file.close()
    del file
    gc.collect()
    LayerstoreFileSystem.clear_instance_cache()
    assert leases(store) == before


def test_a_view_is_closed_by_the_next_that_opens(
    files: LayerstoreFileSystem, store: Store, push: Callable[..., str]
) -> None:
    before = leases(store)
    push("other:1", [("f", b"other", {})])
    LayerstoreFileSystem(store=str(store.path), image="other:1", skip_instance_cache=True).ls("")
    (left,) = leases(store) - before  # nobody has it any more, and it is still to be closed
    files.ls("")
    assert left not in leases(store)
    files.close()
    assert leases(store) == before


@pytest.mark.parametrize(
    "how", ["files.ls('')", "files.ls(''); del files", "file = files.open('data/large'); del files"]
)
def test_the_end_of_a_process_leaves_no_lease(store: Store, image: str, how: str) -> None:
    program = f"""
import sys
from layerstore.filesystem import LayerstoreFileSystem
files = LayerstoreFileSystem(store=sys.argv[1], image="shop:1.0", skip_instance_cache=True)
{how}
"""
    before = leases(store)
    done = subprocess.run([sys.executable, "-c", program, store.path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert leases(store) == before


def test_it_keeps_what_the_reference_named_until_it_is_closed(
    files: LayerstoreFileSystem, store: Store, push: Callable[..., str]
) -> None:
    assert files.exists("data/a.csv")
    store.delete_image("shop:1.0", ttl=0)
    store.collect_garbage()
    assert files.cat("data/large") == LARGE
    push("shop:1.0", [("new", b"new", {})])
    assert not files.exists("new")
    files.invalidate_cache("data")
    assert files.cat("new") == b"new"
    files.close()
    assert files.ls("", detail=False) == ["new"]


def test_a_pickled_one_opens_the_store_itself(files: LayerstoreFileSystem, store: Store) -> None:
    files.ls("")
    program = """
import pickle, sys
files, opened = pickle.load(sys.stdin.buffer)
with opened as file:
    print(files.cat("data/a.csv").decode().split()[0], file.read(4))
"""
    opened = fsspec.open("layerstore://shop:1.0!/data/bang!/x", store=str(store.path))
    done = subprocess.run(
        [sys.executable, "-c", program], input=pickle.dumps((files, opened)), capture_output=True, check=False
    )
    assert (done.stdout.decode(), done.stderr.decode()) == ("x,y b'bang'\n", "")


_FORKING = """
import gc, os, sys
from layerstore.errors import StoreClosedError
from layerstore.filesystem import LayerstoreFileSystem
files = LayerstoreFileSystem(store=sys.argv[1], image="shop:1.0")
before = files.cat("data/large")
leases = sorted(os.listdir(os.path.join(sys.argv[1], "leases")))
child = os.fork()
if not child:
    code = 1
    try:
        files.cat("data/large")
    except StoreClosedError as error:
        code = 0 if "spawn" in str(error) else 2
    finally:
        files.close()
        gc.collect()
        os._exit(code)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert sorted(os.listdir(os.path.join(sys.argv[1], "leases"))) == leases, "the child has taken a lease away"
assert files.cat("data/large") == before
"""


def test_a_forked_child_is_told_why_it_cannot_read(files: LayerstoreFileSystem, store: Store) -> None:
    # In a process of its own: what else this one has loaded (pandas, pyarrow) has threads, and may not be forked.
    done = subprocess.run([sys.executable, "-c", _FORKING, store.path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


_COLLECTING = """
import gc, sys
from layerstore import Store
from layerstore.filesystem import LayerstoreFileSystem
from layerstore.storage import index

files = LayerstoreFileSystem(store=sys.argv[1], image="shop:1.0", skip_instance_cache=True)
files.ls("")
files.itself = files
del files
opens = index._open_environment

def open_and_collect(*arguments, **options):
    gc.collect()
    return opens(*arguments, **options)

index._open_environment = open_and_collect
Store.create(sys.argv[2]).close()
"""


def test_a_collection_of_garbage_at_any_moment_blocks_nothing(store: Store, image: str, tmp_path: Path) -> None:
    """The collector may run while the same thread opens another index, and holds what closing one waits for."""
    command = [sys.executable, "-c", _COLLECTING, store.path, tmp_path / "other"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_image_for_a_platform(store: Store, push: Callable[..., str]) -> None:
    children = {}
    for architecture in ("amd64", "s390x"):
        layer = store.push_layer(tar_of([("arch", architecture.encode(), {})])).layer
        children[architecture] = store.create_image([layer], architecture=architecture)
    manifests = [
        {
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": str(child.digest),
            "size": len(child.manifest_bytes),
            "platform": {"os": "linux", "architecture": architecture},
        }
        for architecture, child in children.items()
    ]
    index = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": manifests,
    }
    store.put_image(json.dumps(index).encode(), tag="multi:1")
    url = "layerstore://multi:1!/arch"
    with fsspec.open(url, store=str(store.path), platform="linux/s390x") as file:
        assert file.read() == b"s390x"
    with pytest.raises(ImageNotFoundError, match="option platform"):
        fsspec.open(url, store=str(store.path), platform="linux/riscv64").open()


def test_layerstore_does_without_fsspec() -> None:
    program = """
import sys
sys.modules["fsspec"] = None
import layerstore, layerstore.cli.application
assert "layerstore.filesystem" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)
