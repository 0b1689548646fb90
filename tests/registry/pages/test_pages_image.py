"""The page of an image: documents, layers, sharing, and what deleting it would free."""

from pages_html import Document
from pages_samples import HOSTILE, SIGNATURE, Samples
from pages_server import RunningServer

from layerstore import Digest, Store


def page_of(server: RunningServer, repository: str, digest: Digest) -> Document:
    return Document(server.page(f"/images/{repository}@{digest}"))


def test_an_image_shows_what_its_documents_say(samples: Samples, server: RunningServer) -> None:
    facts = page_of(server, "team/shop", samples.shop).facts()
    with Store.open(samples.path, read_only=True) as store:
        image = store.images[samples.shop]
        assert facts["Image ID"] == image.config_digest
    assert facts["Kind"] == "image"
    assert facts["Digest"] == samples.shop
    assert facts["Tags"] == "1.0 latest"
    assert facts["Platform"] == "linux/amd64"
    assert facts["Built"] == "2026-03-04 05:06"
    assert facts["Entrypoint"] == "/bin/shop"
    assert facts["User"] == "1000"
    assert facts["Working directory"] == "/shop"
    assert facts["Ports"] == "8080/tcp"


def test_environment_and_labels_are_tables(samples: Samples, server: RunningServer) -> None:
    document = page_of(server, "team/shop", samples.shop)
    assert document.rows("Variables") == [["PATH", "/bin"], ["NAME", HOSTILE]]
    assert document.rows("What its makers say") == [["org.example.title", HOSTILE]]


def test_layers_are_lined_up_with_the_steps_that_made_them(samples: Samples, server: RunningServer) -> None:
    rows = page_of(server, "team/shop", samples.shop).rows("The steps that made the image")
    assert [(row[0], row[1]) for row in rows] == [
        ("1", "base files"),
        ("none", f"ENV NAME={HOSTILE}"),
        ("2", "COPY shop /shop the shop"),
    ]
    with Store.open(samples.path, read_only=True) as store:
        image = store.images[samples.shop]
        for row, layer, blob in zip((rows[0], rows[2]), image.layers, image.manifest.layers, strict=True):
            assert row[4] == layer.diff_id.short
            assert row[5].startswith(blob.digest.short)
            assert row[6] in ("recipe", "queued", "raw")
    assert rows[0][7] == "4 images" and rows[2][7] == "no other"


def test_it_tells_what_it_shares_with_which_other_images(samples: Samples, server: RunningServer) -> None:
    document = page_of(server, "team/site", samples.site)
    rows = document.rows("Whole layers, uncompressed")
    assert {row[0]: row[2] for row in rows} == {
        "mirror/shop:1.0, team/shop:1.0, team/shop:latest": "1",
        "private/plans:1.0": "1",
        "base:1": "1",
        "odd:1": "1",
    }
    with Store.open(samples.path, read_only=True) as store:
        base = store.images[samples.site].layers[0].size
    sizes = [one.attributes["value"] for one in document.all("data") if one.inside("table")]
    assert sizes.count(str(base)) >= 4


def test_deleting_frees_what_only_this_image_needs(samples: Samples, server: RunningServer) -> None:
    document = page_of(server, "team/site", samples.site)
    with Store.open(samples.path, read_only=True) as store:
        usage = store.image_usage(store.images[samples.site])
    values = {
        " ".join(one.parent.parent.children[0].text.split()): int(one.attributes["value"])
        for one in document.all("data")
        if one.parent is not None and one.parent.tag == "dd" and one.parent.parent is not None
    }
    assert 0 < usage.exclusive_bytes < usage.stored_bytes
    assert values["Deleting it frees about"] == usage.exclusive_bytes
    assert values["Only it needs"] == usage.exclusive_bytes
    assert values["Others need as well"] == usage.shared_bytes
    assert values["It takes on disk"] == usage.stored_bytes


def test_deleting_frees_nothing_while_another_repository_has_the_image(samples: Samples, server: RunningServer) -> None:
    document = page_of(server, "team/shop", samples.shop)
    assert document.facts()["Deleting it frees about"] == "0 B"
    assert document.links()["mirror/shop"] == f"/images/mirror/shop@{samples.shop}"


def test_an_index_shows_the_images_of_its_platforms(samples: Samples, server: RunningServer) -> None:
    document = page_of(server, "base", samples.index)
    rows = document.rows("The images of this index")
    assert [(row[0], row[1]) for row in rows] == [
        (f"linux/{name}", digest.short) for name, digest in samples.parts.items()
    ]
    part = Document(server.page(document.links()[samples.parts["arm64"].short]))
    assert part.facts()["Part of"] == samples.index.short
    assert "goes when that is deleted" in part.all("main")[0].text
    assert "No other image has any of its layers" in part.all("main")[0].text


def test_an_artifact_and_its_subject_lead_to_each_other(samples: Samples, server: RunningServer) -> None:
    document = page_of(server, "team/shop", samples.shop)
    (row,) = document.rows("1 manifest that names this one as its subject")
    assert row[:2] == [SIGNATURE, samples.signature.short]
    assert row[3] == "org.example.signer release <team>"
    artifact = Document(server.page(document.links()[samples.signature.short]))
    assert artifact.facts()["Kind"] == f"artifact of type {SIGNATURE}"
    assert artifact.links()[samples.shop.short] == f"/images/team/shop@{samples.shop}"
    (blob,) = artifact.rows("What the artifact holds")
    assert blob[:2] == [f"{HOSTILE}.sig", "text/plain"]
    assert "docker pull" not in artifact.all("main")[0].text


def test_commands_pull_by_tag_or_by_digest(samples: Samples, server: RunningServer) -> None:
    host = f"127.0.0.1:{server.port}"
    tagged = page_of(server, "team/site", samples.site).facts()
    assert tagged["Docker"] == f"docker pull {host}/team/site:1.0"
    assert tagged["Podman"] == f"podman pull --tls-verify=false {host}/team/site:1.0"
    assert tagged["Skopeo"] == f"skopeo copy --src-tls-verify=false docker://{host}/team/site:1.0 oci:site"
    assert tagged["layerstore"].endswith(f"docker://{host}/team/site:1.0")
    part = samples.parts["arm64"]
    assert page_of(server, "base", part).facts()["Docker"] == f"docker pull {host}/base@{part}"


def test_the_manifest_is_there_as_a_document(samples: Samples, server: RunningServer) -> None:
    (text,) = [one.text for one in page_of(server, "team/site", samples.site).all("pre") if "config" in one.text]
    assert text.startswith('{\n  "schemaVersion": 2,')


def test_a_digest_that_the_repository_does_not_have_is_not_found(samples: Samples, server: RunningServer) -> None:
    with Store.open(samples.path, read_only=True) as store:
        config = store.images[samples.shop].config_digest
        layer = store.images[samples.shop].layers[0].diff_id
    for path in (
        f"team/site@{samples.shop}",
        f"team/shop@{config}",
        f"team/shop@{layer}",
        f"team/shop@{Digest.of(b'')}",
        "team/shop@sha256:1234",
        "team/shop@%3Cb%3E",
        f"base@{samples.parts['amd64']}/files/more",
    ):
        answer = server.get(f"/images/{path}")
        assert answer.status == 404, path
        assert "<b>" not in answer.text
