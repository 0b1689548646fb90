"""What the processes of the concurrency tests do: ``python concurrency_workers.py ROLE STORE SEED SECONDS``.

Each role checks what it sees and fails on anything unexpected; it prints one line of JSON at its end.
"""

import functools
import io
import json
import random
import sys
import time
from contextlib import suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "crash"))

from crash_model import quick_verify
from crash_scenarios import use_small_batches
from samples import make_tar, noise, text

from layerstore import Digest, Store
from layerstore.errors import ImageNotFoundError, LayerNotFoundError, TagNotFoundError

LAYERS = 24
OWN_TAGS = 5


@functools.cache
def content(number: int) -> bytes:
    """One of a few layers that share files."""
    chooser = random.Random(number)
    files = {}
    for one in chooser.sample(range(40), chooser.randrange(2, 8)):
        files[f"usr/{one}"] = noise(1000 * (1 + one), one) if one % 3 else text(2000 * (1 + one), one)
    return make_tar(files) if number % 6 else b"".join(files.values())


@functools.cache
def names() -> dict[str, int]:
    """The DiffIDs of all layers."""
    return {str(Digest.of(content(number))): number for number in range(LAYERS)}


def assert_pulls(store: Store, layer: str) -> None:
    buffer = io.BytesIO()
    store.pull_layer(layer, buffer)
    assert buffer.getvalue() == content(names()[layer]), f"layer {layer} came back with other bytes"


def pusher(path: str, seed: int, seconds: float) -> dict:
    """Push, make images, tag, lease, delete. What is its own must be there whenever it looks."""
    chooser = random.Random(seed)
    diff_ids = {number: name for name, number in names().items()}
    own: dict[str, tuple[str, list[str]]] = {}
    end = time.monotonic() + seconds
    turns = 0
    with Store.open(path) as store:
        while time.monotonic() < end:
            turns += 1
            numbers = chooser.sample(range(LAYERS), chooser.randrange(1, 4))
            lease = store.lease(3600) if chooser.random() < 0.3 else None
            for number in numbers:
                pushed = store.push_layer(content(number), lease=lease)
                assert str(pushed.layer.diff_id) == diff_ids[number]
            if chooser.random() < 0.3:
                time.sleep(chooser.uniform(0, 0.05))  # let the collectors come in between
            layers = [diff_ids[number] for number in numbers]
            assert_pulls(store, layers[0])
            tag = f"own{seed}:{chooser.randrange(OWN_TAGS)}"
            image = store.create_image(layers, tag=tag, author=f"{seed}")
            own = {t: one for t, one in own.items() if one[0] != str(image.digest)}  # a trashed tag must be free
            if lease is not None:
                lease.end()
            own[tag] = (str(image.digest), layers)
            # An image that all make and delete: its documents come and go.
            shared = store.create_image([diff_ids[seed % 3]] if store.push_layer(content(seed % 3)) else [])
            with suppress(ImageNotFoundError, TagNotFoundError):
                store.tags[f"shared:{chooser.randrange(3)}"] = shared.digest
            if chooser.random() < 0.5:
                with suppress(ImageNotFoundError):
                    store.delete_image(shared, ttl=0)
            look, (digest, its_layers) = chooser.choice(sorted(own.items()))
            assert store.tags[look] == digest
            assert [str(layer.diff_id) for layer in store.images[digest].layers] == its_layers
            assert_pulls(store, chooser.choice(its_layers))
            if len(own) > 3:
                victim = chooser.choice(sorted(own))
                digest = own[victim][0]
                store.delete_image(digest, ttl=0)
                own = {t: one for t, one in own.items() if one[0] != digest}
                assert digest not in store.images
    return {
        "turns": turns,
        "images": dict(own.values()),
        "tags": {tag: digest for tag, (digest, _) in own.items()},
    }


def collector(path: str, seed: int, seconds: float) -> dict:
    """Collect over and over."""
    end = time.monotonic() + seconds
    turns = layers = rewritten = 0
    with Store.open(path) as store:
        while time.monotonic() < end:
            report = store.collect_garbage()
            turns += 1
            layers += report.layers
            rewritten += report.packs_rewritten
            time.sleep(0.002 * (seed % 5))
    return {"turns": turns, "layers": layers, "rewritten": rewritten}


def reader(path: str, seed: int, seconds: float) -> dict:
    """Pull whatever is there. What vanishes before the pull begins is not there; what begins comes to its end."""
    chooser = random.Random(seed)
    end = time.monotonic() + seconds
    turns = missing = 0
    with Store.open(path) as store:
        while time.monotonic() < end:
            there = sorted(store.layers)
            if not there:
                time.sleep(0.01)
                continue
            layer = str(chooser.choice(there))
            turns += 1
            try:
                if chooser.random() < 0.7:
                    assert_pulls(store, layer)
                    continue
                with store.open_layer(layer) as file:
                    expected = content(names()[layer])
                    for _ in range(5):
                        start = chooser.randrange(len(expected))
                        file.seek(start)
                        wanted = expected[start : start + 5000]
                        got = b""
                        while len(got) < len(wanted):
                            got += file.read(len(wanted) - len(got))
                        assert got == wanted
                        time.sleep(0.002)
            except LayerNotFoundError:
                missing += 1
    return {"turns": turns, "missing": missing}


def verifier(path: str, seed: int, seconds: float) -> dict:
    """Verify over and over: nothing that others do may look like damage."""
    end = time.monotonic() + seconds
    turns = 0
    with quick_verify(), Store.open(path) as store:
        while time.monotonic() < end:
            report = store.verify(full=turns % 2 == 0)
            assert report.is_clean, [problem.text for problem in report.problems][:5]
            store.stats()
            for image in list(store.images)[:3]:
                with suppress(ImageNotFoundError, LayerNotFoundError):
                    store.image_usage(image)
            turns += 1
    return {"turns": turns}


if __name__ == "__main__":
    use_small_batches()
    role, store_path, seed_text, seconds_text = sys.argv[1:]
    print(json.dumps(globals()[role](store_path, int(seed_text), float(seconds_text))))
