"""OCI layouts in a tar: read where they lie, written with the same bytes each time."""

import errno
import gzip
import io
import json
import os
import shutil
import tarfile
from pathlib import Path

import pytest
from places_samples import LayoutMaker, add_file, layer_tar, noise, sample_layout, tar_of_folder, tree

from layerstore._zstd import zstd
from layerstore.errors import (
    BlobNotFoundError,
    ConflictError,
    DigestMismatchError,
    InvalidInputError,
    LayerstoreError,
    NoSpaceError,
)
from layerstore.places.archive import OCIArchive
from layerstore.places.copying import copy
from layerstore.places.layout import OCILayout


def test_from_a_layout_to_an_archive_and_back(tmp_path: Path) -> None:
    maker = sample_layout(tmp_path / "shop")
    copy(OCILayout(maker.path), OCIArchive(tmp_path / "shop.tar"))
    copy(OCIArchive(tmp_path / "shop.tar"), OCILayout(tmp_path / "again"))
    assert tree(tmp_path / "again") == tree(maker.path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "shop", "shop.tar"]


def test_an_archive_always_has_the_same_bytes(tmp_path: Path) -> None:
    maker = sample_layout(tmp_path / "shop")
    copy(OCILayout(maker.path), OCIArchive(tmp_path / "a.tar"), jobs=1)
    copy(OCILayout(maker.path), OCIArchive(tmp_path / "b.tar"), jobs=4)
    copy(OCIArchive(tmp_path / "b.tar"), OCIArchive(tmp_path / "new" / "c.tar"))
    data = (tmp_path / "a.tar").read_bytes()
    assert (tmp_path / "b.tar").read_bytes() == data
    assert (tmp_path / "new" / "c.tar").read_bytes() == data
    with tarfile.open(tmp_path / "a.tar") as tar:
        members = tar.getmembers()
    names = [member.name for member in members]
    assert names == sorted(names)
    assert set(names) == {"blobs", "blobs/sha256", *tree(maker.path)}
    assert {(member.mtime, member.uid, member.gid, member.uname) for member in members} == {(0, 0, 0, "")}
    assert {member.mode for member in members if member.isfile()} == {0o644}


@pytest.mark.parametrize("compress", [gzip.compress, zstd.compress], ids=["gzip", "zstd"])
def test_compressed_archives(tmp_path: Path, compress) -> None:  # type: ignore[no-untyped-def]
    maker = sample_layout(tmp_path / "shop")
    archive = tar_of_folder(maker.path, tmp_path / "shop.tar")
    archive.write_bytes(compress(archive.read_bytes()))
    copy(OCIArchive(archive), OCILayout(tmp_path / "again"))
    assert tree(tmp_path / "again") == tree(maker.path)
    archive.write_bytes(archive.read_bytes()[:-20])
    with pytest.raises(InvalidInputError, match=r"shop\.tar"):
        OCIArchive(archive).roots()


@pytest.mark.parametrize("compress", [gzip.compress, zstd.compress], ids=["gzip", "zstd"])
def test_a_bomb_is_refused(tmp_path: Path, compress, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr("layerstore.places.tar_reader.DECODED_SIZE_FREE", 1 << 20)
    bomb = tmp_path / "bomb.tar"
    bomb.write_bytes(compress(bytes(20 << 20)))
    with pytest.raises(InvalidInputError, match="decodes to more than"):
        OCIArchive(bomb).roots()


def test_other_forms_of_names(tmp_path: Path) -> None:
    maker = sample_layout(tmp_path / "shop")
    with tarfile.open(tmp_path / "shop.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        for name, data in tree(maker.path).items():
            info = tarfile.TarInfo(f"./{name.replace('/', '//')}")
            info.size = len(data)
            info.pax_headers = {"comment": "ü" * 200}
            tar.addfile(info, io.BytesIO(data))
    copy(OCIArchive(tmp_path / "shop.tar"), OCILayout(tmp_path / "again"))
    assert tree(tmp_path / "again") == tree(maker.path)


def test_an_existing_file_is_not_touched(tmp_path: Path) -> None:
    maker = sample_layout(tmp_path / "shop")
    (tmp_path / "shop.tar").write_bytes(b"mine")
    with pytest.raises(ConflictError, match="exists already"):
        copy(OCILayout(maker.path), OCIArchive(tmp_path / "shop.tar"))
    assert (tmp_path / "shop.tar").read_bytes() == b"mine"
    (tmp_path / "dangling.tar").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ConflictError):
        copy(OCILayout(maker.path), OCIArchive(tmp_path / "dangling.tar"))


def test_two_writers_of_one_file(tmp_path: Path) -> None:
    maker = sample_layout(tmp_path / "shop")
    target = OCIArchive(tmp_path / "shop.tar")
    with pytest.raises(ConflictError, match="meantime"), target.writing() as writer:
        writer.expect({})
        copy(OCILayout(maker.path), OCIArchive(tmp_path / "shop.tar"))
    assert len(target.roots()) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["shop", "shop.tar"]


def test_a_file_system_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", link)
    maker = sample_layout(tmp_path / "shop")
    copy(OCILayout(maker.path), OCIArchive(tmp_path / "shop.tar"))
    assert len(OCIArchive(tmp_path / "shop.tar").roots()) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["shop", "shop.tar"]


@pytest.mark.parametrize("place", [OCIArchive, OCILayout])
def test_a_full_disk_is_told_and_nothing_is_left(tmp_path: Path, place, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    maker = sample_layout(tmp_path / "shop")
    pwrite = os.pwrite

    def full(file: int, data: memoryview, offset: int) -> int:
        if len(data) > 100_000:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return pwrite(file, data, offset)

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(NoSpaceError, match="Free space"):
        copy(OCILayout(maker.path), place(tmp_path / "copy"), jobs=1)
    monkeypatch.undo()
    assert place is OCILayout or not (tmp_path / "copy").exists()
    assert not list(tmp_path.rglob(".layerstore-*"))
    copy(OCILayout(maker.path), place(tmp_path / "copy"))
    assert len(place(tmp_path / "copy").roots()) == 3


def test_a_failed_copy_leaves_no_file(tmp_path: Path) -> None:
    maker = sample_layout(tmp_path / "shop")
    blob = max((maker.path / "blobs" / "sha256").iterdir(), key=lambda path: path.stat().st_size)
    data = bytearray(blob.read_bytes())
    data[1000] ^= 1
    blob.write_bytes(data)
    with pytest.raises(DigestMismatchError):
        copy(OCILayout(maker.path), OCIArchive(tmp_path / "new" / "shop.tar"))
    assert [path.name for path in tmp_path.iterdir()] == ["shop"]


def largest_blob(maker: LayoutMaker) -> str:
    blob = max((maker.path / "blobs" / "sha256").iterdir(), key=lambda path: path.stat().st_size)
    return f"blobs/sha256/{blob.name}"


def other_member(name: str, type_: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = type_
    info.linkname = target
    return info


@pytest.mark.parametrize("needed", ["blob", "index.json", "oci-layout"])
@pytest.mark.parametrize(
    ("type_", "link"),
    [
        (tarfile.SYMTYPE, "/etc/passwd"),
        (tarfile.SYMTYPE, "../../../../etc/passwd"),
        (tarfile.LNKTYPE, "other"),
        (tarfile.CHRTYPE, ""),
        (tarfile.FIFOTYPE, ""),
        (tarfile.DIRTYPE, ""),
    ],
    ids=["absolute", "outside", "hard", "device", "fifo", "folder"],
)
def test_what_is_needed_must_be_a_file(tmp_path: Path, needed: str, type_: bytes, link: str) -> None:
    maker = sample_layout(tmp_path / "shop")
    name = largest_blob(maker) if needed == "blob" else needed
    files = tree(maker.path)
    with tarfile.open(tmp_path / "shop.tar", "w") as tar:
        add_file(tar, "other", files[name])
        for other, data in files.items():
            if other == name:
                tar.addfile(other_member(name, type_, link))
            else:
                add_file(tar, other, data)
    with pytest.raises(InvalidInputError, match="regular file"):
        copy(OCIArchive(tmp_path / "shop.tar"), OCILayout(tmp_path / "again"))
    assert not (tmp_path / "again").exists()


def test_what_is_not_needed_may_be_anything(tmp_path: Path) -> None:
    maker = sample_layout(tmp_path / "shop")

    def change(tar: tarfile.TarFile) -> None:
        for name in ("../index.json", "/index.json", "a/../../index.json"):
            add_file(tar, name, b"elsewhere")
        for type_ in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
            tar.addfile(other_member(f"extra{type_!r}", type_, "/etc/passwd"))

    archive = tar_of_folder(maker.path, tmp_path / "shop.tar", change)
    copy(OCIArchive(archive), OCILayout(tmp_path / "again"))
    assert tree(tmp_path / "again") == tree(maker.path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "shop", "shop.tar"]


def test_two_indexes_are_refused_and_of_two_blobs_the_last_counts(tmp_path: Path) -> None:
    maker = sample_layout(tmp_path / "shop")
    name = largest_blob(maker)
    archive = tar_of_folder(maker.path, tmp_path / "a.tar", lambda tar: add_file(tar, "./index.json", b"{}"))
    with pytest.raises(InvalidInputError, match=r"several members 'index\.json'"):
        OCIArchive(archive).roots()
    archive = tar_of_folder(maker.path, tmp_path / "b.tar", lambda tar: add_file(tar, name, b"wrong"))
    with pytest.raises(LayerstoreError, match="where its descriptor says"):
        copy(OCIArchive(archive), OCILayout(tmp_path / "again"))


def test_every_cut_is_noticed(tmp_path: Path) -> None:
    maker = LayoutMaker(tmp_path / "shop")
    maker.list_root(maker.image([layer_tar({"a": noise(1, 3000)})]), "1.0")
    data = tar_of_folder(maker.path, tmp_path / "whole.tar").read_bytes()
    with tarfile.open(tmp_path / "whole.tar") as tar:
        last = tar.getmembers()[-1]
    needed = last.offset_data + last.size
    for size in sorted({*range(0, needed, 256), *range(511, needed, 512), needed - 1}):
        (tmp_path / "cut.tar").write_bytes(data[:size])
        with pytest.raises((InvalidInputError, BlobNotFoundError)):
            copy(OCIArchive(tmp_path / "cut.tar"), OCILayout(tmp_path / "again"))
        assert not (tmp_path / "again").exists()
    (tmp_path / "cut.tar").write_bytes(data[: needed + -needed % 512])
    copy(OCIArchive(tmp_path / "cut.tar"), OCILayout(tmp_path / "again"))  # only the end blocks are missing


def test_damaged_headers_are_errors_of_ours(tmp_path: Path) -> None:
    maker = LayoutMaker(tmp_path / "shop")
    maker.list_root(maker.image([layer_tar({"a": b"1"})]), "1.0")
    data = tar_of_folder(maker.path, tmp_path / "whole.tar").read_bytes()
    sizes = [b"\x80" + b"\xff" * 11, b"\xff" * 12, b"-0000000100\0", b"77777777777\0", b"\x80\x7f" + b"\xff" * 10]
    for field in sizes:
        for flag in (b"0", b"x", b"g", b"L", b"K", b"S", b"5"):
            header = bytearray(data[:512])
            header[124:136] = field
            header[156:157] = flag
            header[148:156] = b" " * 8
            header[148:156] = b"%06o\0 " % sum(header)
            for whole in (bytes(header) + data[512:], data[:1024] + bytes(header) + data[1024:]):
                (tmp_path / "bad.tar").write_bytes(whole)
                try:
                    copy(OCIArchive(tmp_path / "bad.tar"), OCILayout(tmp_path / "again"))
                except (InvalidInputError, BlobNotFoundError):
                    assert not (tmp_path / "again").exists()
                else:  # a header that concerns nothing that is needed
                    assert tree(tmp_path / "again") == tree(maker.path)
                    shutil.rmtree(tmp_path / "again")


def test_sparse_members_and_huge_headers_are_refused(tmp_path: Path) -> None:
    maker = sample_layout(tmp_path / "shop")
    header = tarfile.TarInfo("pax")
    header.type = tarfile.XHDTYPE
    header.size = 1 << 40
    (tmp_path / "pax.tar").write_bytes(header.tobuf(tarfile.GNU_FORMAT) + bytes(10240))
    with pytest.raises(InvalidInputError, match="extended header"):
        OCIArchive(tmp_path / "pax.tar").roots()
    index = json.dumps({"schemaVersion": 2, "manifests": []}).encode()
    with tarfile.open(tmp_path / "sparse.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        add_file(tar, "oci-layout", (maker.path / "oci-layout").read_bytes())
        info = tarfile.TarInfo("index.json")
        info.size = len(index)
        info.pax_headers = {"GNU.sparse.map": f"0,{len(index)}", "GNU.sparse.size": str(len(index))}
        tar.addfile(info, io.BytesIO(index))
    with pytest.raises(InvalidInputError, match="no regular file"):
        OCIArchive(tmp_path / "sparse.tar").roots()


def test_many_members_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("layerstore.places.tar_reader.MEMBERS_MAX", 5)
    maker = sample_layout(tmp_path / "shop")
    with pytest.raises(InvalidInputError, match="more than 5 members"):
        OCIArchive(tar_of_folder(maker.path, tmp_path / "shop.tar")).roots()


def test_what_is_no_archive(tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(b"text\n" * 1000)
    (tmp_path / "empty").touch()
    os.mkfifo(tmp_path / "fifo")
    tar_of_folder(tmp_path / "none", tmp_path / "nothing.tar", lambda tar: add_file(tar, "a", b"b"))
    for name in ("text", "empty", "fifo", "nothing.tar", "missing", "text/below"):
        with pytest.raises(InvalidInputError):
            OCIArchive(tmp_path / name).roots()
