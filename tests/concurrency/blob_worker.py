"""One of several processes that bring images of blobs into a store, read, prove, delete and collect them.

``python blob_worker.py STORE SEED TURNS``. What it has put, nobody may take from it before it deletes it.
"""

import gzip
import json
import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from samples import make_tar, noise, text

from layerstore import Digest, Store
from layerstore._zstd import zstd
from layerstore.oci.documents import Descriptor, image_manifest, serialize
from layerstore.oci.media_types import OCI_CONFIG, OCI_LAYER_GZIP
from layerstore.operations import batch

TARS = [make_tar({"same": noise(40_000, 1), f"own/{i}": text(30_000 + 9000 * i, i)}) for i in range(4)]
BLOBS = [gzip.compress(tar, 6, mtime=0) for tar in TARS] + [zstd.compress(tar, 3) for tar in TARS[:2]]
DIFF_IDS = [Digest.of(tar) for tar in TARS + TARS[:2]]


def documents(chosen: list[int], author: str) -> tuple[bytes, bytes]:
    """Manifest and config of an image that nobody else makes."""
    rootfs = {"type": "layers", "diff_ids": [DIFF_IDS[i] for i in chosen]}
    config = json.dumps({"architecture": "amd64", "os": "linux", "author": author, "rootfs": rootfs}).encode()
    named = Descriptor(media_type=OCI_CONFIG, digest=Digest.of(config), size=len(config))
    layers = [Descriptor(media_type=OCI_LAYER_GZIP, digest=Digest.of(BLOBS[i]), size=len(BLOBS[i])) for i in chosen]
    return serialize(image_manifest(named, layers)), config


def main(path: str, seed: int, turns: int) -> None:
    """Work."""
    batch.BATCH_SIZE_MAX = 30_000
    chooser = random.Random(seed)
    own: dict[str, list[int]] = {}
    with Store.open(path) as store:
        for turn in range(turns):
            action = chooser.choice(("put", "put", "read", "read", "delete", "collect", "prove"))
            if action == "put":
                chosen = chooser.sample(range(len(BLOBS)), chooser.randrange(1, 4))
                with store.lease(600) as lease:
                    for i in chosen:
                        store.push_blob(BLOBS[i], digest=Digest.of(BLOBS[i]), lease=lease)
                    image = store.put_image(*documents(chosen, f"{seed} {turn}"))
                own[image.digest] = chosen
            elif action == "prove":
                assert not store.prove_encodings().damaged
            elif action == "collect":
                store.collect_garbage()
            elif own:
                digest = chooser.choice(sorted(own))
                for i in own[digest]:
                    start = chooser.choice((0, chooser.randrange(len(BLOBS[i]))))
                    got = b"".join(store.blob_blocks(Digest.of(BLOBS[i]), start=start))
                    assert got == BLOBS[i][start:], f"blob {i} from {start}"
                if action == "delete":
                    store.delete_image(digest, ttl=0)
                    del own[digest]
    print(json.dumps(sorted(own)))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
