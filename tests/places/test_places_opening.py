"""Places as they are typed."""

from pathlib import Path

import pytest
from places_samples import sample_layout, tar_of_folder

from layerstore import Store
from layerstore.errors import InvalidInputError, InvalidOptionError, StoreNotFoundError
from layerstore.places.archive import OCIArchive
from layerstore.places.copying import copy
from layerstore.places.docker_archive import DockerArchive
from layerstore.places.layout import OCILayout
from layerstore.places.opening import open_place
from layerstore.places.store_place import StorePlace


@pytest.mark.parametrize(
    ("text", "kind", "path", "name"),
    [
        ("oci:some/folder", OCILayout, "some/folder", None),
        ("oci:some/folder:1.0", OCILayout, "some/folder", "1.0"),
        ("oci:some/folder:quay.io/shop:1.0", OCILayout, "some/folder", "quay.io/shop:1.0"),
        ("oci-archive:a.tar:1.0", OCIArchive, "a.tar", "1.0"),
        ("docker-archive:a.tar:shop:1.0", DockerArchive, "a.tar", "shop:1.0"),
        ("docker-archive:a.tar:", DockerArchive, "a.tar", None),
        ("new.tar", DockerArchive, "new.tar", None),
        ("new", OCILayout, "new", None),
        ("new:1.0", OCILayout, "new:1.0", None),
    ],
)
def test_what_is_typed(text: str, kind: type, path: str, name: str | None) -> None:
    place, found = open_place(text)
    assert type(place) is kind
    assert not isinstance(place, StorePlace)
    assert (place.path, found) == (Path(path), name)


@pytest.mark.parametrize("text", ["", "oci:", "oci::1.0"])
def test_what_means_nothing(text: str) -> None:
    with pytest.raises(InvalidOptionError):
        open_place(text)


def test_the_format_says_it_instead(tmp_path: Path) -> None:
    assert isinstance(open_place(str(tmp_path / "a.tar"), "oci-archive")[0], OCIArchive)
    assert isinstance(open_place("oci:a", "oci")[0], OCILayout)
    with pytest.raises(InvalidOptionError, match="no format"):
        open_place("a", "zip")
    with pytest.raises(InvalidOptionError, match="not of the format"):
        open_place("oci:a", "oci-archive")


def test_what_is_there_tells_its_kind(tmp_path: Path, store: Store) -> None:
    maker = sample_layout(tmp_path / "shop")
    assert isinstance(open_place(str(maker.path))[0], OCILayout)
    copy(OCILayout(maker.path), DockerArchive(tmp_path / "docker"))
    assert isinstance(open_place(str(tmp_path / "docker"))[0], DockerArchive)
    assert isinstance(open_place(str(tar_of_folder(maker.path, tmp_path / "oci.tar")))[0], OCIArchive)
    (tmp_path / "text").write_bytes(b"text")
    with pytest.raises(InvalidInputError, match="no valid tar"):
        open_place(str(tmp_path / "text"))
    store.close()
    for text in (str(tmp_path / "store"), f"store:{tmp_path}/store:shop:1.0"):
        place, _ = open_place(text)
        assert isinstance(place, StorePlace)
        place.store.close()
    with pytest.raises(StoreNotFoundError):
        open_place(f"store:{tmp_path}/nowhere")
