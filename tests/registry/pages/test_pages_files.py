"""The files of an image: directories, previews, downloads."""

import gzip
import time
from pathlib import Path
from urllib.parse import quote

from pages_html import Document
from pages_samples import HOSTILE, TURNED, Samples, put
from pages_server import RunningServer, serving
from samples import END, header

from layerstore import Store


def files_page(server: RunningServer, samples: Samples, path: str) -> Document:
    return Document(server.page(f"/images/odd@{samples.odd}/files?path={path}"))


def test_a_directory_shows_what_all_layers_have_together(samples: Samples, server: RunningServer) -> None:
    rows = files_page(server, samples, "/").rows("4 entries")
    assert [(row[0], row[1], row[5]) for row in rows] == [
        ("base/", "drwxr-xr-x", "1"),
        ("empty/", "drwxrwxrwt", "2"),
        ("etc/", "drwxr-xr-x", "1"),
        ("odd/", "drwxr-xr-x", "2"),
    ]
    root = Document(server.page(f"/images/odd@{samples.odd}/files"))
    assert root.rows("4 entries") == rows


def test_names_that_hide_something_are_shown_as_they_are(samples: Samples, server: RunningServer) -> None:
    document = files_page(server, samples, "/odd")
    names = [row[0] for row in document.rows("11 entries")]
    assert "evil\\u202egpj.sh" in names
    assert "a\\nline" in names
    assert "\\xff\\xfe" in names
    assert f"{HOSTILE.partition('/')[0]}/" in names
    assert "broken → /nowhere" in names
    devices = [row for row in document.rows("11 entries") if row[0] == "null"]
    assert devices[0][1].startswith("crw") and devices[0][3] == "1, 3"


def test_names_that_are_no_text_lead_to_their_files(samples: Samples, server: RunningServer) -> None:
    links = files_page(server, samples, "/odd").links()
    assert "not UTF-8" in server.page(links["\\xff\\xfe"])
    assert "#!/bin/sh" in server.page(links["evil\\u202egpj.sh"])
    assert Document(server.page(links["a\\nline"])).facts()["Size"] == "0 B"


def test_a_text_is_shown_and_nothing_in_it_works(samples: Samples, server: RunningServer) -> None:
    text = server.page(f"/images/odd@{samples.odd}/files?path=/odd/{quote(HOSTILE)}")
    assert "&lt;img src=x onerror=alert(2)&gt;" in text
    assert "<img" not in text
    turned = files_page(server, samples, "/odd/turned.txt").all("pre")[0].text
    assert turned == "aevil\\u202egpj.shb\\x1b[31mred\n"


def test_a_long_text_is_shown_as_far_as_256_kib(samples: Samples, server: RunningServer) -> None:
    document = files_page(server, samples, "/odd/long.txt")
    assert len(document.all("pre")[0].text.encode()) == 256 << 10
    assert "the whole file has 390.6 KiB" in document.all("main")[0].text


def test_what_is_no_text_is_not_shown(samples: Samples, server: RunningServer) -> None:
    document = files_page(server, samples, "/odd/picture.png")
    assert not document.all("pre")
    assert "This is no text" in document.all("main")[0].text


def test_links_are_followed_inside_of_the_image(samples: Samples, server: RunningServer) -> None:
    document = files_page(server, samples, "/odd/link")
    assert "/odd/link leads here." in document.all("main")[0].text
    assert document.links()["Save this file"].endswith("download?path=/odd/turned.txt")
    assert files_page(server, samples, "/odd/out").rows("1 entry")[0][0] == "name"
    broken = files_page(server, samples, "/odd/broken")
    assert broken.facts()["Target"] == "/nowhere"
    assert "This link leads to nothing" in broken.all("main")[0].text


def test_special_files_and_empty_directories_say_what_they_are(samples: Samples, server: RunningServer) -> None:
    assert "nothing to read in a character device" in files_page(server, samples, "/odd/null").all("main")[0].text
    assert "This directory is empty" in files_page(server, samples, "/empty").all("main")[0].text


def test_a_file_can_be_saved_and_not_run(samples: Samples, server: RunningServer) -> None:
    answer = server.get(f"/images/odd@{samples.odd}/download?path=/odd/{quote(HOSTILE)}")
    assert answer.status == 200
    assert answer.body == b"<img src=x onerror=alert(2)>\n"
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-length"] == str(len(answer.body))
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"].startswith("sandbox; default-src 'none'")
    assert answer.headers["content-disposition"] == "attachment; filename=\"script_\"; filename*=UTF-8''script%3E"


def test_the_name_of_a_saved_file_cannot_break_its_header(samples: Samples, server: RunningServer) -> None:
    for name in (TURNED, "a\nline"):
        answer = server.get(f"/images/odd@{samples.odd}/download?path=/odd/{quote(name)}")
        assert answer.status == 200
        disposition = answer.headers["content-disposition"]
        assert disposition.isascii() and disposition.isprintable()
    assert server.get(f"/images/odd@{samples.odd}/download?path=/odd/%FF%FE").body == b"not UTF-8\n"


def test_what_cannot_be_saved_or_shown_is_not_found(samples: Samples, server: RunningServer) -> None:
    odd, shop = f"/images/odd@{samples.odd}", "/images/team/shop"
    for path in (
        f"{odd}/files?path=/no/such",
        f"{odd}/files?path=/odd/turned.txt/below",
        f"{odd}/files?path=%00",
        f"{odd}/download?path=/odd",
        f"{odd}/download?path=/odd/null",
        f"{odd}/download?path=/odd/broken",
        f"{odd}/download",
        f"{shop}@{samples.odd}/files",
        f"{shop}@{samples.signature}/files",
        f"/images/base@{samples.index}/files",
    ):
        answer = server.get(path)
        assert answer.status == 404, path
        assert "<h1>" in answer.text
    assert "No such file or directory: /no/such" in server.get(f"{odd}/files?path=/no/such").text


def test_a_large_directory_comes_in_pages(tmp_path: Path) -> None:
    tar = b"".join(header(b"many/%04d" % number) for number in range(6000)) + END
    with Store.create(tmp_path / "store") as store:
        digest = put(store, [gzip.compress(tar, 1, mtime=0)], "many:1")
    with serving(tmp_path / "store") as server:
        document = Document(server.page(f"/images/many@{digest}/files?path=/many"))
        rows = document.rows("6,000 entries")
        assert len(rows) == 500 and rows[0][0] == "0000"
        following = Document(server.page(document.links()["Next"]))
        assert following.rows("6,000 entries")[0][0] == "0500"
        last = Document(server.page(f"/images/many@{digest}/files?path=/many&page=9999"))
        assert last.rows("6,000 entries")[-1][0] == "5999"


def test_views_are_closed_after_use(samples: Samples, server: RunningServer) -> None:
    """What a view holds would keep layers from collection."""
    for path in ("files?path=/odd", "files?path=/odd/long.txt", "files?path=/no", "download?path=/odd/long.txt"):
        server.get(f"/images/odd@{samples.odd}/{path}")
    deadline = time.monotonic() + 20
    with Store.open(samples.path) as store:
        layer = store.images[samples.odd].layers[1].diff_id
        while "it is being read" in store.why(layer).reasons:
            assert time.monotonic() < deadline
            time.sleep(0.05)
