"""Bars as rich draws them. It is loaded only when somebody looks, as that takes a while."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, SpinnerColumn, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Column
from rich.text import Text

from layerstore.cli.output import safe
from layerstore.progress import OnProgress, Progress
from layerstore.wording import size_text


class _DoneColumn(ProgressColumn):
    """``12.3 MiB / 40.0 MiB``, or counts of whatever else is done."""

    def render(self, task: Task) -> Text:
        done = _amount(task.completed, task.fields["unit"])
        if task.total is None:
            return Text(done)
        return Text(f"{done} / {_amount(task.total, task.fields['unit'])}")


class _SpeedColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        if speed is None or task.fields["unit"] != "bytes":
            return Text("")
        return Text(f"{size_text(speed)}/s")


@contextmanager
def one_bar(subject: str) -> Iterator[OnProgress | None]:
    """See `layerstore.cli.progress.progress_bar`; None on a terminal that cannot move its cursor."""
    with _drawn() as bars:
        if bars is None:
            yield None
            return
        task = bars.add_task(safe(subject), total=None, unit="bytes")

        def show(progress: Progress) -> None:
            description = safe(f"{subject} {progress.note}".rstrip())
            bars.update(
                task, description=description, completed=progress.done, total=progress.total, unit=progress.unit
            )

        yield show


@contextmanager
def several_bars() -> Iterator[OnProgress | None]:
    """See `layerstore.cli.progress.progress_bars`."""
    with _drawn() as bars:
        if bars is None:
            yield None
            return
        tasks: dict[tuple[str, str], TaskID] = {}

        def show(progress: Progress) -> None:
            key = (progress.operation, progress.subject)
            is_finished = progress.total is not None and progress.done >= progress.total
            if is_finished and tasks.keys() - {key}:  # the last one stays, as there is still something to wait for
                if key in tasks:
                    bars.remove_task(tasks.pop(key))
                return
            if key not in tasks:
                tasks[key] = bars.add_task("", total=None, unit=progress.unit)
            description = safe(f"{progress.operation} {progress.subject} {progress.note}".rstrip())
            bars.update(tasks[key], description=description, completed=progress.done, total=progress.total)

        yield show


@contextmanager
def _drawn() -> Iterator[Bars | None]:
    console = Console(stderr=True)
    if console.is_dumb_terminal:
        yield None
        return
    bars = Bars(
        SpinnerColumn(),
        # Without markup: a file may be called "[red]".
        TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)),
        BarColumn(bar_width=16),
        _DoneColumn(table_column=Column(no_wrap=True, justify="right")),
        _SpeedColumn(table_column=Column(no_wrap=True, justify="right")),
        TimeRemainingColumn(compact=True, table_column=Column(no_wrap=True)),
        console=console,
        expand=True,
        transient=True,
        # Results go to stdout as they are, whatever happens on the terminal.
        redirect_stdout=False,
        redirect_stderr=False,
    )
    with bars:
        yield bars


def _amount(number: float, unit: str) -> str:
    return size_text(number) if unit == "bytes" else f"{number:,.0f} {unit}"
