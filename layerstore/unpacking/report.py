"""What an unpacking did, and what it could not do."""

from dataclasses import dataclass, field

SHORTFALLS_LISTED_MAX = 100
"""How many shortfalls a report names; it counts all."""


@dataclass(frozen=True, slots=True)
class Shortfall:
    """Something that is not as the image has it, since the file system or the user's rights do not allow it."""

    path: bytes
    what: str
    """``owner``, ``device``, or ``xattr`` and the attribute's name."""


@dataclass(frozen=True, slots=True)
class UnpackReport:
    """What was written. Counts are of names below the directory, sizes in bytes."""

    directories: int
    files: int
    symlinks: int
    devices: int
    """Character and block devices and FIFOs, as such or as their placeholders."""
    links: int
    """Further names of what is counted elsewhere: hard links."""
    size: int
    """Of all files, holes and all, each once."""
    bytes_written: int
    """The same without holes, and without what was taken from an earlier unpacking."""
    reused: int
    """Files that were taken from there."""
    rootless: bool
    owners_not_set: int
    xattrs_not_set: int
    devices_replaced: int
    """Devices that are empty files now."""
    shortfalls: tuple[Shortfall, ...]
    """The first 100 of what the three counts before count."""


@dataclass(slots=True)
class Tally:
    """Counts on their way to a report; each thread has its own."""

    directories: int = 0
    files: int = 0
    symlinks: int = 0
    devices: int = 0
    links: int = 0
    size: int = 0
    bytes_written: int = 0
    reused: int = 0
    owners_not_set: int = 0
    xattrs_not_set: int = 0
    devices_replaced: int = 0
    shortfalls: list[Shortfall] = field(default_factory=list)

    @property
    def names(self) -> int:
        """How many names were made."""
        return self.directories + self.files + self.symlinks + self.devices + self.links

    def note(self, path: bytes, what: str) -> None:
        """Remember a shortfall, if there is room."""
        if len(self.shortfalls) < SHORTFALLS_LISTED_MAX:
            self.shortfalls.append(Shortfall(path, what))

    def add(self, other: "Tally") -> None:
        """Add what another thread counted."""
        self.directories += other.directories
        self.files += other.files
        self.symlinks += other.symlinks
        self.devices += other.devices
        self.links += other.links
        self.size += other.size
        self.bytes_written += other.bytes_written
        self.reused += other.reused
        self.owners_not_set += other.owners_not_set
        self.xattrs_not_set += other.xattrs_not_set
        self.devices_replaced += other.devices_replaced
        self.shortfalls += other.shortfalls

    def report(self, *, rootless: bool) -> UnpackReport:
        """The report of all that was counted."""
        return UnpackReport(
            directories=self.directories,
            files=self.files,
            symlinks=self.symlinks,
            devices=self.devices,
            links=self.links,
            size=self.size,
            bytes_written=self.bytes_written,
            reused=self.reused,
            rootless=rootless,
            owners_not_set=self.owners_not_set,
            xattrs_not_set=self.xattrs_not_set,
            devices_replaced=self.devices_replaced,
            shortfalls=tuple(sorted(self.shortfalls, key=lambda one: (one.path, one.what))[:SHORTFALLS_LISTED_MAX]),
        )
