"""The programs that start containers: runc, crun and bubblewrap."""

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from layerstore.errors import InvalidOptionError, RuntimeUnavailableError
from layerstore.running.bubblewrap import bubblewrap_arguments
from layerstore.running.bundle import write_config
from layerstore.running.forwarding import forwarded_signals
from layerstore.running.specification import for_user

RUNTIMES = ("runc", "crun", "bwrap")
_PACKAGES = {"runc": "runc", "crun": "crun", "bwrap": "bubblewrap"}
EXIT_NOT_STARTED = 125
"""The exit code if the runtime could not start the program, as Docker's; the runtime has told why on stderr."""


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

    Standard streams are the caller's; a terminal is made only if they are one. Signals that would end this process go
    to the container while it runs, the third as SIGKILL. `EXIT_NOT_STARTED` if the runtime fails.
    """
    if os.geteuid() != 0 and runtime != "bwrap":
        document = for_user(document)
    has_terminal = document["process"]["terminal"] and _is_terminal()
    document = {
        **document,
        "process": {**document["process"], "terminal": has_terminal},
        "root": {**document["root"], "path": str(root)},
    }
    if runtime == "bwrap":
        return _run_bubblewrap(document)
    with tempfile.TemporaryDirectory(prefix="layerstore-bundle-") as folder:
        write_config(Path(folder), document)
        identity = f"layerstore-{secrets.token_hex(8)}"
        log = Path(folder, "log")
        arguments = [runtime, "--log", str(log), "--log-format", "json", "run", "--bundle", folder, identity]
        try:
            code = _wait(arguments, has_terminal=has_terminal)
        finally:
            # It is gone already unless the runtime itself was killed.
            subprocess.run([runtime, "delete", "--force", identity], check=False, capture_output=True)
        # The runtime ends with 1 for a mistake of its own, as many a program does.
        return EXIT_NOT_STARTED if code == 1 and _has_failed(log) else code


def _run_bubblewrap(document: dict[str, Any]) -> int:
    user = document["process"]["user"]
    is_root = os.geteuid() == 0 and user["uid"] == 0
    as_user: dict[str, Any] = {}
    if os.geteuid() == 0 and not is_root:
        # bubblewrap changes numbers in a user namespace only, where the image's other owners would be nobody.
        as_user = {"user": user["uid"], "group": user["gid"], "extra_groups": user["additionalGids"]}
    has_terminal = document["process"]["terminal"]
    status, written = os.pipe()
    with os.fdopen(status, encoding="utf-8") as told:
        try:
            # It hands no signals on, so they go past it. The program is the first of its namespace, as with runc.
            arguments = ["bwrap", "--as-pid-1", "--json-status-fd", str(written)]
            arguments += bubblewrap_arguments(document, is_root=is_root)
            with forwarded_signals() as signals:
                process = _started(arguments, has_terminal=has_terminal, pass_fds=(written,), **as_user)
                os.close(written)
                written = -1
                line = told.readline()
                child = json.loads(line)["child-pid"] if line else None

                def send(number: int) -> None:
                    if process.poll() is None and child is not None:
                        with suppress(ProcessLookupError):
                            os.kill(child, number)

                signals.connect(send, process.send_signal)
                code = process.wait()
        finally:
            if written >= 0:
                os.close(written)
        has_run = "exit-code" in told.read()
    return EXIT_NOT_STARTED if code == 1 and not has_run else 128 - code if code < 0 else code


def _wait(arguments: Sequence[str], *, has_terminal: bool) -> int:
    with forwarded_signals() as signals:
        process = _started(arguments, has_terminal=has_terminal)
        signals.connect(process.send_signal, process.send_signal)
        code = process.wait()
    return 128 - code if code < 0 else code


def _started(arguments: Sequence[str], *, has_terminal: bool, **options: Any) -> "subprocess.Popen[bytes]":
    """The runtime. Without a terminal it has a process group of its own: Ctrl-C reaches this process, which tells it.

    With one it has to stay in the terminal's group, and reads Ctrl-C as a byte.
    """
    return subprocess.Popen(arguments, process_group=None if has_terminal else 0, **options)


def _is_terminal() -> bool:
    return sys.__stdin__ is not None and os.isatty(0) and os.isatty(1)


def _has_failed(log: Path) -> bool:
    try:
        return '"level":"error"' in log.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
