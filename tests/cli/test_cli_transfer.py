"""import, export, copy: images between the store and other places."""

import io
import json
import os
import shutil
import signal
import subprocess
import tarfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cli_layouts import Layout, digest_of, tar_of, tree, words

from layerstore.cli.progress import progress_bars
from layerstore.cli.settings import Settings
from layerstore.progress import Progress

Run = Callable[..., Any]


def digests(layout: Layout) -> dict[str, str]:
    name = "org.opencontainers.image.ref.name"
    return {root["annotations"][name]: root["digest"] for root in layout.roots}


def roots_of(path: Path) -> dict[str, str]:
    index = json.loads((path / "index.json").read_bytes())
    names = [root.get("annotations", {}).get("org.opencontainers.image.ref.name") for root in index["manifests"]]
    return dict(zip(names, [root["digest"] for root in index["manifests"]], strict=True))


def test_import_of_all(output: Run, document: Run, layout: Layout) -> None:
    lines = output("import", "shop").splitlines()
    known = digests(layout)
    assert [line.split() for line in lines[:-1]] == [[digest, f"shop:{name}"] for name, digest in known.items()]
    assert lines[-1].startswith("4 images: 6 blobs new, ")
    answer = document("import", "shop")
    assert [image["name"] for image in answer["images"]] == [f"shop:{name}" for name in known]
    assert [image["source_name"] for image in answer["images"]] == [*known]
    assert all(image["digest"] == image["source_digest"] for image in answer["images"])
    assert (answer["blobs_copied"], answer["bytes_copied"], answer["blobs_present"]) == (0, 0, 6)
    assert answer["blobs_absent"] == 0 and answer["proof"] is None
    assert output("import", "shop").splitlines()[-1].startswith("4 images: 0 blobs new, 0 B; 6 already present, ")
    assert output("import", "-q", "shop").split() == [*known.values()]
    assert {row["digest"] for row in document("images")} == set(known.values())
    assert output("verify").startswith("clean: 4 images, ")


def test_a_round_trip_gives_the_same_bytes(output: Run, layout: Layout, tmp_path: Path) -> None:
    output("import", "shop")
    for prove in (False, True):
        if prove:
            output("encodings", "prove")
        target = tmp_path / f"again-{prove}"
        output("export", *(f"shop:{name}" for name in digests(layout)), target)
        before, after = tree(layout.path), tree(target)
        for name in ("index.json", "oci-layout"):  # how their JSON is written is each tool's own
            assert json.loads(before.pop(name)).keys() >= {"manifests"} or name == "oci-layout"
            after.pop(name)
        assert before == after
        assert roots_of(target) == digests(layout)
        assert output("-q", "import", target, "--name", "again").split() == [*digests(layout).values()]


def test_import_of_some(output: Run, document: Run, layout: Layout) -> None:
    known = digests(layout)
    output("import", "shop", "1.1", known["1.0"])
    assert [row["tags"] for row in document("images")] == [["shop:1.1"], ["shop:1.0"]]
    output("import", "oci:shop:multi")
    assert document("images")[2]["tags"] == ["shop:multi"]


@pytest.mark.parametrize(
    ("references", "name", "tags"),
    [
        (["1.0"], "registry.example.com:5000/team/x:7", ["registry.example.com:5000/team/x:7"]),
        (["1.0"], "registry.example.com:5000/team/x", ["registry.example.com:5000/team/x:1.0"]),
        (["1.0", "1.1"], "team/x", ["team/x:1.0", "team/x:1.1"]),
        (["1.1"], "y:latest", ["y:latest"]),
    ],
)
def test_names(output: Run, layout: Layout, references: list[str], name: str, tags: list[str]) -> None:
    lines = output("import", "shop", *references, "--name", name).splitlines()
    assert [line.split()[1] for line in lines[:-1]] == tags


def test_a_repository_for_images_with_whole_names(output: Run, layout: Layout) -> None:
    output("import", "shop", "1.0", "1.1")
    output("export", "shop:1.0", "shop:1.1", "both.tar")
    lines = output("import", "both.tar", "--name", "mirror/shop").splitlines()
    assert [line.split()[1] for line in lines[:-1]] == ["mirror/shop:1.0", "mirror/shop:1.1"]


def test_an_image_without_a_name(output: Run, document: Run, tmp_path: Path) -> None:
    other = Layout(tmp_path / "other")
    digest = other.add(other.image(tar_of({"a": b"a"})), None)
    assert output("import", "other").splitlines()[0] == f"{digest}   <none>"
    assert document("images")[0]["tags"] == []
    assert output("import", "other", "--name", "named").splitlines()[0] == f"{digest}   named:latest"
    output("export", digest, "out", "--name", "x")
    assert roots_of(Path("out")) == {"x": digest}


def test_an_empty_layout(output: Run, document: Run, tmp_path: Path) -> None:
    Layout(tmp_path / "empty")
    assert output("import", "empty") == "0 images: 0 blobs new, 0 B\n"
    assert document("import", "empty", "--name", "x")["images"] == []


def test_one_platform(run: Run, output: Run, document: Run, layout: Layout) -> None:
    (image,) = document("import", "shop", "multi", "--platform", "linux/s390x", "--name", "big:1")["images"]
    assert image["digest"] != digests(layout)["multi"]
    assert document("images")[0]["platforms"] == ["linux/s390x"]
    output("import", "shop", "multi")
    output("export", "shop:multi", "one", "--platform", "linux/s390x")
    assert roots_of(Path("one")) == {"multi": image["digest"]}
    result = run("import", "shop", "--platform", "windows/amd64")
    assert result.exit_code == 3 and "linux/s390x" in result.stderr
    assert run("import", "shop", "--platform", "s390x").exit_code == 2


def test_referrers(output: Run, document: Run, layout: Layout) -> None:
    output("import", "shop", "1.0")
    assert len(document("images")) == 1
    output("import", "shop", "1.0", "--referrers")
    assert [row["kind"] for row in document("images")] == ["image", "artifact"]
    output("export", "shop:1.0", "alone")
    output("export", "shop:1.0", "signed", "--referrers")
    assert set(roots_of(Path("alone"))) == {"1.0"} and set(roots_of(Path("signed"))) == {"1.0", "signature"}


def test_import_can_prove(output: Run, document: Run, layout: Layout) -> None:
    pytest.importorskip("layerstore.encodings._encoders", reason="the extension module was not built")
    output("import", "shop", "1.1")
    answer = document("import", "shop", "1.0", "--prove")
    assert answer["proof"]["proved"] == 2 and answer["proof"]["bytes_freed"] > 0
    kept = {tuple(row["tags"]): row["kept_as"] for row in document("encodings")}
    assert kept[("shop:1.1",)] == "queued" and kept[("shop:1.0",)] == "recipe"
    assert output("import", "shop", "1.1", "--prove").splitlines()[-1].startswith("proved 1 encoding; that freed ")


def test_pipes(run: Run, output: Run, document: Run, layout: Layout) -> None:
    output("import", "shop")
    for format in ("docker-archive", "oci-archive"):
        archive = run("export", "shop:1.0", "-", "--format", format)
        assert (archive.exit_code, archive.stderr) == (0, "")
        Path("x.tar").write_bytes(archive.stdout_bytes)
        with tarfile.open("x.tar") as tar:
            assert ("manifest.json" in tar.getnames()) == (format == "docker-archive")
        assert run("copy", "shop", f"{format}:-", "1.0").stdout_bytes[:5] == b"blobs"
        lines = output("import", "-", "--name", "piped", input=archive.stdout_bytes).splitlines()
        assert lines[0].split() == [digests(layout)["1.0"], "piped:1.0"]
    result = run("import", "-", input=archive.stdout_bytes)
    assert result.exit_code == 2 and "repository" in result.stderr  # 1.0 is no whole name
    result = run("export", "shop:1.0", "-", "--json")
    assert json.loads(result.stderr)["images"][0]["name"] == "shop:1.0"
    for options in ((), ("--format", "docker-archive"), ("--format", "oci-archive")):
        for data in (b"no archive", b""):
            result = run("import", "-", *options, input=data)
            assert result.exit_code == 2 and "the standard input is no valid tar" in result.stderr
    assert run("import", "-", "--format", "oci", input=b"").exit_code == 2
    assert run("export", "shop:1.0", "-", "--format", "oci").exit_code == 2
    assert run("export", "shop:1.0", "oci-archive:-", "--format", "docker-archive").exit_code == 2


def test_piping_through_the_real_program(output: Run, process: Run, layout: Layout) -> None:
    output("import", "shop", "1.0")
    exported = process("export", "shop:1.0", "-")
    imported = process("import", "-", "--name", "piped", stdin=exported.stdout)
    out, err = imported.communicate()
    assert (imported.returncode, err) == (0, b"")
    assert out.split()[:2] == [digests(layout)["1.0"].encode(), b"piped:1.0"]
    exported.stdout.close()
    assert exported.stderr.read() == b"" and exported.wait() == 0
    exported.stderr.close()


def test_a_reader_that_goes_away(output: Run, process: Run, tmp_path: Path) -> None:
    other = Layout(tmp_path / "other")
    other.add(other.image(tar_of({"noise": os.urandom(3_000_000)})), "1")
    output("import", "other")
    child = process("export", "other:1", "-")
    child.stdout.read(10)
    child.stdout.close()
    assert child.stderr.read() == b""
    assert child.wait() == 141
    child.stderr.close()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_bar_for_each_blob_that_is_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with progress_bars(Settings()) as show:
        assert show is not None
        show(Progress("copy", "first", 1 << 20, 2 << 20))
        show(Progress("copy", "second", 0, None, note="red\x1b[31m"))
        show(Progress("copy", "third", 5, 5))
        show(Progress("recompress", "fourth", 1, 9))
        show(Progress("recompress", "fourth", 9, 9))
        terminal.truncate(0)
    shown = terminal.getvalue()
    assert "copy first" in shown and "1.0 MiB / 2.0 MiB" in shown and "copy second red\\x1b[31m" in shown
    assert "third" not in shown and "fourth" not in shown
    with progress_bars(Settings()) as show:
        assert show is not None
        show(Progress("copy", "first", 1, 2))
        show(Progress("copy", "second", 3, 4))
        show(Progress("copy", "first", 2, 2))
        show(Progress("copy", "second", 4, 4))
        terminal.truncate(0)
    assert "copy first" not in terminal.getvalue() and "copy second" in terminal.getvalue()
    with progress_bars(Settings(quiet=True)) as nothing:
        assert nothing is None


def test_a_terminal_sees_progress_and_stdout_does_not(process: Run, tmp_path: Path) -> None:
    other = Layout(tmp_path / "other")
    other.add(other.image(*(tar_of({"noise": os.urandom(10_000_000)}) for _ in range(3)), level=0), "1")
    seen: list[bytes] = []
    master, slave = os.openpty()

    def drain() -> None:
        while True:
            try:
                seen.append(os.read(master, 65536))
            except OSError:  # the other side is closed
                return

    reader = threading.Thread(target=drain)
    child = process("import", "other", stderr=slave, env={"TERM": "xterm", "COLUMNS": "120"})
    os.close(slave)
    reader.start()
    out, _ = child.communicate()
    reader.join()
    os.close(master)
    assert child.returncode == 0
    text = b"".join(seen).decode()
    assert "copy " in text and "MiB" in text
    assert b"\x1b" not in out and out.count(b"\n") == 2


@pytest.mark.parametrize(
    ("arguments", "exit_code", "told"),
    [
        (["import", "absent"], 3, "no file or directory absent"),
        (["import", "oci-archive:absent"], 3, "absent"),
        (["import", "store:absent"], 3, "no store"),
        (["import", "shop", "nosuch"], 3, "it has 1.0, 1.1, multi, signature"),
        (["import", "oci:shop:nosuch"], 3, "nosuch"),
        (["import", "oci:shop:1.0", "1.1"], 2, "names the image '1.0' already"),
        (["import", "shop", "--name", "a:1"], 2, "4 images"),
        (["import", "shop", "--name", "Bad Name"], 2, "Bad Name"),
        (["import", "shop", "1.0", "--name", ""], 2, ""),
        (["import", "shop", "--format", "docker-archive"], 2, ""),
        (["import", "shop", "--format", "nosuch"], 2, "nosuch"),
        (["import", "shop", "--jobs", "0"], 2, "0"),
        (["import", "oci:"], 2, "no path"),
        (["import", ""], 2, "empty"),
        (["import", "text"], 2, "text"),
        (["import", "folder"], 2, "folder"),
        (["export", "shop:1.0"], 2, "REF..."),
        (["export", "nosuch", "out"], 3, "nosuch"),
        (["export", "shop:1.0", "text"], 2, "text"),
        (["export", "shop:1.0", "folder"], 4, "folder"),
        (["export", "shop:1.0", "docker-archive:text"], 4, "exists"),
        (["export", "shop:1.0", "text/x.tar"], 5, "text"),
        (["export", "shop:1.0", "oci:out:a", "--name", "b"], 2, "--name"),
        (["export", "shop:1.0", "shop:1.1", "out", "--name", "b"], 2, "2 images"),
        (["export", "shop:1.0", "out", "--compression", "xz"], 2, "xz"),
        (["export", "shop:1.0", "out", "--platform", "linux"], 2, "linux"),
        (["export", "shop:1.0", "out.tar.gz"], 2, "name it .tar"),
        (["copy", "shop"], 2, "SINK"),
        (["copy", "absent", "out"], 3, "absent"),
        (["copy", "shop", "store:absent"], 3, "absent"),
        (["copy", "shop", "out", "nosuch"], 3, "nosuch"),
        (["copy", "shop", "docker-archive:x.tar", "1.0", "--name", "Bad Name"], 2, "Bad Name"),
    ],
)
def test_what_is_refused(
    run: Run, output: Run, document: Run, layout: Layout, arguments: list[str], exit_code: int, told: str
) -> None:
    output("import", "shop", "1.0", "1.1")
    Path("text").write_text("neither tar nor layout")
    Path("folder").mkdir()
    Path("folder/file").write_text("x")
    result = run(*arguments)
    assert result.exit_code == exit_code, result.output
    assert result.stderr.startswith("layerstore: ") and len(result.stderr.splitlines()) == 1
    assert told in result.stderr and result.stdout == ""
    assert len(document("images")) == 2
    assert not Path("out").exists() and not Path("x.tar").exists()


def test_damage_in_a_place(run: Run, output: Run, document: Run, layout: Layout) -> None:
    blob = max(layout_blobs_of(layout, "1.0"), key=lambda file: file.stat().st_size)
    good = blob.read_bytes()
    blob.write_bytes(good[:-9] + b"x" + good[-8:])
    result = run("import", "shop", "1.0", "--json")
    assert result.exit_code == 2 and json.loads(result.stderr)["error"]["code"] == "digest-mismatch"
    blob.write_bytes(good[:-1])
    assert run("import", "shop", "1.0").exit_code == 2
    blob.unlink()
    result = run("import", "shop", "1.0")
    assert result.exit_code == 3 and digest_of(good) in result.stderr
    assert document("images") == []
    blob.write_bytes(good)
    output("import", "shop", "1.0")


def layout_blobs_of(layout: Layout, name: str) -> list[Path]:
    manifest = json.loads(layout.file(digests(layout)[name]).read_bytes())
    return [layout.file(layer["digest"]) for layer in manifest["layers"]]


def test_compression_makes_other_digests(output: Run, document: Run, layout: Layout, run: Run) -> None:
    output("import", "shop")
    before = digests(layout)["1.0"]
    line = output("export", "shop:1.0", "zstd", "--compression", "zstd").splitlines()[0]
    after = roots_of(Path("zstd"))["1.0"]
    assert line == f"{after}   1.0   (was {before})" and after != before
    (image,) = document("export", "shop:1.0", "none", "--compression", "none")["images"]
    assert image["source_digest"] == before and image["digest"] not in (before, after)
    manifest = json.loads((Path("none/blobs/sha256") / image["digest"][7:]).read_bytes())
    config = json.loads((Path("none/blobs/sha256") / manifest["config"]["digest"][7:]).read_bytes())
    assert [layer["digest"] for layer in manifest["layers"]] == config["rootfs"]["diff_ids"]
    result = run("export", "shop:1.0", "-", "--compression", "zstd")
    assert (result.exit_code, result.stderr.count("(was")) == (0, 1)
    assert output("copy", "none", "gzip.tar", "--compression", "none").count("(was") == 0


def test_an_image_of_pushed_layers_has_plain_layers(output: Run, shop: str, base: Path) -> None:
    output("export", "shop:1.0", "out")
    manifest = json.loads((Path("out/blobs/sha256") / shop[7:]).read_bytes())
    assert manifest["layers"][0]["mediaType"].endswith(".tar")
    assert (Path("out/blobs/sha256") / digest_of(base.read_bytes())[7:]).read_bytes() == base.read_bytes()
    output("export", shop[7:19], "again", "--name", "v1")
    assert roots_of(Path("again")) == {"v1": shop}


def test_an_encoding_that_cannot_be_made_here(
    run: Run, output: Run, document: Run, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("layerstore.encodings._encoders", reason="the extension module was not built")
    output("import", "shop", "1.0", "--prove")
    monkeypatch.setattr("layerstore.encodings.encoders._encoders", None)
    result = run("export", "shop:1.0", "out")
    assert result.exit_code == 5 and "--compression zstd" in result.stderr
    assert json.loads(run("--json", "export", "shop:1.0", "out").stderr)["error"]["code"] == "encoder-unavailable"
    assert not Path("out").exists()
    for compression in ("zstd", "none"):
        assert "(was" in output("export", "shop:1.0", compression, "--compression", compression)


def test_copy_needs_no_store(bare: Run, layout: Layout, tmp_path: Path) -> None:
    def succeed(*arguments: object) -> str:
        result = bare(*arguments)
        assert (result.exit_code, result.stderr) == (0, ""), result.output
        return result.stdout

    known = digests(layout)
    assert succeed("copy", "shop", "oci-archive:a.oci").splitlines()[0] == f"{known['1.0']}   1.0"
    assert succeed("-q", "copy", "oci-archive:a.oci", "b").split() == [*known.values()]
    assert tree(Path("b")) == tree(layout.path)
    assert json.loads(succeed("copy", "shop", "c", "1.0", "1.1", "--json"))["blobs_copied"] == 3
    assert set(roots_of(Path("c"))) == {"1.0", "1.1"}
    assert "x/y:1" in succeed("copy", "oci:shop:1.1", "d.tar", "--name", "x/y:1")
    assert bare("--store", "s", "init").exit_code == 0
    assert "x/y:1" in succeed("copy", "d.tar", "store:s")
    assert "1" in roots_of_copy(succeed, "store:s", Path("e"))


def roots_of_copy(succeed: Callable[..., str], source: str, target: Path) -> dict[str, str]:
    succeed("copy", source, target)
    return roots_of(target)


def test_images_from_skopeo(output: Run, layout: Layout, tmp_path: Path) -> None:
    if shutil.which("skopeo") is None:
        pytest.skip("skopeo is not installed")

    def skopeo(*arguments: str) -> None:
        policy = ("--insecure-policy", "--tmpdir", str(tmp_path))
        done = subprocess.run(["skopeo", *policy, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    skopeo("copy", "oci:shop:1.0", "docker-archive:skopeo.tar:shop:1.0")
    skopeo("copy", "oci:shop:1.0", "oci:from-skopeo:1.0", "--dest-compress-format", "gzip")
    assert "shop:1.0" in output("import", "skopeo.tar")
    output("import", "from-skopeo", "--name", "again")
    output("export", "again:1.0", "out.tar")
    output("export", "again:1.0", "out")
    skopeo("copy", "docker-archive:out.tar:again:1.0", "dir:unpacked")
    skopeo("copy", "oci:out:1.0", "dir:unpacked2")
    assert (tmp_path / "unpacked2" / "manifest.json").read_bytes() == layout.file(digests(layout)["1.0"]).read_bytes()


def test_an_image_made_by_umoci(output: Run, document: Run, tmp_path: Path) -> None:
    if shutil.which("umoci") is None:
        pytest.skip("umoci is not installed")
    layer = tmp_path / "layer.tar"
    layer.write_bytes(tar_of({"file": words(5, 1000)}))
    for command in (
        ["init", "--layout", "made"],
        ["new", "--image", "made:1"],
        ["raw", "add-layer", "--image", "made:1", str(layer)],
    ):
        done = subprocess.run(["umoci", *command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    output("import", "made")
    (found,) = document("inspect", "made:1")["layers"]
    assert found["diff_id"] == digest_of(layer.read_bytes()) and found["blob"]["kept_as"] == "queued"
    output("export", "made:1", "again")
    mine = tree(Path("again"))
    assert {name: data for name, data in tree(Path("made")).items() if name in mine and "blobs" in name}.items() <= (
        mine.items()
    )


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_an_import_cleanly(
    process: Run, document: Run, tmp_path: Path, number: int, exit_code: int
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    child = process("import", "-", stdin=-1, env={"TMPDIR": str(temporary)})
    child.stdin.write(os.urandom(3_000_000))
    child.stdin.flush()
    deadline = time.monotonic() + 30
    while not list(temporary.rglob("*.tar")):
        assert time.monotonic() < deadline and child.poll() is None
        time.sleep(0.01)
    child.send_signal(number)
    _, err = child.communicate()
    assert child.returncode == exit_code
    assert err == (b"layerstore: interrupted\n" if number == signal.SIGINT else b"")
    assert list(temporary.iterdir()) == [] and document("images") == []


def test_an_interrupt_says_what_is_kept(run: Run, layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("layerstore.cli.copies.copy", interrupted)
    result = run("import", "shop")
    assert result.exit_code == 130 and "not copied again" in result.stderr


def test_names_from_a_place_cannot_harm_a_terminal(run: Run, tmp_path: Path) -> None:
    other = Layout(tmp_path / "other")
    other.add(other.image(tar_of({"a": b"a"})), "red\x1b[31m")
    for arguments in (("import", "other"), ("import", "other", "nosuch"), ("copy", "other", "out")):
        result = run(*arguments)
        assert "\x1b" not in result.output
