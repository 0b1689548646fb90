"""Changes a container that fuse-overlayfs mounts for a user who has no rights; prints what came of it as JSON."""

import json
import subprocess
import sys
from pathlib import Path

from layerstore import Store

place = Path(sys.argv[1])
target = place / "target"
target.mkdir()


def run(*words: str) -> str:
    return subprocess.run([str(one) for one in words], check=True, capture_output=True, text=True).stdout


with Store.create(place / "store") as store:
    image = store.create_image([store.push_layer(place / "layer").layer])
    with image.container("web") as container:
        container.write_bytes("/bin/tool", b"#!/bin/sh\necho made\n")
        container.chmod("/bin/tool", 0o755)
        container.write_bytes("/etc/secret", b"s")
        container.chmod("/etc/secret", 0o640)
        container.chown("/etc/secret", 5, 6)
        container.chmod("/", 0o750)
        container.chown("/", 7, 8)
        with container.mount(target):
            listed = {name: sorted(one.name for one in (target / name).iterdir()) for name in (".", "etc", "bin")}
            (target / "new").write_text("new")
            (target / "etc/new").write_text("new")
            (target / "etc/sub").mkdir()
            (target / "etc/sub/file").write_text("x")
            (target / "etc/name").write_text("changed")
            (target / "gone").unlink()
            (target / "dir/a").unlink()
            (target / "dir").rmdir()
            (target / "dir").mkdir()
            (target / "dir/b").write_text("b")
            (target / "etc/link").symlink_to("new")
            tool = run(str(target / "bin/tool"))
            (target / "etc/late").write_text("late")
            (target / "etc/late").chmod(0o755)
            (target / "bin/tool").chmod(0o700)
            secret = oct((target / "etc/secret").stat().st_mode & 0o7777)
        root, kept, changed = (container.stat(path) for path in ("/", "/etc/secret", "/bin/tool"))
        committed = container.commit()
        said = {
            "listed": listed,
            "tool": tool,
            "secret": secret,
            "root": (root.uid, root.gid, oct(root.mode)),
            "kept": (kept.uid, kept.gid, oct(kept.mode)),
            "changed": (changed.uid, changed.gid, oct(changed.mode)),
            "changes": [(one.kind, one.path.decode()) for one in container.changes()],
        }
        with committed.view() as view:
            said["committed"] = sorted(node.path.decode() for node in view.nodes())
    container.remove()
print(json.dumps(said))
