"""What the processes do that are killed: each scenario uses the public API and reports before and after each call."""

import gzip
import io
import json
import random
from pathlib import Path

from crash_model import Acknowledgements
from samples import make_tar, noise, sha256, text

from layerstore import Digest, Store
from layerstore._zstd import zstd
from layerstore.oci.documents import Descriptor, image_manifest, serialize
from layerstore.oci.media_types import OCI_CONFIG, OCI_LAYER_GZIP
from layerstore.operations import batch, drain, rewrite

FRAME_SIZE = 1 << 14
PACK_SIZE_MAX = 1 << 16


def use_small_batches() -> None:
    """Let little content take many transactions."""
    batch.BATCH_SIZE_MAX = 40_000
    batch.BATCH_CHUNKS_MAX = 20
    drain._REFERENCES_MAX = 8
    rewrite._POSITIONS_PER_TRANSACTION = 8
    rewrite._BYTES_PER_BATCH = 30_000


def _layers() -> dict[str, bytes]:
    shared = {f"usr/lib/{i}": noise(3000 + 1500 * i, i) for i in range(6)}
    app = {f"app/{i}": text(9000, i) + noise(2000, 100 + i) for i in range(5)}
    return {
        "base": make_tar(shared),
        "app": make_tar({**dict(list(shared.items())[:3]), **app}),
        "wide": make_tar({f"opt/{i}": noise(14_000, 200 + i) for i in range(9)} | {"same": shared["usr/lib/5"]}),
        "plain": noise(30_000, 300) + text(30_000, 1),
    }


LAYERS = _layers()
NAMES = {name: str(sha256(data)) for name, data in LAYERS.items()}
CONTENTS = {NAMES[name]: data for name, data in LAYERS.items()}


def life(path: Path, acknowledgements: Path) -> None:  # noqa: PLR0915 - one life, told in order
    """Create, push, tag, delete, collect with rewriting, and push again."""
    use_small_batches()
    said = Acknowledgements(acknowledgements)
    base, app, wide, plain = (NAMES[name] for name in ("base", "app", "wide", "plain"))
    store = Store.create(path, frame_size=FRAME_SIZE, pack_size_max=PACK_SIZE_MAX)
    said.done("create")
    store.push_layer(LAYERS["base"])
    said.done("push base", layers=[base])
    store.push_layer(io.BytesIO(gzip.compress(LAYERS["app"], 1)))
    said.done("push app", layers=[app])
    one = store.create_image([base, app], tag="shop:1")
    said.done("image 1", images={str(one.digest): [base, app]}, tags={"shop:1": str(one.digest)})
    store.push_layer(LAYERS["wide"])
    said.done("push wide", layers=[wide])
    two = store.create_image([wide], base="shop:1", tag="shop:2")
    said.done("image 2", images={str(two.digest): [base, app, wide]}, tags={"shop:2": str(two.digest)})
    said.begin("tag", tags=["shop:now"])
    store.tags["shop:now"] = one.digest
    said.done("tag", tags={"shop:now": str(one.digest)})
    said.begin("move tag", tags=["shop:now"])
    store.tags["shop:now"] = two.digest
    said.done("move tag", tags={"shop:now": str(two.digest)})
    said.begin("delete tag", tags=["shop:now"])
    del store.tags["shop:now"]
    said.done("delete tag", gone_tags=["shop:now"])
    with store.lease(3600) as lease:
        store.push_layer(LAYERS["plain"], lease=lease)
        said.done("push plain", layers=[plain])
        said.begin("end lease", layers=[plain])
    said.begin("delete image 2", images=[str(two.digest)], tags=["shop:2"])
    store.delete_image(two, ttl=3600)
    said.done("delete image 2", gone_images=[str(two.digest)], gone_tags=["shop:2"])
    said.begin("undelete image 2", images=[str(two.digest)], tags=["shop:2"])
    store.undelete_image("shop:2")
    said.done("undelete image 2", images={str(two.digest): [base, app, wide]}, tags={"shop:2": str(two.digest)})
    said.begin("delete image 1", images=[str(one.digest)], tags=["shop:1"])
    store.delete_image(one, ttl=0)
    said.done("delete image 1", gone_images=[str(one.digest)], gone_tags=["shop:1"])
    store.collect_garbage()
    said.begin("delete image 2 again", images=[str(two.digest)], tags=["shop:2"], layers=[base, app, wide])
    store.delete_image("shop:2", ttl=0)
    said.done("delete image 2 again", gone_images=[str(two.digest)], gone_tags=["shop:2"])
    store.collect_garbage()
    store.push_layer(LAYERS["app"])
    said.done("push app again", layers=[app])
    store.push_layer(LAYERS["wide"])
    said.done("push wide again", layers=[wide])
    said.begin("release wide", layers=[wide])
    store.release_layer(wide)
    store.collect_garbage()
    store.push_layer(LAYERS["wide"])
    said.done("push wide a third time", layers=[wide])
    said.begin("image 2 again", images=[str(two.digest)])
    again = store.create_image([app, wide], tag="shop:3")
    said.done("image 3", images={str(again.digest): [app, wide]}, tags={"shop:3": str(again.digest)})
    store.close()


BLOBS = {
    "base": gzip.compress(LAYERS["base"], 6, mtime=0),
    "app": gzip.compress(LAYERS["app"], 1, mtime=0),
    "wide": zstd.compress(LAYERS["wide"], 3),
}


def _image_of(*names: str) -> tuple[bytes, bytes]:
    """Manifest and config of an image of blobs."""
    config = {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [NAMES[n] for n in names]},
    }
    data = json.dumps(config).encode()
    layers = [
        Descriptor(media_type=OCI_LAYER_GZIP, digest=sha256(BLOBS[name]), size=len(BLOBS[name])) for name in names
    ]
    return serialize(
        image_manifest(Descriptor(media_type=OCI_CONFIG, digest=sha256(data), size=len(data)), layers)
    ), data


def transfer(path: Path, acknowledgements: Path) -> None:
    """Push blobs, make an image of them, prove, read, release, delete, collect, and push again."""
    use_small_batches()
    said = Acknowledgements(acknowledgements)
    base, app, wide = (str(sha256(BLOBS[name])) for name in ("base", "app", "wide"))
    store = Store.create(path, frame_size=FRAME_SIZE, pack_size_max=PACK_SIZE_MAX, encoding_cache_max=150_000)
    said.done("create")
    with store.lease(3600) as lease:
        for name, digest in (("base", base), ("app", app)):
            store.push_blob(io.BytesIO(BLOBS[name]), digest=digest, lease=lease)
            said.done(f"push {name}", blobs=[digest], layers=[NAMES[name]])
        image = store.put_image(*_image_of("base", "app"), tag="shop:1")
        layers = [NAMES["base"], NAMES["app"]]
        said.done("image", images={str(image.digest): layers}, tags={"shop:1": str(image.digest)})
    store.push_blob(BLOBS["wide"], digest=wide)
    said.done("push wide", blobs=[wide], layers=[NAMES["wide"]])
    store.prove_encodings([base])
    for digest in (base, app):
        list(store.blob_blocks(digest))
    store.prove_encodings()
    for digest in (app, base):
        list(store.blob_blocks(digest))
    long = str(Digest.of(LAYERS["plain"], "sha512"))
    store.push_blob(LAYERS["plain"], digest=long)
    said.done("push plain", blobs=[long], layers=[NAMES["plain"]])
    said.begin("release", blobs=[wide], layers=[NAMES["wide"]])
    store.release_blob(wide)
    store.collect_garbage()
    said.begin("delete", images=[str(image.digest)], tags=["shop:1"], blobs=[base, app], layers=layers)
    store.delete_image(image, ttl=0)
    said.done("delete", gone_images=[str(image.digest)], gone_tags=["shop:1"])
    store.collect_garbage()
    store.push_blob(BLOBS["base"], digest=base)
    said.done("push base again", blobs=[base], layers=[NAMES["base"]])
    store.close()


def heal(path: Path, acknowledgements: Path) -> None:
    """Repair a damaged store from another one, and heal it with a push. ``prepare_heal`` made both."""
    use_small_batches()
    said = Acknowledgements(acknowledgements)
    said.done("there", layers=list(CONTENTS))
    with Store.open(path) as store, Store.open(path.with_name("other")) as other:
        store.repair(other)
        said.done("repair")
        store.push_layer(LAYERS["wide"])
        said.done("push wide")


def prepare_heal(path: Path) -> None:
    """Two stores with all layers; the frames of one are damaged here and there. ``other`` lacks one layer."""
    path = Path(path)
    use_small_batches()
    for one, names in ((path, list(LAYERS)), (path.with_name("other"), ["base", "app", "plain"])):
        with Store.create(one, frame_size=FRAME_SIZE, pack_size_max=PACK_SIZE_MAX) as store:
            for name in names:
                store.push_layer(LAYERS[name])
    with Store.open(path) as store, store._opened.index.read() as transaction:
        records = [record for _, record in transaction.frames.items()][::2]
    for record in records:
        with (path / "packs" / f"{record.place.pack:08d}.pack").open("r+b") as file:
            file.seek(record.place.offset + record.place.size - 100)
            file.write(b"damaged!")


def churn(path: Path, acknowledgements: Path, seed: int) -> None:
    """Push, delete and collect without end, until killed."""
    use_small_batches()
    chooser = random.Random(seed)
    said = Acknowledgements(acknowledgements)
    with Store.open(path) as store:
        images = {str(digest): [str(layer.diff_id) for layer in store.images[digest].layers] for digest in store.images}
        tags = {tag: str(digest) for tag, digest in store.tags.items()}
        said.done("open", layers=[layer for its in images.values() for layer in its], images=images, tags=tags)
        for turn in range(10_000):
            action = chooser.choice(("push", "push", "delete", "collect"))
            if action == "push":
                names = chooser.sample(sorted(LAYERS), chooser.randrange(1, 4))
                layers = [NAMES[name] for name in names]
                for name in names:
                    store.push_layer(LAYERS[name])
                    said.done(f"push {name}", layers=[NAMES[name]])
                tag = f"churn:{chooser.randrange(6)}"
                said.begin("image", tags=[tag], images=[])
                image = str(store.create_image(layers, tag=tag, author=f"{seed} {turn}").digest)
                images[image] = layers
                tags[tag] = image
                said.done("image", images={image: layers}, tags={tag: image})
            elif action == "delete" and images:
                image = chooser.choice(sorted(images))
                its_tags = [tag for tag, digest in tags.items() if digest == image]
                rest = {layer for other, layers in images.items() if other != image for layer in layers}
                said.begin("delete", images=[image], tags=its_tags, layers=set(images[image]) - rest)
                store.delete_image(image, ttl=0)
                del images[image]
                for tag in its_tags:
                    del tags[tag]
                said.done("delete", gone_images=[image], gone_tags=its_tags)
            elif action == "collect":
                store.collect_garbage()
