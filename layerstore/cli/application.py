"""The program: its commands in their groups, and how it ends."""

import signal
import sys
import warnings
from collections.abc import Sequence
from types import FrameType
from typing import Any, NoReturn, TextIO

import click

import layerstore
from layerstore.cli.commands import SECTIONS, Commands
from layerstore.cli.completion import COMPLETE_VARIABLE, PROGRAM
from layerstore.cli.failures import EXIT_CODES_HELP, EXIT_TERMINATED, BrokenOutput, Interrupted, end_with
from layerstore.cli.output import safe
from layerstore.cli.settings import STORE_VARIABLE, common_options

_EXAMPLES = """\
  export LAYERSTORE_PATH=/var/lib/layers
  layerstore init
  layerstore push base.tar app.tar.gz --tag shop:1.0
  layerstore images
"""


class Program(click.Group):
    """The command ``layerstore``. It ends with an exit code for each kind of error."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run the command line ``args`` and exit. Errors are told in one line, or as JSON, on stderr."""
        arguments = list(sys.argv[1:] if args is None else args)
        try:
            code = super().main(
                arguments, prog_name or PROGRAM, complete_var or COMPLETE_VARIABLE, standalone_mode=False, **extra
            )
        except Exception as error:
            if not standalone_mode:
                raise
            # What failed may be the very reading of the options, so they are looked for as text.
            options = arguments[: arguments.index("--")] if "--" in arguments else arguments
            code = end_with(error, as_json="--json" in options, debug="--debug" in options)
        if not standalone_mode:
            return code
        sys.exit(code or 0)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command to the end of its output, and turn into ours what click would handle in its own way."""
        try:
            result = super().invoke(ctx)
            if sys.stdout is not None:
                sys.stdout.flush()
        except BrokenPipeError as error:
            raise BrokenOutput from error
        except KeyboardInterrupt as error:
            raise Interrupted from error
        return result

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands in the order of their sections."""
        return list(self.commands)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands under their sections."""
        width = max(len(name) for name in self.commands)
        for title, names in SECTIONS.items():
            rows = [
                (name.ljust(width), self.commands[name].get_short_help_str(formatter.width - width - 6))
                for name in names
            ]
            with formatter.section(title):
                formatter.write_dl(rows)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the exit codes and a first example, line by line."""
        with formatter.section("Exit codes"):
            formatter.write(EXIT_CODES_HELP)
        with formatter.section("Examples"):
            formatter.write(_EXAMPLES)


def _program() -> Program:
    text = (
        "Store container-image layers, each piece of their contents once.\n\n"
        "The options below may also stand after the command's name. Sizes are 1024-based (KiB, MiB); "
        "--json has exact bytes. Images are named by tag, digest, or the first 12 digits or more of one."
    )
    program = Program(
        PROGRAM, commands=Commands(SECTIONS), help=text, params=list(common_options()), no_args_is_help=True
    )
    for option in program.params:
        if option.name == "store":
            option.envvar = STORE_VARIABLE
    return click.version_option(layerstore.__version__, prog_name=PROGRAM, message="%(prog)s %(version)s")(program)


program = _program()
"""The program as a click command."""


def main() -> NoReturn:
    """Run the program on this process's arguments; see `layerstore.cli.main`."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # A name that the locale's encoding lacks must not end a command half way.
            stream.reconfigure(errors="backslashreplace")
    warnings.showwarning = _show_warning
    # So that SIGTERM removes temporary files and leases, too.
    signal.signal(signal.SIGTERM, _terminate)
    program.main()
    raise AssertionError("the program's main exits")


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    click.echo(f"layerstore: warning: {safe(str(message))}", err=True)


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    sys.exit(EXIT_TERMINATED)
