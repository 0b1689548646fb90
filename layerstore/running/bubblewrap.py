"""A runtime configuration as arguments of bubblewrap (https://github.com/containers/bubblewrap)."""

from pathlib import Path
from typing import Any

_UNSHARE = {"pid": "--unshare-pid", "ipc": "--unshare-ipc", "uts": "--unshare-uts", "network": "--unshare-net"}


def bubblewrap_arguments(document: dict[str, Any], *, is_root: bool) -> list[str]:
    """What ``bwrap`` is called with to run the process of a configuration.

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
    return [*arguments, "--", *process["args"]]


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
