"""What the config of an image says about how it is run."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from layerstore.oci.config import ImageConfig
from layerstore.registry.server.pages.text import moment_of

_LISTED_MAX = 200


@dataclass(frozen=True, slots=True)
class RunSettings:
    """The settings of a config."""

    single: tuple[tuple[str, str], ...]
    """Names and values of what is one text."""
    entrypoint: tuple[str, ...]
    command: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]
    labels: tuple[tuple[str, str], ...]
    created: datetime | None
    not_shown: int
    """How many variables and labels are left out."""


def settings_of(config: ImageConfig) -> RunSettings:
    """What a config says."""
    run = config.config
    single = {
        "Author": config.author,
        "User": run.user,
        "Working directory": run.working_dir,
        "Ports": _listed(run.exposed_ports),
        "Volumes": _listed(run.volumes),
        "Stop signal": run.stop_signal,
    }
    environment = [(name, value) for name, _, value in (one.partition("=") for one in run.env)]
    labels = sorted(run.labels.items())
    return RunSettings(
        tuple((name, value) for name, value in single.items() if value),
        run.entrypoint[:_LISTED_MAX],
        run.cmd[:_LISTED_MAX],
        tuple(environment[:_LISTED_MAX]),
        tuple(labels[:_LISTED_MAX]),
        moment_of(config.created),
        max(0, len(environment) - _LISTED_MAX) + max(0, len(labels) - _LISTED_MAX),
    )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)[:_LISTED_MAX])
