"""The one thing that pyproject.toml cannot say: an extension module that may be missing."""

import os
import sysconfig
from pathlib import Path

from setuptools import Extension, setup

_SOURCES = Path("layerstore", "encodings", "src")
_FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))  # such a Python has no limited API yet
_DEFAULT_FLAGS = "" if os.name == "nt" else "-O3 -std=c11 -ffp-contract=off -Wall -Wextra"

setup(
    ext_modules=[
        Extension(
            "layerstore.encodings._encoders",
            sources=sorted(str(path) for path in _SOURCES.glob("*.c")),
            depends=sorted(str(path) for path in _SOURCES.glob("*.h")),
            define_macros=[] if _FREE_THREADED else [("Py_LIMITED_API", "0x030B0000")],
            py_limited_api=not _FREE_THREADED,
            extra_compile_args=os.environ.get("LAYERSTORE_CFLAGS", _DEFAULT_FLAGS).split(),
            optional=True,  # without a compiler layerstore works and keeps what it cannot make again as it came
        )
    ],
    options={} if _FREE_THREADED else {"bdist_wheel": {"py_limited_api": "cp311"}},
)
