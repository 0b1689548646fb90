"""Answers as bytes, for kernels that can do less than the one that runs the tests."""

import errno
import struct

import pytest
from union_samples import file, folder, layer, view_of

from layerstore import Store
from layerstore.mounting.answers import Answers
from layerstore.mounting.inodes import ROOT_NUMBER, Numbers
from layerstore.mounting.protocol import (
    ENTRY_OUT,
    INIT_IN,
    INIT_OUT,
    OPEN_CACHE_DIRECTORY,
    OPEN_KEEP_CACHE,
    OPEN_OUT,
    READ_IN,
    Capability,
    Opcode,
)

_FILES = layer(folder(b"etc"), file(b"etc/name", b"one\n"), file(b"n" * 1025), *[file(b"%d" % n) for n in range(50)])


def _answers(store: Store, flags: int, minor: int = 26) -> Answers:
    numbers = Numbers()
    numbers.add(view_of(store, _FILES), ROOT_NUMBER)
    answers = Answers(numbers)
    answer = answers.answer(Opcode.INIT, 0, memoryview(INIT_IN.pack(7, minor, 1 << 17, flags)))
    assert INIT_OUT.unpack(answer)[3] & ~flags == 0, "nothing is asked for that the kernel has not"
    return answers


def _names(answers: Answers, opcode: Opcode, number: int, skipped: int, name_at: int) -> list[bytes]:
    """The names of a listing, read in small parts."""
    names: list[bytes] = []
    offset = 0
    while True:
        body = bytes(answers.answer(opcode, number, memoryview(READ_IN.pack(0, offset, 512, 0))))
        if not body:
            return names
        while body:
            _, offset, length, _ = struct.unpack_from("=QQII", body, skipped)
            names.append(body[name_at : name_at + length])
            body = body[name_at + -(-length // 8) * 8 :]


@pytest.mark.parametrize(("opcode", "skipped"), [(Opcode.READDIR, 0), (Opcode.READDIRPLUS, ENTRY_OUT.size)])
def test_a_listing_in_parts_is_whole(store: Store, opcode: Opcode, skipped: int) -> None:
    found = _names(_answers(store, 0), opcode, ROOT_NUMBER, skipped, skipped + 24)
    # The kernel would refuse the whole listing for a name of more than 1024 bytes.
    assert found == [b".", b"..", b"etc", *[b"%d" % n for n in range(50)]]


def test_kernels_that_must_open_are_told_to_keep_what_they_read(store: Store) -> None:
    answers = _answers(store, 0)
    assert OPEN_OUT.unpack(answers.answer(Opcode.OPEN, 2, memoryview(b""))) == (0, OPEN_KEEP_CACHE, 0)
    kept = OPEN_KEEP_CACHE | OPEN_CACHE_DIRECTORY
    assert OPEN_OUT.unpack(answers.answer(Opcode.OPENDIR, 1, memoryview(b""))) == (0, kept, 0)
    answers = _answers(store, Capability.NO_OPEN | Capability.NO_OPENDIR)
    for opcode in (Opcode.OPEN, Opcode.OPENDIR):
        with pytest.raises(OSError, match="opened") as refused:
            answers.answer(opcode, 1, memoryview(b""))
        assert refused.value.errno == errno.ENOSYS


def test_kernels_that_are_too_old_are_refused(store: Store) -> None:
    with pytest.raises(OSError, match=r"7\.20") as refused:
        _answers(store, 0, minor=20)
    assert refused.value.errno == errno.EPROTO


@pytest.mark.parametrize(("opcode", "code"), [(Opcode.READ, errno.EINVAL), (Opcode.READLINK, errno.EINVAL)])
def test_a_folder_is_neither_read_nor_followed(store: Store, opcode: Opcode, code: int) -> None:
    with pytest.raises(OSError, match="not a") as refused:
        _answers(store, 0).answer(opcode, ROOT_NUMBER, memoryview(READ_IN.pack(0, 0, 10, 0)))
    assert refused.value.errno == code


def test_what_was_forgotten_is_stale(store: Store) -> None:
    with pytest.raises(OSError, match="dropped") as refused:
        _answers(store, 0).answer(Opcode.GETATTR, 12345, memoryview(bytes(16)))
    assert refused.value.errno == errno.ESTALE


def test_other_requests_are_unknown(store: Store) -> None:
    with pytest.raises(OSError, match="not a request") as refused:
        _answers(store, 0).answer(16, ROOT_NUMBER, memoryview(b""))
    assert refused.value.errno == errno.ENOSYS
