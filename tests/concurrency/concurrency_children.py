"""Children of the directed concurrency tests: ``python concurrency_children.py NAME ARGUMENT...``.

A child prints ``ready`` when it has come to the point that a test waits for, and reads a line to go on.
"""

import io
import os
import signal
import sys
import threading
import time
import traceback
import warnings
from contextlib import suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "crash"))

from crash_scenarios import LAYERS, use_small_batches
from samples import make_tar, noise

from layerstore import Store
from layerstore.errors import StoreClosedError


def big_layer() -> bytes:
    """A layer of many batches, once `use_small_batches` was called."""
    return make_tar({f"f{i}": noise(20_000, 900 + i) for i in range(60)})


def meet() -> None:
    """Wait for the test."""
    print("ready", flush=True)
    sys.stdin.readline()


def push_big(path: str) -> None:
    """Push the layer when told."""
    use_small_batches()
    with Store.open(path) as store:
        meet()
        result = store.push_layer(big_layer())
        print(result.layer.diff_id, flush=True)


def push_and_stay(path: str) -> None:
    """Push a layer and live on without an image of it, then make it."""
    with Store.open(path) as store:
        pushed = store.push_layer(LAYERS["base"])
        meet()
        print(store.create_image([pushed.layer], tag="late:1").digest, flush=True)


def push_under_lease_and_die(path: str) -> None:
    """Push under a lease, and die at once."""
    store = Store.open(path)
    store.push_layer(LAYERS["base"], lease=store.lease(3600))
    os.kill(os.getpid(), signal.SIGKILL)


def die_in_the_middle_of_a_push(path: str) -> None:
    """Push half a stream, and die."""
    use_small_batches()
    store = Store.open(path)

    def blocks():
        yield noise(3 << 20)
        time.sleep(0.5)  # the batches so far are committed
        os.kill(os.getpid(), signal.SIGKILL)

    store.push_layer(blocks())


def die_holding_the_writer_lock(path: str) -> None:
    """Die inside a write transaction."""
    store = Store.open(path)

    def change(transaction) -> None:
        transaction.meta.put("never", 1)
        os.kill(os.getpid(), signal.SIGKILL)

    store._opened.index.write(change)


def read_until_killed(path: str) -> None:
    """Hold a read transaction, a lease on a layer, and an open pack."""
    store = Store.open(path)
    file = store.open_layer(next(iter(store.layers)))
    file.read(100)
    with store._opened.index.read() as transaction:
        next(transaction.chunks.items())
        meet()
        time.sleep(60)


def collect_until_told(path: str) -> None:
    """Hold collection's lock."""
    with Store.open(path) as store, store._opened.lock("collect"):
        meet()
        time.sleep(60)


def use_after_fork(path: str) -> None:
    """The child is told that it cannot use the store, and the parent's goes on working."""
    warnings.simplefilter("error")
    store = Store.open(path)
    first = store.push_layer(LAYERS["base"]).layer
    child = os.fork()
    if not child:
        status = 1
        try:
            refused = 0
            for use in (
                lambda: store.push_layer(LAYERS["app"]),
                lambda: store.pull_layer(first, io.BytesIO()),
                lambda: list(store.layers),
                lambda: store.verify(),
                lambda: store.collect_garbage(),
                lambda: store.create_image([first]),
                lambda: store.lease(5),
                lambda: store.stats(),
                lambda: Store.open(path),  # LMDB cannot have it twice, nor close what is the parent's
            ):
                try:
                    use()
                except StoreClosedError:
                    refused += 1
                else:
                    print("not refused after", refused, file=sys.stderr, flush=True)
            store.close()
            status = 0 if refused == 9 else 2
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    # The session that covers what was pushed is still this process's.
    store.push_layer(LAYERS["app"])
    buffer = io.BytesIO()
    store.pull_layer(first, buffer)
    assert buffer.getvalue() == LAYERS["base"]
    assert store.verify().is_clean
    store.close()


def fork_during_a_push(path: str) -> None:  # noqa: C901 - parent and child are told together
    """Forks while threads of a push hold all kinds of locks: neither process is blocked."""
    warnings.simplefilter("ignore", DeprecationWarning)  # Python warns of exactly this
    use_small_batches()
    store = Store.open(path)
    pushing = threading.Thread(target=lambda: store.push_layer(big_layer()))
    opening = threading.Thread(target=lambda: [Store.open(path).close() for _ in range(100)])
    pushing.start()
    opening.start()
    children = []
    for _ in range(30):
        child = os.fork()
        if not child:
            status = 1
            try:
                for use in (lambda: store.push_layer(b"x"), lambda: Store.open(path)):
                    try:
                        use()
                    except StoreClosedError:
                        status -= 1
                status += 1
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        children.append(child)
        time.sleep(0.002)
    for child in children:
        end = time.monotonic() + 10
        while True:
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid:
                assert status == 0
                break
            if time.monotonic() > end:
                for one in children:
                    with suppress(ProcessLookupError):
                        os.kill(one, signal.SIGKILL)
                raise AssertionError("a forked child is blocked")
            time.sleep(0.01)
    pushing.join()
    opening.join()
    assert len(store.layers) == 1
    assert store.verify().is_clean
    store.close()


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
