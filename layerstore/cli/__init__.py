"""The command line. It uses the public API of `layerstore.store` only, as proof that it suffices."""

from typing import NoReturn

from layerstore.cli.loading import load

__all__ = ["main"]


def main() -> NoReturn:
    """Run the program on this process's arguments."""
    load("layerstore.cli.application").main()
    raise AssertionError("the program's main exits")
