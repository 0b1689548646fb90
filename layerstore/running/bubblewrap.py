"""A runtime configuration as arguments of bubblewrap (https://github.com/containers/bubblewrap)."""

from typing import Any

_UNSHARE = {"pid": "--unshare-pid", "ipc": "--unshare-ipc", "uts": "--unshare-uts", "network": "--unshare-net"}


def bubblewrap_arguments(document: dict[str, Any], *, is_root: bool) -> list[str]:
    """What ``bwrap`` is called with to run the process of a configuration.

    It has no way to say further groups, limits or masked paths, and a user without root's rights has but one number.
    """
    process, root = document["process"], document["root"]
    arguments = ["--die-with-parent", "--new-session"] if not process["terminal"] else ["--die-with-parent"]
    arguments += ["--ro-bind" if root["readonly"] else "--bind", root["path"], "/"]
    for mount in document["mounts"]:
        arguments += _mount(mount)
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
    return ["--tmpfs", target] if kind == "tmpfs" else []
