"""A runtime configuration as arguments of bubblewrap (https://github.com/containers/bubblewrap)."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from layerstore.running.specification import CAPABILITIES

_NEEDED = ("CAP_NET_ADMIN", "CAP_SYS_ADMIN")
"""What bubblewrap needs itself: to mount, and for the loopback device."""
_UNSHARE = {"pid": "--unshare-pid", "ipc": "--unshare-ipc", "uts": "--unshare-uts", "network": "--unshare-net"}


@contextmanager
def argument_file(document: dict[str, Any], *, is_root: bool) -> Iterator[int]:
    """A descriptor for ``bwrap --args``: on the command line every user of this machine would read the variables."""
    descriptor = os.memfd_create("arguments")
    try:
        data = memoryview(b"".join(os.fsencode(one) + b"\0" for one in bubblewrap_arguments(document, is_root=is_root)))
        while data:
            data = data[os.write(descriptor, data) :]
        os.lseek(descriptor, 0, os.SEEK_SET)
        yield descriptor
    finally:
        os.close(descriptor)


def fewer_capabilities(*, is_root: bool) -> list[str]:
    """What to begin a command with, so that bubblewrap can give no capabilities on that no container has.

    As root it leaves the bounding set as it is; in a user namespace it does not. That a program gets none of what is
    left there rests on its having no_new_privs set.
    """
    if not is_root or shutil.which("setpriv") is None:
        return []
    kept = [f"+{name.removeprefix('CAP_').lower()}" for name in (*CAPABILITIES, *_NEEDED)]
    return ["setpriv", "--bounding-set", ",".join(["-all", *kept]), "--"]


def bubblewrap_arguments(document: dict[str, Any], *, is_root: bool) -> list[str]:
    """The options that ``bwrap`` is called with to run the process of a configuration.

    It has no way to say further groups or limits, and a user without root's rights has but one number. What it mounts
    over is reached by the paths as given, so nothing of them may be a symbolic link: those of a container could lead
    out of it, to the place where bubblewrap keeps this machine's root while it builds the new one.
    """
    process, root = document["process"], document["root"]
    arguments = ["--die-with-parent", "--new-session"] if not process["terminal"] else ["--die-with-parent"]
    arguments += ["--ro-bind" if root["readonly"] else "--bind", root["path"], "/"]
    for mount in document["mounts"]:
        arguments += _mount(mount)
    arguments += _hidden(document["linux"])
    namespaces = [namespace["type"] for namespace in document["linux"]["namespaces"]]
    arguments += [_UNSHARE[kind] for kind in namespaces if kind in _UNSHARE]
    arguments += ["--hostname", document["hostname"], "--chdir", process["cwd"], "--clearenv"]
    for text in process["env"]:
        name, _, value = text.partition("=")
        arguments += ["--setenv", name, value]
    user = process["user"]
    if not is_root:
        arguments += ["--unshare-user", "--uid", str(user["uid"]), "--gid", str(user["gid"])]
    arguments += ["--cap-drop", "ALL"]
    for capability in process["capabilities"]["effective"]:
        arguments += ["--cap-add", capability]
    return arguments


def _mount(mount: dict[str, Any]) -> list[str]:
    target, kind = mount["destination"], mount["type"]
    if target == "/proc":
        return ["--proc", target]
    if target == "/dev":
        return ["--dev", target]
    if target == "/dev/mqueue":
        return ["--mqueue", target]
    if target == "/sys" and kind == "sysfs":
        return ["--ro-bind", "/sys", target]
    if "rbind" in mount["options"]:
        return ["--ro-bind" if "ro" in mount["options"] else "--bind", mount["source"], target]
    return _tmpfs(target, mount["options"]) if kind == "tmpfs" else []


def _tmpfs(target: str, options: list[str]) -> list[str]:
    mode = next((word.removeprefix("mode=") for word in options if word.startswith("mode=")), "755")
    return ["--perms", f"{mode:0>4}", "--tmpfs", target]


def _hidden(linux: dict[str, Any]) -> list[str]:
    """Covers for what tells too much of this machine, or lets its root change it: ``--proc`` leaves /proc/sys open.

    This machine has what a new proc or sysfs has, so it tells what there is to cover, and of which kind.
    """
    arguments = []
    for path in linux["readonlyPaths"]:
        if Path(path).exists():
            arguments += ["--ro-bind", path, path]
    for path in linux["maskedPaths"]:
        if Path(path).is_dir():
            arguments += ["--tmpfs", path, "--remount-ro", path]
        elif Path(path).exists():
            arguments += ["--ro-bind", "/dev/null", path]
    return arguments
