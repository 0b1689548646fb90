import sys
from pathlib import Path

import pytest

from benchmarks.console import BenchmarkError
from benchmarks.images import Corpus, LayerFile, make_image
from benchmarks.peer_tools import Gzip, usable
from benchmarks.peers import as_document, as_text, compare, task_of
from benchmarks.process_cost import Command, Cost, run, run_all


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    for name in ("base", "one", "two"):
        (tmp_path / name).write_bytes(name.encode() * 10_000)
    known: dict[Path, LayerFile] = {}
    images = [make_image(name, "f", [tmp_path / "base", tmp_path / name], known) for name in ("one", "two")]
    return Corpus(tuple(images), "made up")


def python(code: str, **files: Path) -> Command:
    return Command((sys.executable, "-S", "-c", code), **files)


def test_the_older_half_of_the_images_is_dropped_and_shared_layers_stay(corpus: Corpus, tmp_path: Path) -> None:
    task = task_of(corpus, tmp_path / "restored")
    assert task.deleted == ["benchmark:0"]
    assert task.images == {"benchmark:0": [0, 1], "benchmark:1": [0, 2]}
    assert task.dropped_layers == [1]
    assert task.kept_layers == [0, 2]


def test_cost_counts_cpu_and_memory_of_the_command_and_its_children(tmp_path: Path) -> None:
    burn = "x = bytearray(80_000_000)\nfor _ in range(2_000_000): pass"
    nested = f"import subprocess, sys; subprocess.run([sys.executable, '-S', '-c', {burn!r}])"
    cost = run(python(nested), {}, tmp_path)
    assert cost.peak_memory_bytes > 80_000_000
    assert 0.01 < cost.cpu_seconds < 20
    assert run(python("pass"), {}, tmp_path).peak_memory_bytes < 40_000_000


def test_costs_add_up_and_memory_is_the_largest(tmp_path: Path) -> None:
    assert Cost(1, 2, 30) + Cost(10, 20, 3) == Cost(11, 22, 30)
    assert run_all([], {}, tmp_path) == Cost()


def test_a_command_reads_and_writes_files_and_a_failure_says_why(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_text("layer")
    run(python("import sys; print(sys.stdin.read().upper())", stdin=source, stdout=target), {}, tmp_path)
    assert target.read_text() == "LAYER\n"
    with pytest.raises(BenchmarkError, match="status 3: out of luck"):
        run(python("import sys; sys.stderr.write('out of luck'); sys.exit(3)"), {}, tmp_path)


def test_a_command_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match="no-such-command"):
        run(Command(("no-such-command",)), {}, tmp_path)


@pytest.mark.skipif(not usable(Gzip()), reason="gzip is not installed")
def test_gzip_goes_through_every_step(corpus: Corpus, tmp_path: Path) -> None:
    samples = compare(corpus, [Gzip()], rounds=2, work=tmp_path / "work")
    (sample,) = samples.values()
    assert sample.mismatches == []
    assert len(sample.disk_bytes) == len(sample.costs["restore"]) == 2
    assert sample.disk_bytes_collected[0] < sample.disk_bytes[0]
    document = as_document(corpus, samples)
    assert document["tools"]["gzip -6"]["stored_bytes"]["median"] == sample.disk_bytes[0]
    assert document["layerstore_relative_to"] == {}
    assert "Medians of 2 rounds" in as_text(corpus, samples)
