import gzip
import hashlib
import io
import json
import random
import shutil
import socket
import subprocess
import sys
import tarfile
import threading
from pathlib import Path

import pytest

from benchmarks import registry
from benchmarks.console import BenchmarkError
from benchmarks.image_tools import COMPRESSORS, write_layout
from benchmarks.images import LayerFile, make_image
from benchmarks.layer_tar import Node, write_layer
from benchmarks.registry_collection import COLLECTING, Waits
from benchmarks.registry_driver import layer_blocks
from benchmarks.registry_images import PAIRS, PLANS, ImageSet, differing
from benchmarks.registry_relay import Relay
from benchmarks.registry_report import Step, percentile, row_of
from benchmarks.registry_servers import OURS, THEIRS, TOOLS, anonymous_of, cpu_of, process_tree, require_tools
from benchmarks.registry_update import Traffic, Update
from layerstore.encodings.encoders import EncoderNumber, is_available

NO_ENCODERS = [] if all(map(is_available, EncoderNumber)) else ["the encoders"]
MISSING = NO_ENCODERS + [name for name in TOOLS if shutil.which(name) is None]
needs_tools = pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")
WORDS = [random.Random(number).randbytes(5).hex() for number in range(2000)]


def text(seed: int, words: int) -> bytes:
    return " ".join(random.Random(seed).choices(WORDS, k=words)).encode()


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    """Two versions of an image: the lower layer is the same, the other one changed in one small file."""
    folder = tmp_path / "layers"
    folder.mkdir()
    known, blobs, paths = {}, {}, []
    for number in range(3):
        path = folder / f"{number}.tar"
        shared, own = text(0, 100_000), text(number, 1000)
        tree = {"a": Node(0o644, lambda shared=shared: shared), "b": Node(0o644, lambda own=own: own)}
        write_layer(path, tree, 1_700_000_000)
        packed = path.with_suffix(".gz")
        packed.write_bytes(gzip.compress(path.read_bytes(), 6, mtime=0))
        known[path] = LayerFile.of(path)
        blobs[known[path].digest] = LayerFile.of(packed)
        paths.append(path)
    images = [make_image(f"shop:1.{n}", "shop", [paths[0], paths[n]], known) for n in (1, 2)]
    return write_layout(images, blobs, tmp_path / "layout")


def test_there_are_thirty_images_and_every_pair_is_among_those_of_the_line() -> None:
    names = [plan.name for plans in PLANS.values() for plan in plans]
    assert len(set(names)) == len(names) == 30
    line = {plan.name for plan in PLANS["product line"]}
    assert all({old, new} <= line for old, new in PAIRS)
    assert {layer.tool for plans in PLANS.values() for plan in plans for layer in plan.layers} <= set(COMPRESSORS)


def test_a_set_knows_its_distinct_blobs_and_what_is_new_in_a_version(layout: Path) -> None:
    images = ImageSet.of(layout)
    assert images.names == ["shop:1.1", "shop:1.2"]
    assert len(images.layers) == 3
    assert len(images.blobs) == 3 + 2
    sizes = {path.name: path.stat().st_size for path in (layout / "blobs" / "sha256").iterdir()}
    assert images.blob_bytes == sum(sizes[digest[7:]] for digest in images.blobs)
    new = images.new_bytes("shop:1.1", "shop:1.2")
    assert 0 < new < images.blob_bytes / 2
    assert images.new_bytes("shop:1.1", "shop:1.1") == 0


def test_a_blob_that_is_missing_or_other_is_found(layout: Path, tmp_path: Path) -> None:
    images = ImageSet.of(layout)
    other = tmp_path / "other"
    shutil.copytree(layout, other)
    assert differing(images, other) == []
    first, second = list(images.blobs)[:2]
    (other / "blobs" / first.replace(":", "/")).unlink()
    (other / "blobs" / second.replace(":", "/")).write_bytes(b"wrong")
    assert differing(images, other) == [first, second]


def test_what_is_no_layout_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match="no layout of images"):
        ImageSet.of(tmp_path)


def test_rates_and_ratios_are_those_of_each_round() -> None:
    step = Step("push", 100_000_000)
    for ours, theirs in ((2, 1), (1, 1), (4, 1)):
        step.add(OURS, ours, 0.5, 0.25)
        step.add(THEIRS, theirs, 0.125, 0.25)
    assert step.rates(OURS) == [50, 100, 25]
    assert step.ratios(OURS, THEIRS) == [0.5, 1, 0.25]
    row = row_of(step, OURS, THEIRS)
    assert row[:5] == ["push", "100.0", "50.0 (25.0-100.0)", "100.0 (100.0-100.0)", "0.50 (0.25-1.00)"]
    assert row[5].startswith("0.50 ")


@pytest.mark.parametrize(("count", "share", "expected"), [(1, 0.99, 1), (100, 0.99, 99), (200, 0.99, 198), (4, 0.5, 2)])
def test_a_percentile_is_a_value_that_was_measured(count: int, share: float, expected: int) -> None:
    values = list(range(count, 0, -1))
    assert percentile(values, share) == expected


def test_traffic_counts_both_directions() -> None:
    update = Update("pull", "a:1", "a:2", 5_000_000, Traffic(10_000, 90_000, 1), Traffic(100_000, 4_900_000, 2))
    assert update.ratio == 50
    assert update.row == ["pull", "a:1", "a:2", "5.00", "0.10", "5.00", "50.0", "1.00", "2.00"]


def test_waits_stand_beside_bare_commits() -> None:
    waits = Waits(blobs=[0.004, 0.002, 0.006], manifests=[], commits=[0.002, 0.001, 0.003])
    (row,) = waits.rows(COLLECTING)
    assert row == [COLLECTING, "blob", "3", "4.00", "6.00", "6.00", "2.00", "3.00", "2.0", "2.0"]


def test_an_upload_is_a_valid_gzip_layer_of_the_size_that_was_asked_for() -> None:
    plain = hashlib.sha256()
    blob = b"".join(layer_blocks(3_000_000, 1, plain))
    assert 3_000_000 <= len(blob) < 4_000_000
    tar = gzip.decompress(blob)
    assert hashlib.sha256(tar).digest() == plain.digest()
    with tarfile.open(fileobj=io.BytesIO(tar)) as file:
        assert len({hashlib.sha256(file.extractfile(one).read()).digest() for one in file}) == 4
    assert blob != b"".join(layer_blocks(3_000_000, 2, hashlib.sha256()))


def test_a_relay_counts_what_goes_up_and_down() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                while connection.recv(1024):
                    pass
                connection.sendall(b"b" * 50_000)

        server = threading.Thread(target=answer)
        server.start()
        with Relay(listener.getsockname()[1]) as relay:
            host, _, port = relay.address.partition(":")
            with socket.create_connection((host, int(port))) as client:
                client.sendall(b"a" * 300)
                client.shutdown(socket.SHUT_WR)
                received = 0
                while block := client.recv(65536):
                    received += len(block)
            assert received == 50_000
            assert (relay.up_bytes, relay.down_bytes, relay.bytes) == (300, 50_000, 50_300)
        server.join()


def test_processes_are_counted_with_those_below_them() -> None:
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'print(1, flush=True); input()'])"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        tree = process_tree(process.pid)
        assert tree[0] == process.pid
        assert len(tree) == 2
        assert all(anonymous_of(one) > 1_000_000 for one in tree)
        assert sum(map(cpu_of, tree)) >= 0
        process.communicate(b"\n")
    assert cpu_of(process.pid) == anonymous_of(process.pid) == 0


def test_a_missing_tool_is_named_and_is_status_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BenchmarkError, match="docker-registry, skopeo"):
        require_tools()
    assert registry.main(["--work", str(tmp_path / "work")]) == 2
    assert "apt-get install" in capsys.readouterr().err


@needs_tools
def test_all_parts_run_on_a_small_layout(layout: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    work, figures = tmp_path / "work", tmp_path / "figures.json"
    arguments = ["--work", str(work), "--oci", str(layout), "--rounds", "1", "--seconds", "2", "--uploads", "2"]
    status = registry.main([*arguments, "--upload-size", "8", "--output-json", str(figures)])
    output = capsys.readouterr().out
    assert status == 0, output
    assert all(f"{name}: " in output for name in registry.PARTS)
    document = json.loads(figures.read_text())
    steps = document["throughput"]["steps"]
    assert [step["name"] for step in steps[:2]] == ["push", "push of the same into other repositories"]
    assert all(step["seconds"].keys() == {OURS, THEIRS} and step["ratios"][0] > 0 for step in steps)
    assert document["disk"]["images"] == 2
    assert document["disk"]["docker_registry_bytes"] > document["disk"]["blob_bytes"]
    assert {peak["kind"] for peak in document["memory"]["peaks"]} == {OURS, THEIRS}
    assert all(peak["peak_bytes"] >= peak["idle_bytes"] > 0 for peak in document["memory"]["peaks"])
    pulled, pushed = document["update"]["updates"]
    assert (pulled["direction"], pushed["direction"]) == ("pull", "push")
    assert pulled["ratio"] > 2
    assert pushed["ratio"] > 2
    assert document["collection"][COLLECTING]["collections"] > 0
    assert not list(work.iterdir())
