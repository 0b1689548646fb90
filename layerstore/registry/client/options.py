"""How a registry is reached: what the caller decides, and the library reads from no environment."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from layerstore.errors import InvalidOptionError
from layerstore.registry.client.credentials import Credentials

_PART_SIZE_MIN = 64 << 10


@dataclass(frozen=True, slots=True)
class Proxies:
    """HTTP proxies, as URLs. Loopback addresses are never asked through one."""

    http: str | None = None
    """For ``http://`` addresses."""
    https: str | None = None
    """For ``https://`` addresses."""
    bypass: Callable[[str], bool] | None = None
    """Whether a host (with its port if it has one) is reached without a proxy."""


@dataclass(frozen=True, slots=True)
class ConnectionOptions:
    """Options of the connections to a registry. Raises `InvalidOptionError` for what makes no sense."""

    credentials: Callable[[str], Credentials | None] | None = None
    """Who to log in as at a registry, which is named as in references. Asked only if the registry wants to know."""
    plain_http: bool = False
    """Speak HTTP without TLS. Without it that is done towards loopback addresses alone, if they do not speak TLS.
    Credentials are not sent over it to other machines, unless `insecure` is set, too."""
    insecure: bool = False
    """Check no certificates."""
    ca_file: Path | None = None
    """Certificates (PEM) of authorities that are trusted beside the system's."""
    client_certificate: Path | None = None
    """A certificate (PEM) that says who we are, for whoever asks for one when a TLS connection begins."""
    client_key: Path | None = None
    """Its key (PEM, without a password), if the file of the certificate does not have it."""
    proxies: Proxies = Proxies()
    user_agent: str = "layerstore"
    jobs: int = 4
    """How many blobs are best on their way at the same time."""
    tries: int = 5
    """How often a request is made that fails for a reason that may pass."""
    back_off_seconds: float = 0.5
    """How long it is from the first failure to the second try; it doubles with each."""
    connect_seconds_max: float = 15.0
    read_seconds_max: float = 30.0
    """How long a registry may be silent."""
    part_size: int | None = None
    """Bytes of a blob that go up in one request; None sends it in one."""

    def __post_init__(self) -> None:
        if self.client_key is not None and self.client_certificate is None:
            raise InvalidOptionError(f"the key {self.client_key} is of no use without the certificate that it is for")
        if self.client_certificate is not None and self.plain_http:
            raise InvalidOptionError(f"the certificate {self.client_certificate} cannot be shown over plain HTTP")
        if self.jobs < 1 or self.tries < 1:
            raise InvalidOptionError(f"{self.jobs} jobs and {self.tries} tries: at least one of each is needed")
        if self.part_size is not None and self.part_size < _PART_SIZE_MIN:
            raise InvalidOptionError(f"parts of {self.part_size} bytes: they have at least {_PART_SIZE_MIN}")
