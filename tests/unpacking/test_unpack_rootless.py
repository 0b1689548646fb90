"""Unpacking without root's rights, in a process that has none."""

import json
import os
import shutil
import stat
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from unpacking_stacks import describe, directory, entry, hard, layer_of, link, random_stack, write_layout

from layerstore import Store
from layerstore.errors import InvalidOptionError
from layerstore.unpacking import unpack
from layerstore.unpacking.attributes import rootless_owner

CHILD = Path(__file__).with_name("rootless_child.py")
NOBODY = 65_534
OWNER = "user.rootlesscontainers"
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")
with_umoci = pytest.mark.skipif(shutil.which("umoci") is None, reason="umoci is not installed")

MIXED = [
    layer_of(
        directory("closed", mode=0o000, mtime=6, uid=5),
        entry("closed/inside", data=b"x", mode=0o000, uid=1000, gid=300),
        directory("locked", mode=0o555),
        entry("locked/file", data=b"y", mode=0o444, mtime=9),
        hard("locked/again", "locked/file"),
        entry("suid", data=b"z", mode=0o4755),
        link("link", "closed/inside", uid=4),
        entry("null", tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666),
        entry("disk", tarfile.BLKTYPE, devmajor=8, devminor=1, uid=3),
        entry("pipe", tarfile.FIFOTYPE, mode=0o600),
        entry("able", data=b"a", xattrs={"security.capability": "\1", "user.kept": "k", "trusted.not": "t"}),
    )
]


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder of nobody's, reachable for nobody."""
    with tempfile.TemporaryDirectory(dir="/tmp", ignore_cleanup_errors=True) as name:
        os.chown(name, NOBODY, NOBODY)
        yield Path(name)


def unpack_as_nobody(place: Path, layers: Sequence[bytes]) -> dict[str, Any]:
    (place / "layers").mkdir()
    for number, layer in enumerate(layers):
        (place / "layers" / f"{number:03}").write_bytes(layer)
    command = [sys.executable, str(CHILD), str(place), str(NOBODY)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


@as_root
def test_what_is_written_and_what_is_told(place: Path) -> None:
    report = unpack_as_nobody(place, MIXED)
    ours = place / "ours"
    assert {path.lstat().st_uid for path in ours.iterdir()} == {NOBODY}
    assert stat.S_IMODE((ours / "closed").stat().st_mode) == 0
    assert (ours / "closed").stat().st_mtime == 6
    assert stat.S_IMODE((ours / "closed/inside").stat().st_mode) == 0
    assert stat.S_IMODE((ours / "suid").stat().st_mode) == 0o4755
    assert (ours / "locked/file").samefile(ours / "locked/again")
    assert os.getxattr(ours / "closed/inside", OWNER) == b"\x08\xe8\x07\x10\xac\x02"
    assert os.getxattr(ours / "closed", OWNER) == b"\x08\x05\x10\xff\xff\xff\xff\x0f"
    assert os.listxattr(ours / "suid") == []
    assert os.listxattr(ours / "able") == ["user.kept"]
    assert (ours / "null").is_file() and (ours / "disk").stat().st_size == 0
    assert (ours / "pipe").is_fifo()
    assert report["rootless"]
    assert (report["devices"], report["devices_replaced"]) == (3, 2)
    assert (report["owners_not_set"], report["xattrs_not_set"]) == (1, 2)
    assert {(one["path"], one["what"]) for one in report["shortfalls"]} == {
        ("link", "owner"),
        ("null", "device"),
        ("disk", "device"),
        ("able", "xattr security.capability"),
        ("able", "xattr trusted.not"),
    }


@as_root
@with_umoci
@pytest.mark.parametrize("seed", range(100, 110))
def test_random_stacks_as_umoci_has_them(place: Path, seed: int) -> None:
    layers = random_stack(seed)
    report = unpack_as_nobody(place, layers)
    write_layout(place / "layout", layers)
    subprocess.run(["chown", "-R", f"{NOBODY}", str(place / "layout")], check=True)
    command = ["umoci", "raw", "unpack", "--rootless", "--image", f"{place / 'layout'}:one", str(place / "theirs")]
    environment = {**os.environ, "HOME": str(place)}
    done = subprocess.run(
        command, user=NOBODY, group=NOBODY, extra_groups=[], cwd="/", env=environment, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    ours, theirs = describe(place / "ours"), describe(place / "theirs")
    assert ours.keys() == theirs.keys()
    replaced = {one["path"].encode() for one in report["shortfalls"] if one["what"] == "device"}
    for path, described in ours.items():
        expected = theirs[path]
        if path in replaced:
            continue  # umoci gives its placeholders no attributes at all
        if not stat.S_IMODE(described[0]) & stat.S_IWUSR:  # and closes a file before it sets them
            described, expected = described[:6] + described[7:], expected[:6] + expected[7:]
        assert described == expected, path


def test_the_owner_is_a_protocol_buffer() -> None:
    assert rootless_owner(1, 0) == b"\x08\x01\x10\xff\xff\xff\xff\x0f"
    assert rootless_owner(0, 127) == b"\x08\xff\xff\xff\xff\x0f\x10\x7f"
    assert rootless_owner(2**32 - 2, 128) == b"\x08\xfe\xff\xff\xff\x0f\x10\x80\x01"


def test_no_owner_without_rights(store: Store, tmp_path: Path) -> None:
    with store.view([store.push_layer(layer_of(entry("a"))).layer]) as view, pytest.raises(InvalidOptionError):
        unpack(view, tmp_path / "target", owner=(1, 1), rootless=True)
    assert not (tmp_path / "target").exists()
