"""Every error that layerstore raises, grouped by what the caller would do about it.

    LayerstoreError
    ├── InvalidInputError        mend the input
    │   ├── InvalidDigestError
    │   ├── InvalidReferenceError
    │   ├── InvalidManifestError
    │   ├── InvalidOptionError
    │   ├── UndecodableError         not gzip or zstd, damaged, cut, or with bytes behind its end
    │   ├── OversizedError           decodes to more than can be meant: a decompression bomb
    │   ├── MountTargetError         what was to be mounted at is no directory
    │   └── DigestMismatchError      the content is not what its digest promised
    ├── NotFoundError            name something that is there
    │   ├── StoreNotFoundError
    │   ├── LayerNotFoundError
    │   ├── ImageNotFoundError
    │   ├── TagNotFoundError
    │   ├── BlobNotFoundError
    │   ├── ContainerNotFoundError
    │   └── NotMountedError
    ├── ConflictError            the present state forbids it; change that first
    │   ├── StoreExistsError
    │   ├── LayerInUseError
    │   ├── LeaseEndedError
    │   ├── ContainerExistsError
    │   ├── ContainerInUseError      another process changes or mounts it
    │   ├── AlreadyMountedError
    │   ├── MountBusyError           somebody still uses what is mounted there
    │   └── StoreClosedError         closed, or carried over a fork
    ├── UnavailableError         the machine or the store's place forbids it
    │   ├── NoSpaceError
    │   ├── IndexFullError
    │   ├── ReadOnlyError
    │   ├── UnsupportedPlaceError    for example a network file system
    │   ├── UnsupportedFormatError   written by a newer layerstore
    │   ├── UpgradeNeededError       written by an older layerstore
    │   ├── MountUnavailableError    the system cannot mount, or lacks what it takes
    │   ├── RuntimeUnavailableError  no program is there to run containers
    │   ├── EncoderUnavailableError  installed without a compiler, or the encoder fails its self-test here
    │   ├── RegistryError            a registry cannot be reached, or answers with an error
    │   │   ├── AuthenticationError      it wants credentials, or refuses those that it got
    │   │   └── DeniedError              the credentials do not allow it
    │   └── StorageError             any other error of the operating system
    └── DamagedError             run `layerstore verify`, then `repair` or `rebuild-index`
        ├── ContentDamagedError
        └── IndexDamagedError

`code` is stable: it is what ``--json`` prints and what a program should compare. Codes are only ever added.
"""

from typing import ClassVar


class LayerstoreError(Exception):
    """The root of the tree. ``code`` names the kind of error for programs."""

    code: ClassVar[str] = "error"


class InvalidInputError(LayerstoreError):
    """What was given is malformed or contradicts itself."""

    code = "invalid-input"


class InvalidDigestError(InvalidInputError):
    """A text is no digest of a known algorithm."""

    code = "invalid-digest"


class InvalidReferenceError(InvalidInputError):
    """A text is no tag or reference."""

    code = "invalid-reference"


class InvalidManifestError(InvalidInputError):
    """Bytes are no valid manifest, index or config."""

    code = "invalid-manifest"


class InvalidOptionError(InvalidInputError):
    """An option or a combination of options makes no sense."""

    code = "invalid-option"


class UndecodableError(InvalidInputError):
    """A stream is not gzip or zstd, is damaged or cut, or has bytes behind its end."""

    code = "undecodable"


class OversizedError(InvalidInputError):
    """A blob decodes to far more bytes than it has, or a document is larger than is accepted."""

    code = "oversized"


class DigestMismatchError(InvalidInputError):
    """Content has another digest than was promised for it."""

    code = "digest-mismatch"

    def __init__(self, expected: str, actual: str) -> None:
        super().__init__(f"content has digest {actual}, not the expected {expected}")
        self.expected = expected
        self.actual = actual


class MountTargetError(InvalidInputError):
    """What was to be mounted at is no directory."""

    code = "mount-target"


class NotFoundError(LayerstoreError, KeyError):
    """Something that was named is not there. It is a `KeyError`, so that the store's mappings behave as such."""

    code = "not-found"

    __str__ = Exception.__str__  # KeyError's would print the message in quotes


class StoreNotFoundError(NotFoundError):
    """There is no store at the given path."""

    code = "store-not-found"


class LayerNotFoundError(NotFoundError):
    """The store has no layer of that DiffID."""

    code = "layer-not-found"


class ImageNotFoundError(NotFoundError):
    """The store has no image of that tag or digest."""

    code = "image-not-found"


class TagNotFoundError(NotFoundError):
    """The store has no such tag."""

    code = "tag-not-found"


class BlobNotFoundError(NotFoundError):
    """There is no blob (manifest, config or encoding) of that digest."""

    code = "blob-not-found"


class ContainerNotFoundError(NotFoundError):
    """The store has no container of that name."""

    code = "container-not-found"


class NotMountedError(NotFoundError):
    """Nothing of ours is mounted there."""

    code = "not-mounted"


class ConflictError(LayerstoreError):
    """The present state of the store forbids the operation."""

    code = "conflict"


class StoreExistsError(ConflictError):
    """A store, or something else, is already at the path where one was to be created."""

    code = "store-exists"


class LayerInUseError(ConflictError):
    """The layer belongs to an image and cannot be released on its own."""

    code = "layer-in-use"


class LeaseEndedError(ConflictError):
    """The lease that was to protect the operation has ended."""

    code = "lease-ended"


class ContainerExistsError(ConflictError):
    """The store has a container of that name."""

    code = "container-exists"


class ContainerInUseError(ConflictError):
    """Another process changes the container, or has it mounted."""

    code = "container-in-use"


class StoreClosedError(ConflictError):
    """The store was closed, or this process was forked after it was opened."""

    code = "store-closed"


class AlreadyMountedError(ConflictError):
    """Something is mounted there already."""

    code = "already-mounted"


class MountBusyError(ConflictError):
    """Processes still use what is to be unmounted."""

    code = "mount-busy"


class UnavailableError(LayerstoreError):
    """The machine, the place or the version forbids the operation; nothing was changed."""

    code = "unavailable"


class NoSpaceError(UnavailableError):
    """The disk or the quota is full."""

    code = "no-space"


class IndexFullError(UnavailableError):
    """The index has reached the largest map this process can have."""

    code = "index-full"


class ReadOnlyError(UnavailableError):
    """The store was opened, or lies, read-only."""

    code = "read-only"


class UnsupportedPlaceError(UnavailableError):
    """The path lies where a store cannot work, for example on a network file system."""

    code = "unsupported-place"


class UnsupportedFormatError(UnavailableError):
    """The store was written by a newer layerstore than this one can read."""

    code = "unsupported-format"


class UpgradeNeededError(UnavailableError):
    """The store has an older format: run `layerstore upgrade`."""

    code = "upgrade-needed"


class EncoderUnavailableError(UnavailableError):
    """An encoder is not part of this installation, or fails its self-test on this machine."""

    code = "encoder-unavailable"


class RuntimeUnavailableError(UnavailableError):
    """No program that runs containers is there."""

    code = "runtime-unavailable"


class MountUnavailableError(UnavailableError):
    """The system lacks what mounting needs, or refuses it."""

    code = "mount-unavailable"


class RegistryError(UnavailableError):
    """A registry cannot be reached, answers with an error, or does not keep to the protocol."""

    code = "registry"


class AuthenticationError(RegistryError):
    """A registry wants credentials, or refuses those that it got."""

    code = "authentication"


class DeniedError(RegistryError):
    """A registry knows who asks, and does not allow it."""

    code = "denied"


class StorageError(UnavailableError):
    """The operating system refused an operation on the store's files."""

    code = "storage"


class DamagedError(LayerstoreError):
    """Stored bytes are not what was stored. Nothing wrong was handed on."""

    code = "damaged"


class ContentDamagedError(DamagedError):
    """A frame is missing or its bytes do not match their digest."""

    code = "content-damaged"


class IndexDamagedError(DamagedError):
    """A record of the index is missing or does not match its checksum."""

    code = "index-damaged"
