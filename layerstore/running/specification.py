"""The config.json of an OCI runtime bundle (OCI runtime specification 1.0.2) from the config of an image.

What becomes of which field is said by the OCI image specification, conversion.md. The image's volumes are left as they
are: directories of the container, whose changes the container keeps.
"""

import os
import posixpath
from typing import Any

from layerstore.errors import InvalidManifestError, InvalidOptionError
from layerstore.oci.config import ImageConfig
from layerstore.running.errors import ProgramNotExecutableError, ProgramNotFoundError
from layerstore.running.options import NETWORKS, RunOptions
from layerstore.running.users import find_user
from layerstore.union.file_system import FileSystem
from layerstore.union.node import Node

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_HOSTNAME = "container"

CAPABILITIES = tuple(
    f"CAP_{name}"
    for name in [
        "AUDIT_WRITE",
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "FSETID",
        "KILL",
        "MKNOD",
        "NET_BIND_SERVICE",
        "NET_RAW",
        "SETFCAP",
        "SETGID",
        "SETPCAP",
        "SETUID",
        "SYS_CHROOT",
    ]
)
"""What root has in a container, as with Docker."""

_SCRIPT_HEAD_SIZE = 256
_QUIET = ["nosuid", "noexec", "nodev"]
_MOUNTS = (
    ("/proc", "proc", "proc", _QUIET),
    ("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
    ("/dev/pts", "devpts", "devpts", ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
    ("/dev/shm", "tmpfs", "shm", [*_QUIET, "mode=1777", "size=65536k"]),
    ("/dev/mqueue", "mqueue", "mqueue", _QUIET),
    ("/sys", "sysfs", "sysfs", [*_QUIET, "ro"]),
)
_MASKED = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
]
_READ_ONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
_UNSAFE_LABELS = (
    "dev.gvisor.",
    "io.containers.",
    "io.katacontainers.",
    "module.wasm.image/",
    "org.criu.",
    "org.systemd.property.",
    "run.oci.",
)
"""What runtimes and their hooks take orders from. An image must not give any."""


def runtime_config(
    config: ImageConfig, files: FileSystem, options: RunOptions, *, root: str = "rootfs"
) -> dict[str, Any]:
    """The document, as it becomes JSON; ``files`` are those of the container, and ``root`` is where they are.

    Raises `InvalidOptionError` if the user is unknown or no command is given, `InvalidManifestError` for a config that
    makes no sense.
    """
    execution = config.config
    user = find_user(files, options.user if options.user is not None else execution.user or "")
    cwd = options.working_directory or execution.working_dir or "/"
    if not cwd.startswith("/"):
        raise InvalidOptionError(f"the working directory {cwd!r} is not absolute")
    if options.network not in NETWORKS:
        raise InvalidOptionError(f"the network is one of {', '.join(NETWORKS)}, not {options.network!r}")
    own = list(CAPABILITIES) if user.uid == 0 else []
    return {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": options.terminal,
            "user": {"uid": user.uid, "gid": user.gid, "additionalGids": list(user.further_groups)},
            "args": _arguments(config, options),
            "env": _environment(config, options, user.home),
            "cwd": cwd,
            "capabilities": {"bounding": list(CAPABILITIES), "effective": own, "permitted": own},
            "noNewPrivileges": True,
        },
        "root": {"path": root, "readonly": options.read_only},
        "hostname": options.hostname or _HOSTNAME,
        "mounts": _mounts(options),
        "annotations": _annotations(config),
        "linux": {
            # Runtimes add those that every container needs. crun allows all devices if nothing is said of them.
            "resources": {"devices": [{"allow": False, "access": "rwm"}]},
            "namespaces": [{"type": kind} for kind in _namespaces(options)],
            "maskedPaths": _MASKED,
            "readonlyPaths": _READ_ONLY,
        },
    }


def check_program(document: dict[str, Any], files: FileSystem) -> None:
    """Raise an error if a container lacks the program that it is to run: runtimes tell it in ways of their own.

    It is `ProgramNotFoundError` or `ProgramNotExecutableError`. What a volume brings is not looked at.
    """
    process = document["process"]
    program = process["args"][0]
    path = next((text[5:] for text in process["env"] if text.startswith("PATH=")), _PATH)
    folders = [process["cwd"]] if "/" in program else path.split(":")
    places = [posixpath.join("/", folder, program) for folder in folders]
    volumes = [mount["destination"] for mount in document["mounts"] if mount["type"] == "bind"]
    if any(posixpath.normpath(place).startswith(volume) for place in places for volume in volumes):
        return
    # A search goes past directories; what is named by its path is it.
    is_there = files.exists if "/" in program else files.is_file
    found = [files.stat(os.fsencode(place)) for place in places if is_there(os.fsencode(place))]
    if not found:
        raise ProgramNotFoundError(f"the container cannot run {program!r}: it is not there")
    runnable = next((node for node in found if node.is_file and node.mode & 0o111), None)
    if runnable is None:
        raise ProgramNotExecutableError(f"the container cannot run {program!r}: it is not executable")
    interpreter = _interpreter(files, runnable)
    is_mounted = any(os.fsdecode(interpreter).startswith(volume) for volume in volumes)
    if interpreter and not is_mounted and not files.is_file(interpreter):
        shown = os.fsdecode(interpreter)
        raise ProgramNotFoundError(f"the container cannot run {program!r}: {shown}, which is to read it, is not there")


def _interpreter(files: FileSystem, program: Node) -> bytes:
    """What a script names in its first line, as the kernel reads it (execve(2)); nothing for what is no script."""
    with files.open_node(program) as file:
        head = file.read(_SCRIPT_HEAD_SIZE)
    words = head.partition(b"\n")[0].removeprefix(b"#!").split(None, 1) if head.startswith(b"#!") else []
    return words[0] if words and words[0].startswith(b"/") else b""


def for_user(document: dict[str, Any]) -> dict[str, Any]:
    """The same for a user without root's rights: he is the container's root, in a user namespace of his own.

    Other owners have no number there, devices no place, and file systems that only root may mount are left out. Raises
    `InvalidOptionError` if the process is not root's: a namespace of one number has no other user.
    """
    process = document["process"]
    user = process["user"]
    if user["uid"] or user["gid"]:
        raise InvalidOptionError(
            f"without root's rights the only user is root, not {user['uid']}:{user['gid']}; "
            "choose another user, or bubblewrap"
        )
    # Nobody but root may make rules for devices; in a user namespace there are none to be made.
    resources = {name: value for name, value in document["linux"]["resources"].items() if name != "devices"}
    linux = {
        **document["linux"],
        "resources": resources,
        "namespaces": [*document["linux"]["namespaces"], {"type": "user"}],
        "uidMappings": [{"containerID": 0, "hostID": os.geteuid(), "size": 1}],
        "gidMappings": [{"containerID": 0, "hostID": os.getegid(), "size": 1}],
    }
    mounts = [dict(mount) for mount in document["mounts"]]
    for mount in mounts:
        mount["options"] = [option for option in mount["options"] if option != "gid=5"]
    process = {**process, "user": {**user, "additionalGids": []}}
    return {**document, "process": process, "linux": linux, "mounts": mounts}


def unsafe_labels(config: ImageConfig) -> list[str]:
    """The image's labels that are no annotations, since runtimes would obey them; whoever runs it is to be told."""
    return [name for name in config.config.labels if name.startswith(_UNSAFE_LABELS)]


def _arguments(config: ImageConfig, options: RunOptions) -> list[str]:
    execution = config.config
    if options.entrypoint is not None:
        arguments = [*options.entrypoint, *options.command]
    else:
        arguments = [*execution.entrypoint, *(options.command or execution.cmd)]
    if not arguments:
        raise InvalidOptionError("no command was given, and the image has none")
    return arguments


def _environment(config: ImageConfig, options: RunOptions, home: str) -> list[str]:
    variables = {"PATH": _PATH, "HOME": home}
    if options.terminal:
        variables["TERM"] = "xterm"
    for text in config.config.env:
        name, equals, value = text.partition("=")
        if not name or "\0" in text:
            raise InvalidManifestError(f"the image's variable {text!r} is not NAME=VALUE")
        if equals:
            variables[name] = value
    variables |= options.environment
    return [f"{name}={value}" for name, value in variables.items()]


def _mounts(options: RunOptions) -> list[dict[str, Any]]:
    mounts: list[dict[str, Any]] = [
        {"destination": target, "type": kind, "source": source, "options": list(words)}
        for target, kind, source, words in _MOUNTS
    ]
    if options.network == "host":
        # sysfs shows one network namespace, and can only be mounted by its owner.
        sys = next(mount for mount in mounts if mount["destination"] == "/sys")
        sys |= {"type": "none", "source": "/sys", "options": ["rbind", *_QUIET, "ro"]}
    for volume in options.volumes:
        words = ["rbind", "rprivate", "ro" if volume.read_only else "rw"]
        mounts.append({"destination": volume.target, "type": "bind", "source": str(volume.source), "options": words})
    return mounts


def _namespaces(options: RunOptions) -> list[str]:
    return ["pid", "ipc", "uts", "mount", *([] if options.network == "host" else ["network"])]


def _annotations(config: ImageConfig) -> dict[str, str]:
    execution = config.config
    known = {
        "os": config.os,
        "architecture": config.architecture,
        "variant": config.variant,
        "os.version": config.os_version,
        "os.features": ",".join(config.os_features),
        "author": config.author,
        "created": config.created,
        "stopSignal": execution.stop_signal,
        "exposedPorts": ",".join(execution.exposed_ports),
    }
    annotations = {f"org.opencontainers.image.{name}": value for name, value in known.items() if value}
    # What the user wrote into the labels counts. The runtime specification forbids empty names.
    labels = {name: value for name, value in execution.labels.items() if name and not name.startswith(_UNSAFE_LABELS)}
    return {**annotations, **labels}
