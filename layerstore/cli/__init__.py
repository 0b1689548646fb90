"""The command line. It uses the public API of `layerstore.store` only, as proof that it suffices."""

from layerstore.cli.application import main

__all__ = ["main"]
