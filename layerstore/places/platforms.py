"""Platforms as they are typed, ``os/architecture[/variant]``, and which manifest of an index is for one.

The rules are those of containerd's package platforms: names of architectures have synonyms, arm64 is v8 and arm is v7
unless they say otherwise, and a machine runs what is made for the lesser variants of its architecture.
"""

import platform as machine
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from layerstore.errors import InvalidOptionError
from layerstore.objects import Image
from layerstore.oci.documents import Descriptor, Platform

_ARCHITECTURES = {
    "x86_64": "amd64",
    "x86-64": "amd64",
    "aarch64": "arm64",
    "armhf": "arm",
    "armel": "arm",
    "i386": "386",
    "i686": "386",
}
_SYNONYM_VARIANTS = {"armhf": "v7", "armel": "v6"}
_DEFAULT_VARIANTS = {"amd64": "v1", "arm": "v7", "arm64": "v8"}
_LEAST_VARIANTS = {"amd64": 1, "arm": 5, "arm64": 8}


@dataclass(frozen=True, slots=True)
class WantedPlatform:
    """A platform to choose by, normalised."""

    os: str
    architecture: str
    variant: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``linux/arm64`` or ``linux/arm/v7``. Raises `InvalidOptionError`."""
        parts = text.lower().split("/")
        if len(parts) not in (2, 3) or not all(parts):
            raise InvalidOptionError(f"{text[:80]!r} is no platform: it must be like linux/arm64 or linux/arm/v7")
        return cls.of(*parts)

    @classmethod
    def of(cls, os: str, architecture: str, variant: str = "") -> Self:
        """One from its parts, which may be synonyms."""
        os, architecture, variant = os.lower(), architecture.lower(), variant.lower()
        variant = variant or _SYNONYM_VARIANTS.get(architecture, "")
        architecture = _ARCHITECTURES.get(architecture, architecture)
        if variant.isdigit():
            variant = f"v{variant}"
        return cls(os, architecture, variant or _DEFAULT_VARIANTS.get(architecture, ""))

    @classmethod
    def of_this_machine(cls) -> Self:
        """What containers run on here: Linux, on this machine's processor."""
        name = machine.machine().lower()
        if name.startswith("armv"):
            return cls.of("linux", "arm", name[3:5])
        return cls.of("linux", name)

    def __str__(self) -> str:
        default = self.variant == _DEFAULT_VARIANTS.get(self.architecture, "") and self.architecture != "arm"
        return "/".join((self.os, self.architecture) if default else (self.os, self.architecture, self.variant))

    def candidates(self) -> list["WantedPlatform"]:
        """What runs on it, the best first."""
        least = _LEAST_VARIANTS.get(self.architecture)
        number = self.variant.removeprefix("v")
        if least is None or not number.isdigit():
            return [self]
        steps = range(int(number), least - 1, -1) or (int(number),)
        return [WantedPlatform(self.os, self.architecture, f"v{step}") for step in steps]

    def choose(self, manifests: Iterable[Descriptor]) -> Descriptor | None:
        """The descriptor of the manifest that runs best on the platform; of equals, the first."""
        listed = [(normalized(entry.platform), entry) for entry in manifests if entry.platform is not None]
        for candidate in self.candidates():
            for platform, entry in listed:
                if platform == candidate:
                    return entry
        return None


def image_for(image: Image, wanted: WantedPlatform) -> Image | None:
    """Of an index in a store the image that runs best on a platform, None if none does; another image is itself."""
    while image.is_index:
        listed = [(normalized(known), child) for known, child in image.platforms if known is not None]
        found = next((child for one in wanted.candidates() for known, child in listed if known == one), None)
        if found is None:
            return None
        image = found
    return image


def normalized(platform: Platform) -> WantedPlatform:
    """The platform of a descriptor, to compare."""
    return WantedPlatform.of(platform.os, platform.architecture, platform.variant or "")
