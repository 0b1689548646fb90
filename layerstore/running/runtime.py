"""The programs that start containers: runc, crun and bubblewrap."""

import os
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from layerstore.errors import InvalidOptionError, RuntimeUnavailableError
from layerstore.running.bubblewrap import bubblewrap_arguments
from layerstore.running.bundle import write_config
from layerstore.running.specification import for_user

RUNTIMES = ("runc", "crun", "bwrap")
_PACKAGES = {"runc": "runc", "crun": "crun", "bwrap": "bubblewrap"}
_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


def find_runtime(name: str | None = None) -> str:
    """The runtime of that name, or the first that is there. Raises `RuntimeUnavailableError`, `InvalidOptionError`."""
    if name is not None and name not in RUNTIMES:
        raise InvalidOptionError(f"the runtime is one of {', '.join(RUNTIMES)}, not {name!r}")
    # Without root's rights runc and crun want a cgroup and more than one number for users; bubblewrap does not.
    order = (name,) if name is not None else RUNTIMES if os.geteuid() == 0 else ("bwrap", "runc", "crun")
    for one in order:
        if shutil.which(one) is not None:
            return one
    if name is not None:
        raise RuntimeUnavailableError(f"{name} is not there: install {_PACKAGES[name]}, or choose another runtime")
    raise RuntimeUnavailableError("no container runtime is there: install runc, crun or bubblewrap")


def run_root(root: Path, document: dict[str, Any], runtime: str) -> int:
    """Run a configuration on the root file system at ``root`` to its end; the exit code, 128 + n after signal n.

    Standard streams are the caller's. Signals that would end this process go to the container, while it runs.
    """
    if os.geteuid() != 0 and runtime != "bwrap":
        document = for_user(document)
    document = {**document, "root": {**document["root"], "path": str(root)}}
    if runtime == "bwrap":
        return _run_bubblewrap(document)
    with tempfile.TemporaryDirectory(prefix="layerstore-bundle-") as folder:
        write_config(Path(folder), document)
        identity = f"layerstore-{secrets.token_hex(8)}"
        try:
            return _wait([runtime, "run", "--bundle", folder, identity])
        finally:
            # It is gone already unless the runtime itself was killed.
            subprocess.run([runtime, "delete", "--force", identity], check=False, capture_output=True)


def _run_bubblewrap(document: dict[str, Any]) -> int:
    user = document["process"]["user"]
    if os.geteuid() != 0:
        return _wait(["bwrap", *bubblewrap_arguments(document, is_root=False)])
    if user["uid"] == 0:
        return _wait(["bwrap", *bubblewrap_arguments(document, is_root=True)])
    # bubblewrap changes numbers in a user namespace only, where the image's other owners would be nobody.
    arguments = ["bwrap", *bubblewrap_arguments(document, is_root=False)]
    return _wait(arguments, user=user["uid"], group=user["gid"], extra_groups=user["additionalGids"])


def _wait(arguments: Sequence[str], **as_user: Any) -> int:
    with _forwarded_signals() as children:
        process = subprocess.Popen(arguments, **as_user)
        children.append(process)
        code = process.wait()
    return 128 - code if code < 0 else code


@contextmanager
def _forwarded_signals() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Hand signals on to a child instead of ending with them."""
    children: list[subprocess.Popen[bytes]] = []

    def forward(number: int, _: FrameType | None) -> None:
        for child in children:
            child.send_signal(number)

    before = {number: signal.signal(number, forward) for number in _FORWARDED}
    try:
        yield children
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
