"""What really goes over the wire, which a difference makes far less than the blobs that it stands for."""

import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from layerstore.digest import Digest
from layerstore.oci.documents import Descriptor


@dataclass(frozen=True, slots=True)
class TransferredDifference:
    """A blob of which only the changed chunks were sent or received."""

    digest: Digest
    size: int
    """Bytes of the blob."""
    transferred: int
    """Bytes that its difference took."""


class Traffic:
    """Counts the bodies of requests and answers, repeated ones too. Its methods may be called from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sent = 0
        self._received = 0
        self._differences: dict[Digest, TransferredDifference] = {}

    @property
    def bytes_sent(self) -> int:
        """Bytes that went to the registry, and to whoever it led us to."""
        return self._sent

    @property
    def bytes_received(self) -> int:
        """Bytes that came from there."""
        return self._received

    @property
    def differences(self) -> list[TransferredDifference]:
        """The blobs of which only a part was transferred."""
        with self._lock:
            return list(self._differences.values())

    def count_sent(self, size: int) -> None:
        """Note bytes that go out."""
        with self._lock:
            self._sent += size

    def count_received(self, size: int) -> None:
        """Note bytes that came in."""
        with self._lock:
            self._received += size

    def note_difference(self, descriptor: Descriptor, size: int) -> None:
        """Note that ``size`` bytes were enough for a blob."""
        with self._lock:
            self._differences[descriptor.digest] = TransferredDifference(descriptor.digest, descriptor.size, size)

    def note_whole(self, digest: Digest) -> None:
        """Note that a blob goes whole, after all."""
        with self._lock:
            self._differences.pop(digest, None)


class Measured:
    """Blocks on their way, and how many bytes of them have passed."""

    def __init__(self, blocks: Iterable[bytes]) -> None:
        self._blocks = blocks
        self.size = 0

    def __iter__(self) -> Iterator[bytes]:
        for block in self._blocks:
            self.size += len(block)
            yield block
