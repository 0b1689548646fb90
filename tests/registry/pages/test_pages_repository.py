"""The page of a repository: tags, and images without one."""

from pathlib import Path

from pages_html import Document
from pages_samples import SIGNATURE, Samples, layer, put
from pages_server import RunningServer, serving

from layerstore import Store


def test_tags_come_first_and_images_without_one_at_the_end(samples: Samples, server: RunningServer) -> None:
    document = Document(server.page("/repositories/team/shop"))
    rows = document.rows("2 tags and 1 image without one")
    assert [row[:4] for row in rows] == [
        ["1.0", samples.shop.short, "image", "linux/amd64"],
        ["latest", samples.shop.short, "image", "linux/amd64"],
        ["no tag", samples.signature.short, "artifact", SIGNATURE],
    ]
    assert document.links()["1.0"] == f"/images/team/shop@{samples.shop}"
    assert document.facts()["Images"] == "2"


def test_an_index_shows_its_platforms(samples: Samples, server: RunningServer) -> None:
    (row,) = Document(server.page("/repositories/base")).rows("1 tag")
    assert row[:4] == ["1", samples.index.short, "index", "linux/amd64, linux/arm64"]


def test_the_form_finds_a_part_of_a_tag(server: RunningServer) -> None:
    document = Document(server.page("/repositories/team/shop?q=LAT"))
    assert [row[0] for row in document.rows("1 tag with “LAT”")] == ["latest"]
    assert "No tag has “zzz” in its name" in server.page("/repositories/team/shop?q=zzz")


def test_commands_name_the_registry_as_it_was_reached(server: RunningServer) -> None:
    text = server.page("/repositories/team/shop", host="registry.example.com:8443")
    assert "docker pull registry.example.com:8443/team/shop:TAG" in text
    assert "layerstore import --plain-http docker://registry.example.com:8443/team/shop:TAG" in text
    assert "docker pull REGISTRY/team/shop:TAG" in server.page("/repositories/team/shop", host="a;rm%20-rf")


def test_the_newest_tags_come_first_a_hundred_at_a_time(tmp_path: Path) -> None:
    with Store.create(tmp_path / "store") as store:
        old = put(store, [layer("old", 100)])
        new = put(store, [layer("new", 100)])
        for number in range(150):
            store.tags[f"many:{number:03d}"] = old
        store.tags["many:z"] = new
    with serving(tmp_path / "store") as server:
        document = Document(server.page("/repositories/many"))
        rows = document.rows("151 tags, the newest first")
        assert [row[0] for row in rows[:2]] == ["z", "000"] and len(rows) == 100
        assert len(Document(server.page(document.links()["Next"])).rows("151 tags")) == 51


def test_what_is_no_repository_is_not_found(server: RunningServer) -> None:
    for name in ("no/such", "TEAM", "..", "a" * 300, "%3Cscript%3E", "team", "", "team/shop/"):
        answer = server.get(f"/repositories/{name}")
        assert answer.status == 404, name
        assert "Go to the overview" in answer.text and "<script" not in answer.text
        Document(answer.text)
