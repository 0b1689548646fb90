"""How a command that failed ends: its exit code, and its one line (or JSON object) on stderr."""

import json
import os
import sys
import traceback
from dataclasses import dataclass

import click

from layerstore.cli.output import safe
from layerstore.errors import (
    ConflictError,
    DamagedError,
    InvalidInputError,
    LayerstoreError,
    NotFoundError,
    StorageError,
    UnavailableError,
)
from layerstore.registry.client.problems import (
    ClientCertificateError,
    CredentialHelperError,
    CredentialsError,
    NoTLSError,
    UnencryptedError,
    UnencryptedLoginError,
    UntrustedError,
)

EXIT_UNEXPECTED = 1
EXIT_USAGE = 2
EXIT_NOT_FOUND = 3
EXIT_CONFLICT = 4
EXIT_UNAVAILABLE = 5
EXIT_DAMAGED = 6
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143
EXIT_BROKEN_PIPE = 141
"""What a shell reports for a program that SIGINT, SIGTERM or SIGPIPE ended."""

EXIT_CODES_HELP = """\
  0    done
  1    unexpected error
  2    wrong usage or invalid input
  3    something that was named is not there
  4    the store's present state forbids it
  5    the machine, the disk, a registry or the store's version forbids it
  6    stored data is damaged
  130  interrupted (141: the reader of the output went away)
"""

_EXIT_CODES: tuple[tuple[type[LayerstoreError], int], ...] = (
    (InvalidInputError, EXIT_USAGE),
    (NotFoundError, EXIT_NOT_FOUND),
    (ConflictError, EXIT_CONFLICT),
    (UnavailableError, EXIT_UNAVAILABLE),
    (DamagedError, EXIT_DAMAGED),
)


_OPTIONS: tuple[tuple[type[LayerstoreError], str], ...] = (
    (UntrustedError, "--ca-file"),
    (NoTLSError, "--plain-http"),
    (UnencryptedError, "--plain-http"),
    (UnencryptedLoginError, "--insecure"),
    (ClientCertificateError, "--tls-cert and --tls-key"),
    (CredentialHelperError, "--username and --password-stdin"),
)
"""With what option that is done which an error of the library says is to be done."""


class BrokenOutput(Exception):
    """Whoever read our output has gone. click would end with 1 for `BrokenPipeError`."""


class Interrupted(Exception):
    """Ctrl-C. click would print a blank line of its own for `KeyboardInterrupt`. Its text is a hint on what to do."""


@dataclass(frozen=True, slots=True)
class Failure:
    """What is told about an error."""

    exit_code: int
    code: str
    """Stable, for programs: that of `layerstore.errors`, or ``usage``, ``interrupted`` or ``unexpected``."""
    message: str

    def show(self, *, as_json: bool) -> None:
        """Write it to stderr."""
        if as_json:
            document = {"error": {"code": self.code, "message": self.message}}
            click.echo(json.dumps(document), err=True)
        else:
            click.echo(f"layerstore: {safe(self.message)}", err=True)


def failure_of(error: Exception) -> Failure | None:
    """What to tell about an error; None for `BrokenOutput`, which is quiet."""
    if isinstance(error, BrokenOutput):
        return None
    if isinstance(error, (Interrupted, click.Abort)):
        hint = f"; {error}" if isinstance(error, Interrupted) and str(error) else ""
        return Failure(EXIT_INTERRUPTED, "interrupted", f"interrupted{hint}")
    if isinstance(error, LayerstoreError):
        exit_code = next((code for kind, code in _EXIT_CODES if isinstance(error, kind)), EXIT_UNEXPECTED)
        return Failure(exit_code, error.code, f"{error}{_remedy(error)}")
    if isinstance(error, click.UsageError):
        help_hint = f" (see `{error.ctx.command_path} --help`)" if error.ctx is not None else ""
        return Failure(EXIT_USAGE, "usage", error.format_message().rstrip(".") + help_hint)
    if isinstance(error, click.ClickException):
        return Failure(EXIT_USAGE, "usage", error.format_message())
    if isinstance(error, OSError):
        where = "input or output" if error.filename is None else str(error.filename)
        return Failure(EXIT_UNAVAILABLE, StorageError.code, f"{where}: {error.strerror or error}")
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return Failure(EXIT_UNEXPECTED, "unexpected", f"unexpected {text}; run it with --debug to see where")


def _remedy(error: LayerstoreError) -> str:
    """How that is done here which the error says is to be done."""
    if isinstance(error, CredentialsError):
        return f" (`layerstore login {error.domain}`, or --username and --password-stdin)"
    option = next((option for kind, option in _OPTIONS if isinstance(error, kind)), None)
    return "" if option is None else f" ({option})"


def end_with(error: Exception, *, as_json: bool, debug: bool) -> int:
    """Tell about an error; the exit code."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()  # its message is the whole help
        return EXIT_USAGE
    failure = failure_of(error)
    if failure is None:
        _silence_output()
        return EXIT_BROKEN_PIPE
    if debug:
        traceback.print_exception(error)
    failure.show(as_json=as_json)
    return failure.exit_code


def _silence_output() -> None:
    # What is still in the buffer has no reader; the interpreter would complain about it when it flushes at its end.
    try:
        descriptor = sys.stdout.fileno()
        nowhere = os.open(os.devnull, os.O_WRONLY)
    except (OSError, ValueError, AttributeError):
        return  # stdout is no file of the operating system
    os.dup2(nowhere, descriptor)
    os.close(nowhere)
