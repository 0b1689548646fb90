"""What is unpacked is what umoci unpacks: the same names, kinds, modes, owners, times, attributes, links, contents."""

import os
import shutil
import subprocess
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from samples import noise
from unpacking_stacks import describe, directory, entry, hard, layer_of, link, random_stack, write_layout

from layerstore import Store
from layerstore.unpacking import unpack

UMOCI = shutil.which("umoci")
pytestmark = [
    pytest.mark.skipif(UMOCI is None, reason="umoci is not installed"),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]

CAPABILITY = "\x01\x00\x00\x02\x00\x04\x00\x00" + "\x00" * 12


def base_layer() -> bytes:
    """Something of every kind."""
    return layer_of(
        directory("./", mode=0o750, mtime=77),
        directory("bin", mtime=1_000_000_000),
        entry("bin/tool", data=noise(90_000, 1), mode=0o4755, uid=3, gid=4, mtime_text="1234567890.987654321"),
        entry("bin/ping", data=noise(9_000, 2), mode=0o755, uid=1, xattrs={"security.capability": CAPABILITY}),
        hard("bin/tool2", "bin/tool"),
        link("sh", "bin/tool", uid=7, gid=8, mtime=999),
        link("dangling", "/no/where/../at all"),
        directory("tmp", mode=0o1777, mtime=5),
        directory("closed", mode=0o000, mtime=6),
        entry("closed/inside", data=b"x", mode=0o000),
        directory("shared", mode=0o2775, gid=50),
        entry("shared/file", data=b"y", gid=9),
        entry("null", tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666, uid=2),
        entry("disk", tarfile.BLKTYPE, devmajor=259, devminor=300, mode=0o660, gid=6),
        entry("pipe", tarfile.FIFOTYPE, mode=0o622, mtime=8),
        entry("n\udcff\n\x1b[31m", data=b"odd name", xattrs={"user.a": "b", "trusted.c": "d"}),
        entry("old", data=b"", mtime_text="-5.25"),
        entry("zeros", data=noise(5000, 3) + bytes(400_000) + noise(100, 4) + bytes(200_000)),
    )


STACKS: dict[str, list[bytes]] = {
    "one layer": [base_layer()],
    "changed": [
        base_layer(),
        layer_of(
            entry("bin/tool", data=b"new", mode=0o700),
            entry("bin/.wh.ping"),
            entry("tmp/file", data=b"z", uid=12),
            entry(".wh.sh"),
        ),
    ],
    "a link to a file below": [base_layer(), layer_of(hard("three", "bin/tool"))],
    "first name removed": [base_layer(), layer_of(entry("bin/.wh.tool"))],
    "opaque": [
        base_layer(),
        layer_of(directory("bin", uid=5), entry("bin/.wh..wh..opq"), entry("bin/only", data=b"1")),
    ],
    "kinds change": [
        base_layer(),
        layer_of(entry("bin", data=b"a file"), directory("sh"), entry("sh/x", data=b"x"), link("tmp", "bin")),
    ],
    "attributes alone": [base_layer(), layer_of(directory("closed", mode=0o711, uid=9, mtime=10))],
    "twenty layers": [layer_of(entry(f"f{n % 7}", data=noise(100 * n, n), mtime=n)) for n in range(20)],
}


def both(store: Store, tmp_path: Path, layers: Sequence[bytes]) -> tuple[Path, Path]:
    """The same stack, unpacked by us and by umoci."""
    write_layout(tmp_path / "layout", layers)
    command = ["umoci", "raw", "unpack", "--image", f"{tmp_path / 'layout'}:one", str(tmp_path / "theirs")]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    with store.view([store.push_layer(layer).layer for layer in layers]) as view:
        unpack(view, tmp_path / "ours")
    return tmp_path / "ours", tmp_path / "theirs"


def assert_same(ours: Path, theirs: Path, *, without_time: Sequence[bytes] = ()) -> None:
    mine, other = describe(ours), describe(theirs)
    assert mine.keys() == other.keys()
    for path, described in mine.items():
        expected = other[path]
        if path in without_time:
            described, expected = described[:3] + described[4:], expected[:3] + expected[4:]
        assert described == expected, path


@pytest.mark.parametrize("name", STACKS)
def test_stacks_of_all_kinds(store: Store, tmp_path: Path, name: str) -> None:
    ours, theirs = both(store, tmp_path, STACKS[name])
    assert_same(ours, theirs)


@pytest.mark.parametrize("seed", range(40))
def test_random_stacks(store: Store, tmp_path: Path, seed: int) -> None:
    ours, theirs = both(store, tmp_path, random_stack(seed))
    assert_same(ours, theirs)


def test_the_root_has_its_attributes(store: Store, tmp_path: Path) -> None:
    ours, theirs = both(store, tmp_path, [base_layer()])
    one, other = ours.stat(), theirs.stat()
    assert (one.st_mode, one.st_uid, one.st_mtime_ns) == (other.st_mode, other.st_uid, other.st_mtime_ns)
