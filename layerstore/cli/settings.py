"""What holds for every command: which store, and how much is told in which form."""

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from layerstore.store import Store

STORE_VARIABLE = "LAYERSTORE_PATH"
"""Names the store where ``--store`` is not given."""


@dataclass(slots=True)
class Settings:
    """The options that stand before or after the command's name."""

    store: Path | None = None
    json: bool = False
    quiet: bool = False
    no_progress: bool = False
    debug: bool = False

    @property
    def path(self) -> Path:
        """The store's folder. Raises `click.UsageError` if none was given."""
        if self.store is None:
            raise click.UsageError(f"no store given: use --store DIR or set {STORE_VARIABLE}")
        return self.store

    @contextmanager
    def open(self, *, read_only: bool = False) -> Iterator[Store]:
        """The store, open. Commands that only look open it ``read_only``: that works on a read-only disk, too."""
        with Store.open(self.path, read_only=read_only) as store:
            yield store

    @property
    def shows_progress(self) -> bool:
        """Only to somebody who looks."""
        return not (self.quiet or self.no_progress) and sys.stderr is not None and sys.stderr.isatty()

    def say(self, text: str) -> None:
        """Print a line for humans: not with ``--json`` or ``--quiet``."""
        if not (self.json or self.quiet):
            click.echo(text)


def common_options() -> list[click.Option]:
    """The options of `Settings`, new objects for each command."""
    return [
        click.Option(
            ["--store"],
            type=click.Path(file_okay=False, path_type=Path),
            metavar="DIR",
            help=f"The store's folder (or set {STORE_VARIABLE}).",
            expose_value=False,
            callback=_set_store,
        ),
        _flag("--json", "Print JSON."),
        _flag("--quiet", "Print digests only, or nothing.", "-q"),
        _flag("--no-progress", "Show no progress bars."),
        _flag("--debug", "Show a traceback with an error."),
    ]


def settings_of(context: click.Context) -> Settings:
    """The settings that the commands of an invocation share."""
    return context.ensure_object(Settings)


def _set_store(context: click.Context, _: click.Parameter, value: Path | None) -> None:
    if value is not None:
        settings_of(context).store = value


def _flag(name: str, text: str, *others: str) -> click.Option:
    attribute = name.removeprefix("--").replace("-", "_")

    def remember(context: click.Context, _: click.Parameter, value: bool) -> None:
        settings = settings_of(context)
        if value:  # a flag before the command holds although it isn't repeated behind it
            setattr(settings, attribute, True)

    return click.Option([name, *others], is_flag=True, help=text, expose_value=False, callback=remember)


class StoreCommand(click.Command):
    """A command with the common options, and help that says what ``--json`` prints and gives examples."""

    def __init__(self, *args: Any, examples: str, json_form: str, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.examples = examples
        """Commands to be typed as they are, one a line."""
        self.json_form = json_form
        """What ``--json`` prints."""
        self._common = common_options()
        self.params = [*self.params, *self._common]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the command's own options first."""
        own = [option for option in self.get_params(ctx) if option not in self._common]
        for title, options in (("Options", own), ("Common options", self._common)):
            records = [record for option in options if (record := option.get_help_record(ctx)) is not None]
            records = [record for record in records if record[0].startswith("-")]
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the form of the JSON and the examples."""
        with formatter.section("With --json"):
            formatter.write_text(self.json_form)
        with formatter.section("Examples"):
            for line in self.examples.strip().splitlines():
                formatter.write(f"  {line.strip()}\n")


class StoreGroup(StoreCommand, click.Group):
    """A command that does something alone, and has commands of its own."""

    def __init__(self, *args: Any, **attributes: Any) -> None:
        super().__init__(*args, invoke_without_command=True, subcommand_metavar="[COMMAND]", **attributes)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, then the commands."""
        super().format_options(ctx, formatter)
        self.format_commands(ctx, formatter)


def group(name: str, *, examples: str, json_form: str) -> Callable[[Callable[..., int | None]], StoreGroup]:
    """As `command`, for one that has commands of its own. The function runs when none of them is named."""

    def decorate(function: Callable[..., int | None]) -> StoreGroup:
        @functools.wraps(function)
        def run(*args: Any, **options: Any) -> int | None:
            has_other = click.get_current_context().invoked_subcommand is not None
            return None if has_other else function(*args, **options)

        return click.group(name, cls=StoreGroup, examples=examples, json_form=json_form)(click.pass_obj(run))

    return decorate


def command(name: str, *, examples: str, json_form: str) -> Callable[[Callable[..., int | None]], StoreCommand]:
    """Make a function a command. It gets the `Settings` first and returns its exit code, None for 0."""

    def decorate(function: Callable[..., int | None]) -> StoreCommand:
        decorator = click.command(name, cls=StoreCommand, examples=examples, json_form=json_form)
        return decorator(click.pass_obj(function))

    return decorate
