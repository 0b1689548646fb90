"""The client against docker-registry, which knows neither referrers nor their header."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from client_samples import Images, sample_images
from client_servers import PASSWORD, PASSWORD_LINE, USER, docker_registry, make_certificate
from samples import noise

from layerstore import ConnectionOptions, Credentials, Digest, OCILayout, RemoteRepository, Store, copy
from layerstore.errors import (
    AuthenticationError,
    ImageNotFoundError,
    InvalidOptionError,
    InvalidReferenceError,
    RegistryError,
)

QUICK = ConnectionOptions(tries=2, back_off_seconds=0.01)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with docker_registry(tmp_path_factory.mktemp("registry")) as host:
        yield host


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Images:
    return sample_images(tmp_path_factory.mktemp("images") / "shop")


def tree(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_what_was_pushed_is_pulled_byte_for_byte(registry: str, images: Images, tmp_path: Path) -> None:
    repository = RemoteRepository(f"{registry}/round/trip", options=QUICK)
    pushed = copy(OCILayout(images.path), repository)
    assert [image.name for image in pushed.images] == ["1.0", "multi"]
    again = copy(OCILayout(images.path), RemoteRepository(f"{registry}/round/trip", options=QUICK))
    assert (again.blobs_copied, again.blobs_present) == (0, pushed.blobs_copied)
    pulled = copy(repository, OCILayout(tmp_path / "back"))
    assert {image.name for image in pulled.images} == {"1.0", "multi"}
    before, after = tree(images.path), tree(tmp_path / "back")
    assert {name: data for name, data in after.items() if name.startswith("blobs/")} == {
        name: data for name, data in before.items() if name.startswith("blobs/")
    }


def test_a_store_goes_up_and_comes_down(registry: str, store: Store, tmp_path: Path) -> None:
    images = Images(tmp_path / "shop")
    digest = images.add(images.image({"a": noise(200_000, 5)}, {"b": b"b"}), "1.0")
    copy(OCILayout(images.path), store)
    copy(store, RemoteRepository(f"{registry}/stores", options=QUICK), ["shop:1.0"])
    with Store.create(tmp_path / "other") as other:
        report = copy(RemoteRepository(f"{registry}/stores:1.0", options=QUICK), other)
        assert [image.name for image in report.images] == [f"{registry}/stores:1.0"]
        assert other.tags[f"{registry}/stores:1.0"] == digest
        assert all(other.has_blob(layer["digest"]) for layer in images.layers_of(digest))


def test_names_of_a_repository(registry: str, images: Images, tmp_path: Path) -> None:
    name = f"{registry}/names"
    copy(OCILayout(images.path), RemoteRepository(f"{name}:stable", options=QUICK), ["1.0"])
    digest = images.roots[0]["digest"]
    for reference in ("stable", digest, f"{name}:stable", f"{name}@{digest}", f"{name}:stable@{digest}"):
        assert (
            copy(RemoteRepository(name, options=QUICK), OCILayout(tmp_path / digest[7:12]), [reference])
            .images[0]
            .digest
            == digest
        )
    assert RemoteRepository(f"{name}@{digest}", options=QUICK).roots()[0].name is None
    for reference in ("gone", f"{registry}/other:stable", "sha256:" + "0" * 64):
        with pytest.raises(ImageNotFoundError):
            copy(RemoteRepository(name, options=QUICK), OCILayout(tmp_path / "none"), [reference])
    with pytest.raises(ImageNotFoundError):
        RemoteRepository(f"{registry}/nowhere", options=QUICK).roots()
    with pytest.raises(InvalidReferenceError, match="cannot all be"):
        copy(OCILayout(images.path), RemoteRepository(f"{name}:one", options=QUICK))
    with pytest.raises(InvalidReferenceError, match="give a tag"):
        copy(OCILayout(images.path), RemoteRepository(name, options=QUICK), ["1.0"], name="elsewhere/shop:1.0")


def test_one_platform_of_an_index(registry: str, images: Images, store: Store) -> None:
    name = f"{registry}/platforms:multi"
    copy(OCILayout(images.path), RemoteRepository(name, options=QUICK), ["multi"])
    child = json.loads(images.read(images.roots[1]["digest"]))["manifests"][1]["digest"]
    report = copy(RemoteRepository(name, options=QUICK), store, platform="linux/arm64")
    assert (report.images[0].digest, store.tags[name]) == (child, child)
    with pytest.raises(ImageNotFoundError, match="linux/amd64, linux/arm64"):
        copy(RemoteRepository(name, options=QUICK), store, platform="linux/s390x")


def test_referrers_go_along_by_the_tag_schema(registry: str, tmp_path: Path) -> None:
    images = Images(tmp_path / "signed")
    image = images.image({"a": b"a"})
    images.add(image, "1.0")
    signature = images.signature(image)
    images.add(signature)
    images.add(images.signature(signature, b"countersigned"))
    copy(OCILayout(images.path), RemoteRepository(f"{registry}/signed", options=QUICK), ["1.0"], referrers=True)
    tag = image["digest"].replace(":", "-")
    listed = RemoteRepository(f"{registry}/signed:{tag}", options=QUICK)
    index = json.loads(listed.read_document(listed.roots()[0].descriptor))
    assert [(one["digest"], one["artifactType"]) for one in index["manifests"]] == [
        (signature["digest"], "application/vnd.example.signature")
    ]
    source = RemoteRepository(f"{registry}/signed:1.0", options=QUICK)
    report = copy(source, OCILayout(tmp_path / "back"), referrers=True)
    assert {one.digest for one in report.images} == {one["digest"] for one in images.roots}


def test_signatures_by_their_tag_go_along(registry: str, tmp_path: Path) -> None:
    images = Images(tmp_path / "cosign")
    image = images.image({"a": b"a"})
    images.add(image, "1.0")
    tag = f"{image['digest'].replace(':', '-')}.sig"
    images.add(images.image({"signature": b"s"}), tag)
    repository = RemoteRepository(f"{registry}/cosign", options=QUICK)
    copy(OCILayout(images.path), repository)
    report = copy(
        RemoteRepository(f"{registry}/cosign", options=QUICK), OCILayout(tmp_path / "b"), ["1.0"], referrers=True
    )
    assert [one.name for one in report.images] == ["1.0", tag]


def test_blobs_of_another_repository_are_mounted(registry: str, images: Images, store: Store) -> None:
    first = RemoteRepository(f"{registry}/mount/first", options=QUICK)
    copy(OCILayout(images.path), first)
    report = copy(first, RemoteRepository(f"{registry}/mount/second", options=QUICK), ["1.0"])
    assert (report.blobs_copied, report.blobs_present) == (0, 2)
    copy(RemoteRepository(f"{registry}/mount/first:1.0", options=QUICK), store)
    report = copy(store, RemoteRepository(f"{registry}/mount/third:1.0", options=QUICK))
    assert (report.blobs_copied, report.blobs_present) == (0, 2)


def test_parts_and_whole_blobs(registry: str, images: Images, tmp_path: Path) -> None:
    options = ConnectionOptions(part_size=1 << 20)
    copy(OCILayout(images.path), RemoteRepository(f"{registry}/parts", options=options), ["1.0"])
    copy(RemoteRepository(f"{registry}/parts:1.0"), OCILayout(tmp_path / "back"))
    for layer in images.layers_of(images.roots[0]["digest"]):
        assert tree(tmp_path / "back")[f"blobs/sha256/{layer['digest'][7:]}"] == images.read(layer["digest"])


def test_many_tags_are_listed(registry: str, tmp_path: Path) -> None:
    images = Images(tmp_path / "tags")
    image = images.image({"a": b"a"})
    for number in range(12):
        images.add(image, f"v{number}")
    repository = RemoteRepository(f"{registry}/tags", options=QUICK)
    copy(OCILayout(images.path), repository)
    assert {root.name for root in repository.roots()} == {f"v{number}" for number in range(12)}


@pytest.mark.parametrize("secured", [False, True])
def test_credentials(tmp_path: Path, images: Images, secured: bool) -> None:
    """Basic authentication, over loopback HTTP and over TLS with a certificate of one's own."""
    certificate = make_certificate(tmp_path) if secured else None
    with docker_registry(tmp_path / "r", users=PASSWORD_LINE, certificate=certificate) as host:
        name = f"{host}/shop:1.0"

        def options(credentials: Credentials | None, **more: object) -> ConnectionOptions:
            return ConnectionOptions(
                credentials=lambda domain: credentials if domain == host else None,
                ca_file=None if certificate is None else certificate[0],
                tries=2,
                back_off_seconds=0.01,
            )

        good = options(Credentials(USER, PASSWORD))
        copy(OCILayout(images.path), RemoteRepository(name, options=good), ["1.0"])
        assert RemoteRepository(name, options=good).roots()[0].descriptor.digest == images.roots[0]["digest"]
        with pytest.raises(AuthenticationError, match=f"{host} refuses the credentials of '{USER}' for the "):
            RemoteRepository(name, options=options(Credentials(USER, "wrong"))).roots()
        with pytest.raises(AuthenticationError, match=f"{host} wants to know who asks for the pull of shop:1.0"):
            RemoteRepository(name, options=options(None)).roots()
        if secured:
            with pytest.raises(
                RegistryError, match=r"is not trusted: self-signed certificate; its authority has to be trusted$"
            ):
                RemoteRepository(name, options=QUICK).roots()
            with pytest.raises(InvalidOptionError, match="PEM"):
                RemoteRepository(name, options=ConnectionOptions(ca_file=tmp_path / "none")).roots()
            lax = ConnectionOptions(insecure=True, credentials=lambda _: Credentials(USER, PASSWORD))
            assert RemoteRepository(name, options=lax).roots()


@pytest.mark.skipif(shutil.which("skopeo") is None, reason="skopeo is not installed")
def test_skopeo_reads_what_we_push_and_we_what_it_pushes(registry: str, images: Images, tmp_path: Path) -> None:
    copy(OCILayout(images.path), RemoteRepository(f"{registry}/ours", options=QUICK))
    for name in ("1.0", "multi"):
        target = tmp_path / name
        subprocess.run(
            [
                "skopeo",
                "copy",
                "--all",
                "--src-tls-verify=false",
                f"docker://{registry}/ours:{name}",
                f"oci:{target}:{name}",
            ],
            check=True,
            capture_output=True,
        )
        assert OCILayout(target).roots()[0].descriptor.digest in {root["digest"] for root in images.roots}
        command = ["skopeo", "copy", "--all", "--dest-tls-verify=false", f"oci:{target}:{name}"]
        subprocess.run([*command, f"docker://{registry}/theirs:{name}"], check=True, capture_output=True)
    report = copy(RemoteRepository(f"{registry}/theirs", options=QUICK), OCILayout(tmp_path / "back"))
    assert {image.digest for image in report.images} == {Digest(root["digest"]) for root in images.roots}


@pytest.mark.parametrize(
    ("typed", "domain", "path", "tag"),
    [
        ("alpine", "docker.io", "library/alpine", None),
        ("docker://alpine:3", "docker.io", "library/alpine", "3"),
        ("index.docker.io/team/shop:1.0", "docker.io", "team/shop", "1.0"),
        ("registry.example.com:5000/shop", "registry.example.com:5000", "shop", None),
        ("localhost/shop:1.0", "localhost", "shop", "1.0"),
    ],
)
def test_where_a_name_is(typed: str, domain: str, path: str, tag: str | None) -> None:
    repository = RemoteRepository(typed)
    assert (repository.domain, repository.path, repository.tag) == (domain, path, tag)


@pytest.mark.parametrize("typed", ["", "Shop", "a b", "http://localhost/shop", "shop:", "../etc", "shop@sha256:0"])
def test_what_is_no_name(typed: str) -> None:
    with pytest.raises(InvalidReferenceError):
        RemoteRepository(typed)
