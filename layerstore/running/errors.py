"""Errors about the program that a container is to run."""

from layerstore.errors import InvalidInputError, NotFoundError


class ProgramNotFoundError(NotFoundError):
    """The container has no such program."""


class ProgramNotExecutableError(InvalidInputError):
    """The container has a file of that name that cannot be executed."""
