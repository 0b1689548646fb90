"""Unpacking: a view's file system written to a directory, with nothing of it outside."""

from layerstore.unpacking.report import Shortfall, UnpackReport
from layerstore.unpacking.unpack import unpack

__all__ = ["Shortfall", "UnpackReport", "unpack"]
