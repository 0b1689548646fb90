"""Changes that root and a user without rights make alike."""

from container_samples import CAPABILITY

from layerstore import Container
from layerstore.tar.entries import EntryKind


def change(container: Container) -> None:
    """Something of everything that needs rights on a disk, with times that do not depend on the moment."""
    container.write_bytes("closed/in", b"opened")
    container.write_bytes("closed/new", b"1")
    container.chmod("closed/new", 0o000)
    container.chmod("able", 0o755)
    container.write_bytes("written", b"x")
    container.set_xattr("written", b"security.capability", CAPABILITY)
    container.write_bytes("written", b"y")
    with container.open("able", "ab") as file:
        file.write(b"!")
    container.chown("d", 1234, 5678)
    container.chown("d/s/t", 0, 77)
    container.chmod("d", 0o6711)
    container.write_bytes("d/inherits", b"1")
    container.mkdir("d/sub/sub", 0o700, parents=True)
    container.symlink("x", "link-of-root")
    container.mknod("dev", EntryKind.CHARACTER, 0o640, (4, 64))
    container.mknod("part", EntryKind.BLOCK, 0o600, (8, 1))
    container.mknod("queue", EntryKind.FIFO, 0o622)
    container.chown("dev", 5, 6)
    container.chmod("disk", 0o600)
    container.rename("null", "d/null")
    container.link("disk", "disk-again")
    container.unlink("pipe")
    container.rename("link", "op/link")
    container.link("op/link", "second-link")
    container.set_xattr("noted", b"trusted.x", b"1")
    container.set_xattr("noted", b"security.capability", CAPABILITY)
    container.remove_xattr("noted", b"user.note")
    container.chmod("holes", 0o400)
    container.rename("d/s", "empty")
    container.mkdir("h1x", 0o000)
    for node in list(container.nodes()):
        container.utime(node.path, 10**18, follow_symlinks=False)
    container.utime("", 10**18)
    container.chmod("", 0o700)
    container.chown("", 7, 8)
