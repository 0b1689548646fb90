"""What a program does in a container while it is read, or between opening and writing, leads nobody astray."""

import os
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from layerstore import Container, Image
from layerstore.containers.layer import change_blocks
from layerstore.errors import InvalidInputError, LayerstoreError, NotFoundError


@pytest.fixture
def container(image: Image) -> Iterator[Container]:
    """One with a file of its own, and nobody who changes it."""
    made = image.container(None)
    made.write_bytes("own", b"1")
    made.close()
    yield made
    made.close()
    made.remove()


def upper_file(container: Container) -> Path:
    return container._folder.upper / "own"


def put_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def put_socket(path: Path) -> None:
    path.unlink()
    here = Path.cwd()
    os.chdir(path.parent)  # the path of a socket is short
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


def put_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/passwd")


def put_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


SWAPS = [put_fifo, put_socket, put_link, put_directory]


def ends(action: Callable[[], object]) -> BaseException | None:
    """What an action raises, which must not wait for ever."""
    raised: list[BaseException | None] = [None]

    def act() -> None:
        try:
            action()
        except LayerstoreError as error:
            raised[0] = error

    thread = threading.Thread(target=act, daemon=True)
    thread.start()
    thread.join(30)
    assert not thread.is_alive(), "it waits for who never comes"
    return raised[0]


@pytest.mark.parametrize("swap", SWAPS)
def test_a_file_that_becomes_something_else_is_not_read(container: Container, swap: Callable[[Path], None]) -> None:
    node = container.stat("own")
    swap(upper_file(container))
    assert isinstance(ends(lambda: container.open_node(node)), LayerstoreError)


@pytest.mark.parametrize("swap", SWAPS)
def test_a_commit_meanwhile_ends(container: Container, swap: Callable[[Path], None]) -> None:
    changes = container.changes()
    swap(upper_file(container))
    assert isinstance(ends(lambda: list(change_blocks(container, changes))), LayerstoreError)


@pytest.mark.parametrize("swap", SWAPS)
def test_a_look_meanwhile_ends(container: Container, swap: Callable[[Path], None]) -> None:
    assert container.is_file("own")
    swap(upper_file(container))
    ends(lambda: container.stat("own"))
    assert isinstance(ends(lambda: container.read_bytes("own")), LayerstoreError)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make devices")
def test_a_device_in_the_place_of_a_file_is_not_opened(container: Container) -> None:
    node = container.stat("own")
    path = upper_file(container)
    path.unlink()
    os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 5))
    with pytest.raises(InvalidInputError):
        container.open_node(node)


def test_what_was_opened_is_written_and_nothing_else(image: Image) -> None:
    """A file of the image that was opened to be changed, and then moved: the next one of its name stays as it is."""
    with image.container(None) as container:
        with container.open(
            "big",
            "r+b",
        ) as file:
            container.chmod("big", 0o600)  # the same file still
            file.write(b"X")
        assert container.read_bytes("big")[:1] == b"X"
        raised = container.open("able", "r+b")
        container.rename("able", "moved")
        before = container.read_bytes("moved")
        container.write_bytes("able", b"another")
        raised.write(b"X")
        with pytest.raises(InvalidInputError, match="moved or replaced since"):
            raised.flush()
        assert (container.read_bytes("able"), container.read_bytes("moved")) == (b"another", before)
        container.unlink("able")
        with pytest.raises(NotFoundError):
            raised.flush()
        raised.raw.close()
    container.remove()


def test_a_file_may_be_written_after_the_container_was_closed(image: Image) -> None:
    with image.container(None) as container:
        with container.open("able", "ab") as file:
            container.close()
            file.write(b"!")
        assert container.read_bytes("able").endswith(b"!")
    container.remove()
