"""Push and pull of gzip layers by skopeo: one server after the other, step by step, in every round."""

import shutil
import statistics
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path

from benchmarks.console import tell
from benchmarks.process_cost import Cost
from benchmarks.registry_client import first_byte_seconds
from benchmarks.registry_images import ImageSet, differing, pull, push
from benchmarks.registry_report import Part, Step, row_of
from benchmarks.registry_servers import KINDS, OURS, THEIRS, Running, prove, server_of, settle
from benchmarks.report import table
from layerstore import Store

PUSH, AGAIN = "push", "push of the same into other repositories"
QUEUED, COLD, WARM = "pull, kept as they came", "pull, made again", "pull, out of the cache"
STEPS = (PUSH, AGAIN, QUEUED, COLD, WARM)
HEADER = (
    *("step", "MB", "layerstore, MB/s", "docker-registry, MB/s", "ratio"),
    *("server CPU, s", "theirs", "client CPU, s", "with theirs"),
)
TEAM, OTHERS = "team", "others"


class _Throughput:
    """All rounds of one set of images."""

    def __init__(self, images: ImageSet, work: Path) -> None:
        self.images = images
        self.folder = work / "registry-throughput"
        self.steps = {name: Step(name, images.blob_bytes) for name in STEPS}
        self.first_bytes: dict[str, list[float]] = {kind: [] for kind in KINDS}
        """Seconds to the first byte of each layer that has a recipe, its cache cold; theirs of the same layers."""
        self.wrong: list[str] = []

    def round(self, kinds: Sequence[str]) -> None:
        """All steps, each on the servers in this order."""
        shutil.rmtree(self.folder, ignore_errors=True)
        with ExitStack() as stack:
            servers = self._started(kinds, stack)
            self._each(PUSH, servers, lambda server: push(self.images, server.address, TEAM))
            self._each(AGAIN, servers, lambda server: push(self.images, server.address, OTHERS))
            self._each(QUEUED, servers, self._pull)
        recipes = self._prove()
        with ExitStack() as stack:
            servers = self._started(kinds, stack)
            for server in servers:
                layers = {digest: self.images.layers[digest] for digest in recipes}
                self.first_bytes[server.kind] += first_byte_seconds(server.address, TEAM, layers)
            self._each(COLD, servers, self._pull)
            self._check_cache(recipes)
            self._each(WARM, servers, self._pull)
        shutil.rmtree(self.folder)

    def _started(self, kinds: Sequence[str], stack: ExitStack) -> list[Running]:
        return [stack.enter_context(server_of(kind, self.folder / kind)) for kind in kinds]

    def _each(self, name: str, servers: Sequence[Running], work: Callable[[Running], Cost]) -> None:
        for server in servers:
            settle(server)
            before = server.cpu_seconds()
            cost = work(server)
            self.steps[name].add(server.kind, cost.wall_seconds, server.cpu_seconds() - before, cost.cpu_seconds)
            self._check(name, server)

    def _pull(self, server: Running) -> Cost:
        return pull(self.images.names, server.address, TEAM, self._target)

    @property
    def _target(self) -> Path:
        return self.folder / "pulled"

    def _check(self, name: str, server: Running) -> None:
        if self._target.exists():
            wrong = differing(self.images, self._target)
            self.wrong += [f"{name} from {server.kind}: {digest} did not come back" for digest in wrong]
            shutil.rmtree(self._target)

    def _check_cache(self, recipes: Sequence[str]) -> None:
        with Store.open(self.folder / OURS / "store") as store:
            kept, made = store.stats().cache_bytes, sum(self.images.blobs[digest] for digest in recipes)
        if kept < made:
            self.wrong.append(f"{WARM}: the cache kept {kept:,} of {made:,} bytes that were made again")

    def _prove(self) -> list[str]:
        """Proofs worked off; the layers of the set that have a recipe."""
        root = self.folder / OURS / "store"
        prove(root)
        with Store.open(root) as store:
            found = {str(digest) for digest in store.encodings if store.encodings[digest].kept_as == "recipe"}
        return [digest for digest in self.images.layers if digest in found]


def measure_throughput(images: ImageSet, work: Path, rounds: int) -> Part:
    """Every step in every round, the servers taking turns in who is first."""
    measured = _Throughput(images, work)
    for number in range(rounds):
        tell(f"throughput: round {number + 1} of {rounds}")
        measured.round(KINDS if number % 2 == 0 else KINDS[::-1])
    steps = [step for step in measured.steps.values() if step.seconds]
    document = {
        "images": len(images.names),
        "blob_bytes": images.blob_bytes,
        "rounds": rounds,
        "steps": [asdict(step) | {"ratios": step.ratios(OURS, THEIRS)} for step in steps],
        "first_byte_seconds": measured.first_bytes,
    }
    return Part("throughput", _text(images, steps, measured.first_bytes), document, measured.wrong)


def _text(images: ImageSet, steps: Sequence[Step], first_bytes: dict[str, list[float]]) -> str:
    lines = [
        f"{len(images.names)} images with skopeo, MB (10^6 bytes) of distinct compressed blobs a second: "
        "median (smallest-largest)",
        table(HEADER, map(partial(row_of, ours=OURS, theirs=THEIRS), steps)),
    ]
    lines += [
        f"to the first byte of a layer, made again by layerstore: {kind} {statistics.median(values) * 1e3:,.0f} ms "
        f"(at most {max(values) * 1e3:,.0f} ms, {len(values)} requests)"
        for kind, values in first_bytes.items()
        if values
    ]
    return "\n".join(lines)
