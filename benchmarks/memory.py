"""Peak anonymous memory of a push from a pipe and of a pull into one. See ``--help``.

A child process makes a stream of the size asked for and writes it to a pipe; another one pushes it. The peak is that of
``RssAnon`` in /proc, looked at 50 times a second: memory that is the process's own, without the pages of mapped files.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from layerstore import Store

BLOCK = 1 << 20


def anonymous_bytes() -> int:
    """The anonymous memory of this process now."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise SystemExit("this kernel does not report RssAnon")


class Peak:
    """Watches the anonymous memory of this process."""

    def __init__(self) -> None:
        self.value = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        while not self._stop.wait(0.02):
            self.value = max(self.value, anonymous_bytes())

    def __enter__(self) -> "Peak":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def generate(size: int) -> None:
    """Write ``size`` bytes to the standard output: blocks that compress by half, all of them different."""
    rng = random.Random(1)
    pool = rng.randbytes(64 * BLOCK)
    written = 0
    while written < size:
        start = rng.randrange(len(pool) - BLOCK)
        half = pool[start : start + BLOCK // 2]
        block = half + bytes(BLOCK // 2 - 8) + written.to_bytes(8, "big")
        sys.stdout.buffer.write(block[: size - written])
        written += BLOCK


def push(root: Path) -> None:
    """Push the standard input; print what it came to as JSON."""
    started = time.perf_counter()
    with Store.create(root) as store, Peak() as peak:
        result = store.push_layer(sys.stdin.buffer)
    figures = {"diff_id": result.layer.diff_id, "size": result.size, "peak": peak.value}
    print(json.dumps(figures | {"seconds": time.perf_counter() - started}))


def pull(root: Path) -> None:
    """Pull the only layer to the standard output; print the figures as JSON to the standard error."""
    started = time.perf_counter()
    with Store.open(root) as store, Peak() as peak:
        size = next(iter(store.layers.values())).pull(sys.stdout.buffer)
    figures = {"size": size, "peak": peak.value, "seconds": time.perf_counter() - started}
    print(json.dumps(figures), file=sys.stderr)


def run(size: int, folder: Path) -> None:
    """Both ways, in processes of their own."""
    here = [sys.executable, "-m", "benchmarks.memory"]
    root = folder / "store"
    source = subprocess.Popen([*here, "generate", str(size)], stdout=subprocess.PIPE)
    pushed = subprocess.run([*here, "push", str(root)], stdin=source.stdout, capture_output=True, check=True)
    source.wait()
    sink = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    pulled = subprocess.run([*here, "pull", str(root)], stdout=sink.stdin, stderr=subprocess.PIPE, check=True)
    if sink.stdin is not None:
        sink.stdin.close()
    sink.wait()
    for name, output in (("push", pushed.stdout), ("pull", pulled.stderr)):
        figures = json.loads(output.decode().splitlines()[-1])
        rate = figures["size"] / 1e6 / figures["seconds"]
        print(f"{name}: {figures['size'] / 1e9:.1f} GB through a pipe, {rate:.0f} MB/s, ", end="")
        print(f"peak of anonymous memory {figures['peak'] / 1e6:.0f} MB (reach: 200)")


def main() -> int:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example:\n  python -m benchmarks.memory --size 10000000000",
    )
    parser.add_argument("--size", type=int, default=10_000_000_000, help="bytes of the layer")
    parser.add_argument("step", nargs="*", help=argparse.SUPPRESS)
    options = parser.parse_args()
    match options.step:
        case ["generate", size]:
            generate(int(size))
        case ["push", root]:
            push(Path(root))
        case ["pull", root]:
            pull(Path(root))
        case _:
            with tempfile.TemporaryDirectory(prefix=".benchmark-", dir=Path.cwd()) as name:
                run(options.size, Path(name))
    return 0


if __name__ == "__main__":
    sys.exit(main())
