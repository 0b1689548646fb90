"""Child processes that may be killed: forked from a server that has imported everything, so that each costs little."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

_SCRIPT = Path(__file__).with_name("crash") / "crash_server.py"


class ForkServer:
    """`crash_server`, which runs one child at a time.

    ``modules`` are imported first; ``folders`` are where they lie, beside its own.
    """

    def __init__(self, modules: Sequence[str], folders: Sequence[Path] = ()) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, folders))} if folders else None
        self._process = subprocess.Popen(
            [sys.executable, str(_SCRIPT), *modules],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def start(self, function: Callable[..., None], *arguments: Any) -> int:
        """Start a function of a module in a child; its process id."""
        request = {"module": function.__module__, "name": function.__name__, "arguments": arguments}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request, default=str) + "\n")
        self._process.stdin.flush()
        return self._read()

    def wait(self) -> bool:
        """Whether the child came to its end. Otherwise it was killed, as was meant."""
        status = self._read()
        assert status in (0, -signal.SIGKILL), f"the child ended with {status}"
        return status == 0

    def run(self, function: Callable[..., None], *arguments: Any) -> bool:
        """`start` and `wait`."""
        self.start(function, *arguments)
        return self.wait()

    def close(self) -> None:
        """End the server."""
        self._process.communicate()

    def _read(self) -> int:
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())
