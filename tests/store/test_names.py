"""Names of layers and images: what finds them, what can be a tag, and how the mappings answer for what is no name."""

import pytest
from samples import make_tar, noise

from layerstore import Image, Store
from layerstore.errors import ImageNotFoundError, InvalidDigestError, InvalidReferenceError, LayerstoreError

A = make_tar({"a": noise(20_000, 1)})
NO_NAMES = ["garbage", "Bad Name!!", "NOPE:1", "", "sha256:12", "\udcff", "x" * 2000, None, 5, b"shop:1.0", ("shop",)]


def image_of(store: Store, **options: str) -> Image:
    return store.create_image([store.push_layer(A).layer], **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", NO_NAMES)
def test_what_is_no_name_is_not_there(store: Store, name: object) -> None:
    image_of(store, tag="shop:1.0")
    for mapping in (store.layers, store.images, store.tags, store.trash):
        assert name not in mapping
        assert mapping.get(name) is None
        assert mapping.get(name, 7) == 7  # type: ignore[call-overload]
        if isinstance(name, str):
            with pytest.raises(LayerstoreError):
                mapping[name]


def test_what_is_there_is_found(store: Store) -> None:
    image = image_of(store, tag="shop")
    for name in ("shop", "shop:latest", image.digest, image.digest.short, f"other@{image.digest}"):
        assert name in store.images
        assert store.images.get(name) == image
    assert "shop" in store.tags
    assert image.layers[0].diff_id in store.layers
    store.delete_image(image)
    assert image.digest in store.trash
    assert "shop" not in store.images


@pytest.mark.parametrize("tag", ["sha256", "sha256:1.0", "sha512:latest", "blake3:x"])
def test_a_tag_that_reads_as_a_digest_is_refused(store: Store, tag: str) -> None:
    image = image_of(store)
    with pytest.raises(InvalidReferenceError, match="digest"):
        store.create_image(image.layers, tag=tag)
    with pytest.raises(InvalidReferenceError, match="digest"):
        store.tags[tag] = image.digest
    with pytest.raises(InvalidReferenceError, match="digest"):
        store.tags.check(tag)
    assert dict(store.tags) == {}
    store.tags[f"localhost:5000/{tag}"] = image.digest
    assert store.images[f"localhost:5000/{tag}"] == image


def test_a_tag_of_hex_digits_is_found_before_a_digest_that_begins_so(store: Store) -> None:
    one = image_of(store, author="one")
    two = image_of(store, author="two")
    assert store.images[two.digest.short] == two
    store.tags[two.digest.short] = one.digest
    assert store.images[two.digest.short] == one
    assert store.images[two.digest.encoded[:13]] == two
    assert store.images[two.digest] == two


def test_an_image_that_is_made_again_gets_the_tag_that_is_asked_for_alone(store: Store) -> None:
    image = image_of(store, tag="shop:1.0")
    store.tags["shop:stable"] = image.digest
    for tag, tags in (("shop:2.0", ["shop:2.0"]), (None, [])):
        store.delete_image(image)
        assert store.create_image(image_layers(store), tag=tag) == image
        assert image.tags == tags
        assert sorted(store.tags) == tags
        assert len(store.trash) == 0
    store.tags["shop:3.0"] = image.digest
    store.delete_image(image)
    assert store.undelete_image("shop:3.0").tags == ["shop:3.0"]
    store.close()
    Store.rebuild_index(store.path)
    with Store.open(store.path) as again:
        assert sorted(again.tags) == ["shop:3.0"]


def image_layers(store: Store) -> list[str]:
    return list(store.layers)


def test_only_asking_is_lenient(store: Store) -> None:
    with pytest.raises(InvalidDigestError):
        store.layers["garbage"]
    with pytest.raises(InvalidReferenceError):
        store.images["Bad Name!!"]
    with pytest.raises(ImageNotFoundError):
        store.images["shop"]
