"""What is unpacked for another owner gives that owner no rights of the image's."""

import os
import stat
import tarfile
from pathlib import Path

import pytest
from unpacking_stacks import directory, entry, layer_of

from layerstore import Store, unpack

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: owners and devices are set")
CAPABILITY = b"\x01\x00\x00\x02\x00\x04\x00\x00" + bytes(12)


def test_a_new_owner_gets_no_rights(store: Store, tmp_path: Path) -> None:
    """Set-uid and set-gid bits, capabilities and devices are the old owner's; hard links to an earlier one, too."""
    layer = layer_of(
        directory("d", mode=0o2775),
        entry("d/su", data=b"#!", mode=0o6755, xattrs={"security.capability": CAPABILITY.decode(), "user.a": "1"}),
        entry("d/disk", tarfile.BLKTYPE, devmajor=8, devminor=1, mode=0o660),
        entry("d/pipe", tarfile.FIFOTYPE, mode=0o622),
    )
    with store.view([store.push_layer(layer).layer]) as view:
        unpack(view, tmp_path / "kept")
        report = unpack(view, tmp_path / "given", owner=(1000, 1000))
        os.chown(tmp_path / "kept/d/su", 1000, 1000)
        (tmp_path / "kept/d/su").chmod(0o6755)
        unpack(view, tmp_path / "linked", owner=(1000, 1000), reuse=tmp_path / "kept", hard_links=True)
    assert stat.S_ISBLK((tmp_path / "kept/d/disk").lstat().st_mode)
    assert (report.devices, report.devices_replaced) == (2, 1)
    for name in ("given", "linked"):
        folder = tmp_path / name / "d"
        program = (folder / "su").stat()
        assert (program.st_uid, stat.S_IMODE(program.st_mode)) == (1000, 0o755)
        assert os.listxattr(folder / "su") == ["user.a"]
        assert stat.S_IMODE(folder.stat().st_mode) == 0o775
        assert stat.S_ISREG((folder / "disk").lstat().st_mode) and stat.S_ISFIFO((folder / "pipe").lstat().st_mode)
