import json

import pytest

from layerstore.errors import StoreNotFoundError, UnsupportedFormatError
from layerstore.storage.layout import FORMAT_VERSION
from layerstore.store import Store


def test_a_store_of_this_version_is_current(tmp_path):
    Store.create(tmp_path / "s").close()
    report = Store.upgrade(tmp_path / "s")
    assert report.already_current
    assert (report.from_version, report.to_version) == (FORMAT_VERSION, FORMAT_VERSION)


def test_a_newer_format_is_refused(tmp_path):
    Store.create(tmp_path / "s").close()
    path = tmp_path / "s" / "layerstore.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"format_version": FORMAT_VERSION + 1}))
    with pytest.raises(UnsupportedFormatError, match="newer"):
        Store.upgrade(tmp_path / "s")


def test_no_store_is_not_found(tmp_path):
    with pytest.raises(StoreNotFoundError):
        Store.upgrade(tmp_path / "absent")
