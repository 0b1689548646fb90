"""What the user of a container says about how it is run."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from layerstore.errors import InvalidOptionError

NETWORKS = ("none", "host")


@dataclass(frozen=True, slots=True)
class Volume:
    """A directory or file of this machine that the container sees."""

    source: Path
    target: str
    read_only: bool = False

    @classmethod
    def parse(cls, text: str) -> "Volume":
        """``SOURCE:TARGET[:ro]``. Raises `InvalidOptionError`."""
        source, _, rest = text.partition(":")
        target, _, mode = rest.partition(":")
        if not source or not target.startswith("/") or mode not in ("", "ro", "rw"):
            raise InvalidOptionError(f"{text!r} is not SOURCE:TARGET or SOURCE:TARGET:ro, with an absolute TARGET")
        path = Path(os.path.abspath(source))  # noqa: PTH100 - links stay as they are written
        if not path.exists():
            raise InvalidOptionError(f"{source} is not there")
        return cls(path, target, mode == "ro")


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How a container is run, where that is to differ from its image's config."""

    command: tuple[str, ...] = ()
    """In place of the image's Cmd; behind its Entrypoint."""
    entrypoint: tuple[str, ...] | None = None
    """In place of the image's; its Cmd is not used then."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Set on top of the image's variables."""
    working_directory: str | None = None
    user: str | None = None
    """``USER[:GROUP]``, names or numbers."""
    hostname: str | None = None
    network: str = "none"
    """``none``, or ``host`` for this machine's."""
    volumes: tuple[Volume, ...] = ()
    read_only: bool = False
    """Whether nothing of the root file system can be changed."""
    terminal: bool = False
    """Whether the program has a terminal of its own."""
