"""The image that the tests of the file system for fsspec look at."""

import io
import tarfile
from typing import Any

LARGE = bytes(range(256)) * 1000
FILES: list[tuple[str, bytes, dict[str, Any]]] = [
    ("data", b"", {"type": tarfile.DIRTYPE, "mode": 0o750, "mtime": 86_400}),
    ("data/a.csv", b"x,y\n1,2\n3,4\n", {"mode": 0o640, "uid": 3, "gid": 4, "mtime": 1_700_000_000.25}),
    ("data/large", LARGE, {}),
    ("data/deep/b.csv", b"x,y\n5,6\n", {}),
    ("data/now.csv", b"", {"type": tarfile.SYMTYPE, "linkname": "a.csv"}),
    ("data/up", b"", {"type": tarfile.SYMTYPE, "linkname": ".."}),
    ("data/gone", b"", {"type": tarfile.SYMTYPE, "linkname": "/no/such"}),
    ("data/bang!/x", b"bang", {}),
    ("null", b"", {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3}),
    ("n\udcff", b"odd", {}),
    ("late", b"", {"mtime": 10**15}),
]


def tar_of(files: list[tuple[str, bytes, dict[str, Any]]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT, errors="surrogateescape") as tar:
        for name, data, values in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            for key, value in values.items():
                setattr(info, key, value)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()
