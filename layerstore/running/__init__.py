"""Running containers: OCI runtime bundles, and the programs that start them."""

from layerstore.running.bundle import unpack_bundle
from layerstore.running.folders import remove_dead_runs
from layerstore.running.options import RunOptions
from layerstore.running.run import run_container

__all__ = ["RunOptions", "remove_dead_runs", "run_container", "unpack_bundle"]
