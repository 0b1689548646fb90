"""The store's ratio over time, as a curve and as a table."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

WIDTH, HEIGHT = 720, 280
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 10, 14, 40
_POINTS_MAX = 240
_ROWS_MAX = 24


@dataclass(frozen=True, slots=True)
class Moment:
    """The store's sizes at a moment."""

    when: datetime
    logical: int
    stored: int

    @property
    def ratio(self) -> float:
        """Bytes of all images to bytes on disk."""
        return self.logical / self.stored if self.stored else 1.0


@dataclass(frozen=True, slots=True)
class Label:
    """A text of the chart, and where it stands."""

    x: float
    y: float
    text: str


@dataclass(frozen=True, slots=True)
class Chart:
    """A curve to be drawn, and the same as a table."""

    line: str
    """The points of the curve, as SVG has them."""
    area: str
    grid: tuple[Label, ...]
    """Values of the ratio, with the height of their lines."""
    ends: tuple[Label, ...]
    """The first moment and the last."""
    last: Label
    rows: tuple[Moment, ...]
    """The newest first."""
    left: int = _LEFT
    right: int = WIDTH - _RIGHT
    width: int = WIDTH
    height: int = HEIGHT


def chart_of(history: Sequence[tuple[int, int, int]]) -> Chart | None:
    """The chart of moments (seconds since 1970), logical and stored bytes; None as long as there is no curve."""
    moments = [Moment(datetime.fromtimestamp(when, UTC), logical, stored) for when, logical, stored in history]
    if len(moments) < 2:
        return None
    points = _thinned(moments, _POINTS_MAX)
    top = max(one.ratio for one in points) * 1.08 or 1.0
    begun, ended = points[0].when.timestamp(), points[-1].when.timestamp()
    floor = HEIGHT - _BOTTOM

    def x(moment: Moment) -> float:
        share = (moment.when.timestamp() - begun) / (ended - begun)
        return round(_LEFT + share * (WIDTH - _LEFT - _RIGHT), 1)

    def y(ratio: float) -> float:
        return round(floor - ratio / top * (floor - _TOP), 1)

    line = " ".join(f"{x(one)},{y(one.ratio)}" for one in points)
    step = _step(top)
    values = [step * count for count in range(int(top / step) + 1)]
    last = points[-1]
    return Chart(
        line=line,
        area=f"{x(points[0])},{floor} {line} {x(last)},{floor}",
        grid=tuple(Label(_LEFT - 8, y(value), f"{value:g}") for value in values),
        ends=(
            Label(_LEFT, HEIGHT - 10, points[0].when.strftime("%Y-%m-%d")),
            Label(WIDTH - _RIGHT, HEIGHT - 10, last.when.strftime("%Y-%m-%d")),
        ),
        last=Label(x(last), y(last.ratio), f"{last.ratio:.2f}"),
        rows=tuple(reversed(_thinned(moments, _ROWS_MAX))),
    )


def _thinned(moments: Sequence[Moment], count: int) -> list[Moment]:
    """At most so many of the moments, the first and the last among them."""
    if len(moments) <= count:
        return list(moments)
    return [moments[round(one * (len(moments) - 1) / (count - 1))] for one in range(count)]


def _step(top: float) -> float:
    """The distance of the lines of the grid, so that there are about four."""
    step = 0.1
    while top / step > 5:
        step *= 2.5 if f"{step:e}"[0] == "2" else 2
    return step
