"""Where a store may lie: network file systems are refused, by the type that the kernel names."""

import os
from pathlib import Path

import pytest

from layerstore import Store
from layerstore.errors import UnsupportedPlaceError
from layerstore.storage import layout

MOUNTS = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
40 22 0:35 / /mnt/share rw,relatime shared:2 - nfs4 server:/export rw,vers=4.2
41 22 0:36 / /mnt/with\\040space rw shared:3 - fuse.sshfs host:/ rw
42 40 0:37 / /mnt/share/local rw shared:4 - xfs /dev/vdb rw
43 22 0:38 / /mnt/over rw shared:5 - nfs server:/a rw
44 22 0:39 / /mnt/over rw shared:6 - tmpfs tmpfs rw
a line that makes no sense
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/srv/store", "ext4"),
        ("/mnt/share", "nfs4"),
        ("/mnt/share/team/store", "nfs4"),
        ("/mnt/shared", "ext4"),
        ("/mnt/with space/store", "fuse.sshfs"),
        ("/mnt/share/local/store", "xfs"),
        ("/mnt/over/store", "tmpfs"),
    ],
)
def test_the_deepest_and_latest_mount_names_the_file_system(tmp_path: Path, path: str, kind: str) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(MOUNTS)
    assert layout._file_system_of(Path(path), mounts) == kind


def test_a_store_on_a_network_file_system_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "_file_system_of", lambda path: "nfs4")
    with pytest.raises(UnsupportedPlaceError, match="network file system"):
        layout.refuse_network_file_system(tmp_path)


def test_a_system_without_mountinfo_refuses_nothing(tmp_path: Path) -> None:
    assert layout._file_system_of(tmp_path, tmp_path / "missing") is None


def test_collection_removes_what_killed_processes_left_beside_the_journal(tmp_path: Path) -> None:
    with Store.create(tmp_path / "store") as store:
        old, new = store.path / ".journal.0123", store.path / ".layerstore.json.4567"
        for path in (old, new):
            path.write_bytes(b"left behind")
        os.utime(old, (0, 0))
        store.collect_garbage()
        assert not old.exists()
        assert new.exists()  # its process may live
