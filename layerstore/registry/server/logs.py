"""The log on stderr: a JSON object a line for programs, a short line for people."""

import json
import logging
import sys
import time
from typing import Any, Final

from layerstore.registry.server.settings import LogFormat

LOGGER: Final = "layerstore.server"
"""The logger of all that is no request."""
REQUESTS_LOGGER: Final = "layerstore.requests"
INVALID_REQUEST: Final = "Invalid HTTP request received."
"""What uvicorn says then, in its log and in its answer."""
_FIELDS = "fields"


def log(level: int, message: str, *, logger: str = LOGGER, **fields: object) -> None:
    """Write a line. Fields stand beside the message in JSON, behind it in text."""
    logging.getLogger(logger).log(level, message, extra={_FIELDS: fields})


class JsonFormatter(logging.Formatter):
    """One JSON object a line. Whatever a client sends, it stays inside its text."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        document: dict[str, object] = {
            "time": _moment(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        document |= getattr(record, _FIELDS, {})
        if record.exc_info:
            document["exception"] = self.formatException(record.exc_info)
        return json.dumps(document, default=str)


class TextFormatter(logging.Formatter):
    """Moment, level, message and fields. What a terminal could take for commands is escaped."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, and the lines of a traceback."""
        fields = getattr(record, _FIELDS, {})
        parts = [_moment(record.created), record.levelname.lower(), record.getMessage()]
        parts += [f"{name}={value}" for name, value in fields.items() if value is not None]
        line = _printable(" ".join(parts))
        if record.exc_info:
            line += "".join(f"\n{_printable(one)}" for one in self.formatException(record.exc_info).splitlines())
        return line


class CountedFilter(logging.Filter):
    """Leaves out what uvicorn warns of when a client does not speak HTTP: the connection counts it.

    Each client that tries TLS first does that once.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is written."""
        return record.msg != INVALID_REQUEST


def log_configuration(wanted: LogFormat, *, is_quiet: bool = False) -> dict[str, Any]:
    """For `logging.config.dictConfig`, in each process."""
    is_text = sys.stderr.isatty() if wanted is LogFormat.AUTO else wanted is LogFormat.TEXT
    kind = TextFormatter if is_text else JsonFormatter
    quiet = {"level": "WARNING", "handlers": ["stderr"], "propagate": False}
    level = "WARNING" if is_quiet else "INFO"
    loud = {**quiet, "level": level}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"lines": {"()": f"{__name__}.{kind.__name__}"}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "lines", "stream": "ext://sys.stderr"}},
        "filters": {"counted": {"()": f"{__name__}.{CountedFilter.__name__}"}},
        "loggers": {
            "layerstore": loud,
            "uvicorn": loud,
            "uvicorn.error": {"level": level, "filters": ["counted"]},
        },
        "root": {"level": "WARNING", "handlers": ["stderr"]},
    }


def _printable(line: str) -> str:
    return line if line.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)


def _moment(seconds: float) -> str:
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{whole}.{int(seconds % 1 * 1000):03d}Z"
