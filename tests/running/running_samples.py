"""The image of these tests, and who may use it."""

import shutil
import subprocess
from pathlib import Path

import pytest

PASSWD = "root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n"
GROUP = "root:x:0:\napp:x:1000:\nextra:x:50:other,app\n"
PROGRAMS = ("cat", "echo", "env", "hostname", "id", "kill", "ls", "mkdir", "pwd", "rm", "sh", "sleep", "touch")


def busybox_root(root: Path) -> Path:
    """A root file system that runs: busybox, and who may use it."""
    busybox = shutil.which("busybox")
    # ldd fails for what is linked statically.
    if busybox is None or subprocess.run(["ldd", busybox], capture_output=True, check=False).returncode == 0:
        pytest.skip("there is no static busybox (Debian: busybox-static)")
    for folder in ("bin", "etc", "tmp", "proc", "dev", "sys", "home/app"):
        (root / folder).mkdir(parents=True)
    (root / "tmp").chmod(0o1777)
    shutil.copy(busybox, root / "bin/busybox")
    for name in PROGRAMS:
        (root / "bin" / name).symlink_to("busybox")
    (root / "etc/passwd").write_text(PASSWD)
    (root / "etc/group").write_text(GROUP)
    return root
