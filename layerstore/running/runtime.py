"""The programs that start containers: runc, crun and bubblewrap."""

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from layerstore.errors import InvalidOptionError, RuntimeUnavailableError
from layerstore.running.bubblewrap import argument_file, fewer_capabilities
from layerstore.running.bundle import write_config
from layerstore.running.folders import RunFolder
from layerstore.running.forwarding import forwarded_signals
from layerstore.running.specification import for_user

RUNTIMES = ("runc", "crun", "bwrap")
_PACKAGES = {"runc": "runc", "crun": "crun", "bwrap": "bubblewrap"}
EXIT_NOT_STARTED = 125
"""The exit code if the runtime could not start the program, as Docker's; the runtime has told why on stderr."""
EXIT_NOT_EXECUTABLE = 126
EXIT_NOT_FOUND = 127
_MEANT = (
    ("executable file not found", EXIT_NOT_FOUND),
    ("exec format error", EXIT_NOT_EXECUTABLE),
    ("Exec format error", EXIT_NOT_EXECUTABLE),
)
"""What runtimes say of the program."""


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


def run_root(folder: RunFolder, document: dict[str, Any], runtime: str, *, inherited: Sequence[int] = ()) -> int:
    """Run a configuration on the root file system in a folder to its end; the exit code, 128 + n after signal n.

    Standard streams are the caller's; a terminal is made only if they are one. Signals that would end this process go
    to the container while it runs, the third as SIGKILL. The runtime has the descriptors ``inherited`` as long as it
    lives; the container's processes do not. `EXIT_NOT_STARTED`, `EXIT_NOT_EXECUTABLE` or `EXIT_NOT_FOUND` if the
    runtime fails.
    """
    if os.geteuid() != 0 and runtime != "bwrap":
        document = for_user(document)
    has_terminal = document["process"]["terminal"] and _is_terminal()
    document = {
        **document,
        "process": {**document["process"], "terminal": has_terminal},
        "root": {**document["root"], "path": str(folder.root)},
    }
    if runtime == "bwrap":
        # Its program would inherit them. Nor is it needed: bubblewrap and all in it end with this process.
        return _run_bubblewrap(document)
    write_config(folder.bundle, document)
    identity = f"layerstore-{secrets.token_hex(8)}"
    folder.note_runtime(runtime, identity)
    log = folder.bundle / "log"
    arguments = [runtime, "--log", str(log), "--log-format", "json", "run", "--bundle", str(folder.bundle), identity]
    try:
        code = _wait(arguments, has_terminal=has_terminal, inherited=inherited)
    finally:
        # It is gone already unless the runtime itself was killed.
        subprocess.run([runtime, "delete", "--force", identity], check=False, capture_output=True)
    # The runtime ends with 1 for a mistake of its own, as many a program does.
    return _exit_of(_failures(log), code)


def _exit_of(failures: str, code: int) -> int:
    """The exit code if the runtime has told of failures."""
    if not failures or code > EXIT_NOT_STARTED:
        return code
    for text, meant in _MEANT:
        if text in failures:
            return meant
    return EXIT_NOT_STARTED


def _run_bubblewrap(document: dict[str, Any]) -> int:
    user = document["process"]["user"]
    is_root = os.geteuid() == 0 and user["uid"] == 0
    as_user: dict[str, Any] = {}
    if os.geteuid() == 0 and not is_root:
        # bubblewrap changes numbers in a user namespace only, where the image's other owners would be nobody.
        as_user = {"user": user["uid"], "group": user["gid"], "extra_groups": user["additionalGids"]}
    has_terminal = document["process"]["terminal"]
    status, written = os.pipe()
    with os.fdopen(status, encoding="utf-8") as told, argument_file(document, is_root=is_root) as options:
        try:
            # It hands no signals on, so they go past it. The program is the first of its namespace, as with runc.
            arguments = [*fewer_capabilities(is_root=is_root), "bwrap", "--as-pid-1", "--json-status-fd", str(written)]
            arguments += ["--args", str(options), "--", *document["process"]["args"]]
            with forwarded_signals() as signals:
                inherited = (written, options)
                process = _started(arguments, has_terminal=has_terminal, pass_fds=inherited, **as_user)
                os.close(written)
                written = -1
                line = told.readline()
                child = json.loads(line)["child-pid"] if line else None

                def send(number: int) -> None:
                    if process.poll() is None and child is not None:
                        with suppress(ProcessLookupError):
                            os.kill(child, number)

                def send_early(number: int) -> None:
                    if child is None:
                        process.send_signal(number)
                    else:
                        # It has no handlers yet, so it gets nothing else. Without bubblewrap it would wait for ever.
                        send(signal.SIGKILL)

                signals.connect(send, send_early)
                code = process.wait()
        finally:
            if written >= 0:
                os.close(written)
        has_run = "exit-code" in told.read()
    return EXIT_NOT_STARTED if code == 1 and not has_run else 128 - code if code < 0 else code


def _wait(arguments: Sequence[str], *, has_terminal: bool, inherited: Sequence[int]) -> int:
    with forwarded_signals() as signals:
        process = _started(arguments, has_terminal=has_terminal, pass_fds=inherited)
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


def _failures(log: Path) -> str:
    """What a runtime has told of its failures, empty if it has told of none."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        return ""
    return "\n".join(line for line in lines if '"level":"error"' in line or '"level": "error"' in line)
