"""Files of an earlier unpacking, taken instead of being written again."""

import os
from pathlib import Path

import pytest

from layerstore import Store, unpack
from layerstore.errors import StorageError


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        os.utime(path, (1000, 1000))
    return root


def pushed(store: Store, root: Path) -> list[str]:
    return [store.push_tree(root, mtime_max=1000).layer.diff_id]


@pytest.mark.skipif(os.geteuid() != 0, reason="owners can be compared by root only")
def test_equal_files_are_one_and_others_are_written(store: Store, tmp_path: Path) -> None:
    old = tree(tmp_path / "a", {"d/same": "same", "d/other": "old!", "time": "t", "mode": "m", "xattr": "x"})
    new = tree(tmp_path / "b", {"d/same": "same", "d/other": "new!", "time": "t", "mode": "m", "xattr": "x"})
    os.utime(new / "time", (900, 900))
    (new / "mode").chmod(0o600)
    with store.view(pushed(store, old)) as view:
        unpack(view, tmp_path / "old")
    os.utime(tmp_path / "old/d/other", (999, 999))
    os.setxattr(tmp_path / "old/xattr", "user.x", b"1")
    with store.view(pushed(store, new)) as view:
        report = unpack(view, tmp_path / "new", reuse=tmp_path / "old", hard_links=True)
        unpack(view, tmp_path / "plain")
    assert report.reused == 1 and report.files == 5
    assert (tmp_path / "old/d/same").stat().st_ino == (tmp_path / "new/d/same").stat().st_ino
    for name in ("d/other", "time", "mode", "xattr"):
        assert (tmp_path / "old" / name).stat().st_ino != (tmp_path / "new" / name).stat().st_ino, name
    for name in ("d/same", "d/other", "time", "mode", "xattr"):
        one, other = tmp_path / "new" / name, tmp_path / "plain" / name
        assert one.read_bytes() == other.read_bytes()
        assert (one.stat().st_mode, one.stat().st_mtime_ns) == (other.stat().st_mode, other.stat().st_mtime_ns)
        assert os.listxattr(one) == os.listxattr(other)


def test_without_hard_links_nothing_is_shared_but_blocks(store: Store, tmp_path: Path) -> None:
    layers = pushed(store, tree(tmp_path / "a", {"f": "same" * 5000}))
    with store.view(layers) as view:
        unpack(view, tmp_path / "old")
        report = unpack(view, tmp_path / "new", reuse=tmp_path / "old")
    assert report.reused in (0, 1)  # as the file system can
    (tmp_path / "new/f").write_text("changed")
    assert (tmp_path / "old/f").read_text() == "same" * 5000


def test_links_in_the_earlier_directory_lead_nowhere(store: Store, tmp_path: Path) -> None:
    outside = tree(tmp_path / "outside", {"f": "evil"})
    with store.view(pushed(store, tree(tmp_path / "a", {"d/f": "good", "g": "good"}))) as view:
        (tmp_path / "old").mkdir()
        (tmp_path / "old/d").symlink_to(outside)
        (tmp_path / "old/g").symlink_to(outside / "f")
        report = unpack(view, tmp_path / "new", reuse=tmp_path / "old", hard_links=True)
    assert report.reused == 0 and (tmp_path / "new/d/f").read_text() == "good"
    assert (tmp_path / "new/g").read_text() == "good" and not (tmp_path / "new/g").is_symlink()


def test_an_earlier_directory_that_is_not_there(store: Store, tmp_path: Path) -> None:
    with store.view(pushed(store, tree(tmp_path / "a", {"f": "f"}))) as view, pytest.raises(StorageError):
        unpack(view, tmp_path / "new", reuse=tmp_path / "missing")
    assert not (tmp_path / "new").exists()
