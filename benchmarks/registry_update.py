"""What goes over the wire for the next version of an image: between two layerstores, and by plain OCI."""

import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.console import megabytes, tell
from benchmarks.registry_images import ImageSet, pull, push, repository_of, take
from benchmarks.registry_relay import Relay
from benchmarks.registry_report import Part
from benchmarks.registry_servers import Running, layerstore_server, prove
from benchmarks.report import table
from layerstore import Store
from layerstore.places.copying import copy
from layerstore.places.layout import OCILayout
from layerstore.places.store_place import StorePlace
from layerstore.registry.client.remote import RemoteRepository

TEAM = "team"
PULL, PUSH = "pull", "push"
HEADER = ("what", "there", "new", "its new blobs, MB", "changed chunks, MB", "plain OCI, MB", "ratio", "s", "plain, s")


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes in both directions, and wall seconds."""

    up_bytes: int
    down_bytes: int
    seconds: float

    @property
    def bytes(self) -> int:
        """In both directions."""
        return self.up_bytes + self.down_bytes


@dataclass(frozen=True, slots=True)
class Update:
    """One version after another, in one direction."""

    direction: str
    old: str
    new: str
    blob_bytes: int
    """The compressed blobs that only the new one has."""
    ours: Traffic
    plain: Traffic

    @property
    def ratio(self) -> float:
        """How many times as much plain OCI sends."""
        return self.plain.bytes / self.ours.bytes

    @property
    def row(self) -> list[str]:
        """A line of the table."""
        sizes = (self.blob_bytes, self.ours.bytes, self.plain.bytes)
        return [
            self.direction,
            self.old,
            self.new,
            *(f"{size / 1e6:,.2f}" for size in sizes),
            f"{self.ratio:,.1f}",
            f"{self.ours.seconds:.2f}",
            f"{self.plain.seconds:.2f}",
        ]


def measure_update(images: ImageSet, pairs: Sequence[tuple[str, str]], work: Path) -> Part:
    """Every pair, first pulled by clients that have the old version, then pushed to servers that have it."""
    folder = work / "registry-update"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    updates: list[Update] = []
    failures: list[str] = []
    names = list(dict.fromkeys(name for pair in pairs for name in pair))
    tell(f"update: {megabytes(images.blob_bytes)} MB into a server")
    store = _serving(images, names, folder / "server")
    with layerstore_server(store) as server:
        for old, new in pairs:
            tell(f"update: pull of {new} over {old}")
            updates.append(_pull(images, old, new, server, folder, failures))
    for old, new in pairs:
        tell(f"update: push of {new} over {old}")
        updates.append(_push(images, old, new, folder, failures))
    shutil.rmtree(folder)
    document = {"updates": [asdict(one) | {"ratio": one.ratio} for one in updates]}
    text = "MB (10^6 bytes) through TCP in both directions, all heads and documents among them\n"
    return Part("update", text + table(HEADER, [one.row for one in updates], left=(0, 1, 2)), document, failures)


def _pull(images: ImageSet, old: str, new: str, server: Running, folder: Path, failures: list[str]) -> Update:
    root, layout = folder / "client", folder / "layout"
    with _client(images, [old], root) as store, _counted(server) as (relay, counted):
        with _remote(relay, new) as repository:
            copy(repository, StorePlace(store))
        ours = counted()
        if images.manifests[new] not in store.images:
            failures.append(f"pull of {new}: the client does not have it")
    take(images, [old], layout)
    with _counted(server) as (relay, counted):
        pull([new], relay.address, TEAM, layout)
        plain = counted()
    shutil.rmtree(root)
    shutil.rmtree(layout)
    return Update(PULL, old, new, images.new_bytes(old, new), ours, plain)


def _push(images: ImageSet, old: str, new: str, folder: Path, failures: list[str]) -> Update:
    first, second, root = folder / "first", folder / "second", folder / "client"
    shutil.copytree(_serving(images, [old], first), second)
    with _client(images, [old, new], root):
        pass
    prove(root)
    with layerstore_server(first) as server, Store.open(root) as store, _counted(server) as (relay, counted):
        with _remote(relay, new) as repository:
            copy(StorePlace(store), repository, [new])
        ours = counted()
    with layerstore_server(second) as server, _counted(server) as (relay, counted):
        push(images, relay.address, TEAM, [new])
        plain = counted()
    for path in (first, second):
        with Store.open(path) as store:
            if images.manifests[new] not in store.images:
                failures.append(f"push of {new}: the server does not have it")
    for path in (first, second, root):
        shutil.rmtree(path)
    return Update(PUSH, old, new, images.new_bytes(old, new), ours, plain)


def _serving(images: ImageSet, names: Sequence[str], root: Path) -> Path:
    """The store of a server that has images, proofs worked off."""
    with layerstore_server(root) as server:
        push(images, server.address, TEAM, names)
    prove(root)
    return root


@contextmanager
def _client(images: ImageSet, names: Sequence[str], root: Path) -> Iterator[Store]:
    """The store of a client that has images."""
    with Store.create(root, encoding_cache_max=0) as store:
        copy(OCILayout(images.layout), StorePlace(store), list(names))
        yield store


def _remote(relay: Relay, name: str) -> AbstractContextManager[RemoteRepository]:
    return closing(RemoteRepository(f"{relay.address}/{repository_of(name, TEAM)}"))


@contextmanager
def _counted(server: Running) -> Iterator[tuple[Relay, "Counter"]]:
    with Relay(server.port) as relay:
        yield relay, Counter(relay)


class Counter:
    """What has gone through a relay since this was made."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._started = time.perf_counter()

    def __call__(self) -> Traffic:
        """The bytes and the seconds until now."""
        return Traffic(self._relay.up_bytes, self._relay.down_bytes, time.perf_counter() - self._started)
