"""The pinned images of the default corpus: three families of releases, in order of publication.

Every version named here was published, on the registry of Python packages, before the date of its image.
"""

from dataclasses import dataclass
from datetime import UTC, datetime

BASE_DATES = {"base-1": "2024-04-11", "base-2": "2024-08-07"}
"""When the base layers were built. The second is the first with a patch: some modules and the library changed."""

Requirements = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Release:
    """One image to build: a base layer, a layer for each group of requirements, a layer with the application."""

    family: str
    version: str
    date: str
    base: str
    layers: tuple[Requirements, ...]
    no_cache: bool = False
    """Built anew, although nothing has changed: the same content under other times."""

    @property
    def name(self) -> str:
        """Family and version, as in a tag."""
        return f"{self.family}:{self.version}"

    @property
    def built(self) -> int:
        """Seconds since the epoch at which its layers were built."""
        return timestamp(self.date)


def timestamp(date: str) -> int:
    """Return the seconds since the epoch of noon (UTC) on an ISO date."""
    return int(datetime.fromisoformat(date).replace(hour=12, tzinfo=UTC).timestamp())


_WEB_STABLE = ("psycopg2-binary==2.9.9", "pillow==10.3.0", "asgiref==3.8.1", "whitenoise==6.6.0")
_WEB_STABLE_2 = ("psycopg2-binary==2.9.9", "pillow==10.4.0", "asgiref==3.8.1", "whitenoise==6.7.0")
_CLOUD_STABLE = ("cryptography==42.0.5", "cffi==1.16.0", "redis==5.0.3", "protobuf==5.26.1")
_CLOUD_STABLE_2 = ("cryptography==43.0.0", "cffi==1.17.0", "redis==5.0.8", "protobuf==5.27.3")

_WEB_1_1 = ("django==5.0.6", "djangorestframework==3.15.1", "flask==3.0.3", "werkzeug==3.0.3", "jinja2==3.1.4")

RELEASES = (
    Release(
        "web",
        "1.0",
        "2024-04-18",
        "base-1",
        (
            _WEB_STABLE,
            ("django==5.0.4", "djangorestframework==3.15.1", "flask==3.0.3", "werkzeug==3.0.2", "jinja2==3.1.3"),
        ),
    ),
    Release(
        "science",
        "1.0",
        "2024-04-22",
        "base-1",
        (("numpy==1.26.4", "pandas==2.2.1"), ("scipy==1.13.0",)),
    ),
    Release(
        "cloud",
        "1.0",
        "2024-04-25",
        "base-1",
        (_CLOUD_STABLE, ("boto3==1.34.84", "botocore==1.34.84", "sqlalchemy==2.0.29", "pydantic-core==2.18.1")),
    ),
    Release("web", "1.1", "2024-05-14", "base-1", (_WEB_STABLE, _WEB_1_1)),
    Release("web", "1.1-rebuilt", "2024-05-21", "base-1", (_WEB_STABLE, _WEB_1_1), no_cache=True),
    Release(
        "cloud",
        "1.1",
        "2024-05-22",
        "base-1",
        (_CLOUD_STABLE, ("boto3==1.34.105", "botocore==1.34.105", "sqlalchemy==2.0.30", "pydantic-core==2.18.2")),
    ),
    Release(
        "science",
        "1.1",
        "2024-06-03",
        "base-1",
        (("numpy==1.26.4", "pandas==2.2.2"), ("scipy==1.13.1",)),
    ),
    Release(
        "web",
        "1.2",
        "2024-08-09",
        "base-2",
        (
            _WEB_STABLE_2,
            ("django==5.0.8", "djangorestframework==3.15.2", "flask==3.0.3", "werkzeug==3.0.3", "jinja2==3.1.4"),
        ),
    ),
    Release(
        "cloud",
        "1.2",
        "2024-08-20",
        "base-2",
        (_CLOUD_STABLE_2, ("boto3==1.34.162", "botocore==1.34.162", "sqlalchemy==2.0.32", "pydantic-core==2.20.1")),
    ),
    Release(
        "science",
        "1.2",
        "2024-08-26",
        "base-2",
        (("numpy==2.0.1", "pandas==2.2.2"), ("scipy==1.14.1",)),
    ),
    Release(
        "cloud",
        "1.2-rebuilt",
        "2024-09-02",
        "base-2",
        (_CLOUD_STABLE_2, ("boto3==1.34.162", "botocore==1.34.162", "sqlalchemy==2.0.32", "pydantic-core==2.20.1")),
        no_cache=True,
    ),
    Release(
        "web",
        "1.3",
        "2024-10-10",
        "base-2",
        (
            _WEB_STABLE_2,
            ("django==5.1.2", "djangorestframework==3.15.2", "flask==3.0.3", "werkzeug==3.0.4", "jinja2==3.1.4"),
        ),
    ),
    Release(
        "cloud",
        "1.3",
        "2024-11-05",
        "base-2",
        (_CLOUD_STABLE_2, ("boto3==1.35.54", "botocore==1.35.54", "sqlalchemy==2.0.36", "pydantic-core==2.23.4")),
    ),
)
