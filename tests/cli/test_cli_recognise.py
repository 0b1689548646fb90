"""recognise: who made a gzip file."""

import gzip
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("layerstore.encodings._encoders", reason="the extension module was not built")

Run = Callable[..., Any]


def test_recognise_needs_no_store_and_names_the_encoder(
    bare: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rng = random.Random(1)
    (tmp_path / "a.gz").write_bytes(gzip.compress(b"".join(rng.choices([b"spam ", b"eggs ", b"ham "], k=50_000))))
    (tmp_path / "b.gz").write_bytes(gzip.compress(b"stored", 0))
    result = bare("recognise", "a.gz", "b.gz")
    assert result.exit_code == 0
    first, second = result.stdout.splitlines()
    assert first.startswith("a.gz   ") and " level " in first
    assert second.startswith("b.gz   ")


def test_recognise_refuses_what_is_no_gzip_file(bare: Run, tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"no gzip at all")
    assert bare("recognise", str(tmp_path / "plain")).exit_code == 2
