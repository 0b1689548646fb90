"""What every part of the registry benchmark hands over, and how figures of two servers stand beside each other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.image_report import spread


@dataclass(frozen=True, slots=True)
class Part:
    """The outcome of one part of the benchmark."""

    name: str
    text: str
    document: Mapping[str, Any]
    failures: Sequence[str] = ()
    """What went wrong that must not: it decides on the exit status."""


@dataclass(slots=True)
class Step:
    """One thing that both servers did in turn, a value of each for every round."""

    name: str
    blob_bytes: int
    seconds: dict[str, list[float]] = field(default_factory=dict)
    """Wall seconds, by the kind of the server."""
    server_cpu: dict[str, list[float]] = field(default_factory=dict)
    client_cpu: dict[str, list[float]] = field(default_factory=dict)

    def add(self, kind: str, seconds: float, server_cpu: float, client_cpu: float) -> None:
        """Note what one round cost."""
        self.seconds.setdefault(kind, []).append(seconds)
        self.server_cpu.setdefault(kind, []).append(server_cpu)
        self.client_cpu.setdefault(kind, []).append(client_cpu)

    def rates(self, kind: str) -> list[float]:
        """Compressed bytes a second, in MB, of each round."""
        return [self.blob_bytes / 1e6 / max(one, 1e-9) for one in self.seconds[kind]]

    def ratios(self, ours: str, theirs: str) -> list[float]:
        """Our speed to theirs, round by round."""
        return [one / other for one, other in zip(self.rates(ours), self.rates(theirs), strict=True)]


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of all does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -(-int(share * 1000) * len(ordered) // 1000) - 1))]


def row_of(step: Step, ours: str, theirs: str) -> list[str]:
    """The line of a step in a table."""
    return [
        step.name,
        f"{step.blob_bytes / 1e6:,.1f}",
        spread(step.rates(ours), 1),
        spread(step.rates(theirs), 1),
        spread(step.ratios(ours, theirs)),
        spread(step.server_cpu[ours]),
        spread(step.server_cpu[theirs]),
        spread(step.client_cpu[ours]),
        spread(step.client_cpu[theirs]),
    ]
