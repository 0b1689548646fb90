"""Real clients push, pull and run: what comes back is what went in, bit for bit."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import oras.client
from client_images import ACCEPT, FILES, GREETING, closure, digest_of, get, layers_of, served
from places_samples import LayoutMaker, needs, run, tree
from server_process import ServerProcess

Storage = Callable[[str], list[str]]

# runc, as crun 1.8 does not know mixed cgroups; the limits are those that a container may set.
PODMAN_RUN = ("--network", "none", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024")


def push(layout: LayoutMaker, name: str, server: ServerProcess, repository: str, tag: str = "") -> str:
    """Push with skopeo; what the registry calls it."""
    needs("skopeo")
    target = f"{server.address}/{repository}:{tag or name}"
    run("skopeo", "copy", "--all", "--dest-tls-verify=false", f"oci:{layout.path}:{name}", f"docker://{target}")
    return target


def pull(source: str, folder: Path, name: str) -> None:
    run("skopeo", "copy", "--all", "--src-tls-verify=false", f"docker://{source}", f"oci:{folder}:{name}")


def test_skopeo_copies_in_and_out(server: ServerProcess, layout: LayoutMaker, tmp_path: Path) -> None:
    """gzip and zstd layers, and an index of two platforms: the blobs of the two layouts are the same files."""
    names = ("1.0", "zstd", "multi")
    for name in names:
        source = push(layout, name, server, "skopeo/shop")
        assert served(server.url, "skopeo/shop", name) == closure(layout, name)
        pull(source, tmp_path / "copy", name)
    assert tree(tmp_path / "copy" / "blobs") == tree(layout.path / "blobs")
    found = json.loads(run("skopeo", "list-tags", "--tls-verify=false", f"docker://{server.address}/skopeo/shop"))
    assert found["Tags"] == sorted(names)
    inspected = json.loads(run("skopeo", "inspect", "--tls-verify=false", f"docker://{server.address}/skopeo/shop:1.0"))
    assert inspected["Digest"] == layout.roots[0]["digest"]


def test_skopeo_copies_from_repository_to_repository(server: ServerProcess, layout: LayoutMaker) -> None:
    """It mounts what is there; the other repository has the same image."""
    source = push(layout, "multi", server, "skopeo/one")
    plain = ("--src-tls-verify=false", "--dest-tls-verify=false")
    run("skopeo", "copy", "--all", *plain, f"docker://{source}", f"docker://{server.address}/skopeo/other:copy")
    assert served(server.url, "skopeo/other", "copy") == closure(layout, "multi")


def test_skopeo_deletes(server: ServerProcess, layout: LayoutMaker) -> None:
    """All tags of the image go, and the others stay."""
    for name, tag in (("1.0", "a"), ("1.0", "b"), ("zstd", "c")):
        push(layout, name, server, "skopeo/gone", tag)
    run("skopeo", "delete", "--tls-verify=false", f"docker://{server.address}/skopeo/gone:a")
    found = json.loads(run("skopeo", "list-tags", "--tls-verify=false", f"docker://{server.address}/skopeo/gone"))
    assert found["Tags"] == ["c"]
    assert push(layout, "1.0", server, "skopeo/gone", "a")
    assert served(server.url, "skopeo/gone", "a") == closure(layout, "1.0")


def test_skopeo_and_docker_manifests(server: ServerProcess, layout: LayoutMaker, tmp_path: Path) -> None:
    """A manifest of Docker's kind is kept as one."""
    target = f"docker://{server.address}/skopeo/docker:1.0"
    run("skopeo", "copy", "--format=v2s2", "--dest-tls-verify=false", f"oci:{layout.path}:1.0", target)
    manifest = get(f"{server.url}/v2/skopeo/docker/manifests/1.0", Accept=ACCEPT)
    assert json.loads(manifest)["mediaType"] == "application/vnd.docker.distribution.manifest.v2+json"
    run("skopeo", "copy", "--src-tls-verify=false", target, f"dir:{tmp_path}/dir")
    assert (tmp_path / "dir" / "manifest.json").read_bytes() == manifest
    layers = layers_of(served(server.url, "skopeo/docker", "1.0"))
    assert layers == layers_of(closure(layout, "1.0"))
    assert [digest_of((tmp_path / "dir" / layer[7:]).read_bytes()) for layer in layers] == layers


def test_umoci_makes_and_unpacks(server: ServerProcess, tmp_path: Path) -> None:
    """What umoci made goes through the registry; what it then unpacks are the files."""
    needs("umoci")
    needs("skopeo")
    files = tmp_path / "files"
    for name, data in FILES.items():
        (files / name).parent.mkdir(parents=True, exist_ok=True)
        (files / name).write_bytes(data)
    run("umoci", "init", "--layout", tmp_path / "made")
    run("umoci", "new", "--image", f"{tmp_path}/made:1")
    run("umoci", "insert", "--image", f"{tmp_path}/made:1", files, "/")
    run("umoci", "gc", "--layout", tmp_path / "made")
    target = f"docker://{server.address}/umoci/made:1"
    run("skopeo", "copy", "--dest-tls-verify=false", f"oci:{tmp_path}/made:1", target)
    run("skopeo", "copy", "--src-tls-verify=false", target, f"oci:{tmp_path}/copy:1")
    assert tree(tmp_path / "copy" / "blobs") == tree(tmp_path / "made" / "blobs")
    run("umoci", "unpack", "--rootless", "--image", f"{tmp_path}/copy:1", tmp_path / "bundle")
    assert tree(tmp_path / "bundle" / "rootfs") == FILES


def test_podman_pulls_runs_commits_and_pushes(
    server: ServerProcess, layout: LayoutMaker, podman: Storage, tmp_path: Path
) -> None:
    """A commit of podman's on a pulled image: pushed, then pulled by a podman that has nothing, and run."""
    one, other = podman("one"), podman("other")
    base = push(layout, "1.0", server, "podman/shop")
    run(*one, "pull", "--tls-verify=false", base)
    assert run(*one, "run", *PODMAN_RUN, "--rm", base, "/bin/cat", "/app/greeting").encode() == GREETING
    script = "echo more > /app/more; rm /app/empty"
    run(*one, "run", *PODMAN_RUN, "--name", "changed", base, "/bin/sh", "-c", script)
    target = f"{server.address}/podman/shop:2.0"
    run(*one, "commit", "changed", target)
    run(*one, "push", "--tls-verify=false", "--digestfile", tmp_path / "digest", target)
    contents = served(server.url, "podman/shop", "2.0")
    assert next(iter(contents)) == (tmp_path / "digest").read_text()
    run(*other, "pull", "--tls-verify=false", target)
    show = "cat /app/greeting /app/more; ls /app/empty || true"
    listed = run(*other, "run", *PODMAN_RUN, "--rm", target, "/bin/sh", "-c", show)
    assert listed.encode() == GREETING + b"more\n"
    for_both = [run(*each, "image", "inspect", "--format", "{{.Id}}", target) for each in (one, other)]
    assert for_both[0] == for_both[1]
    inspected = json.loads(run(*one, "image", "inspect", target))[0]["RootFS"]["Layers"]
    pull(target, tmp_path / "copy", "2.0")
    config = json.loads(contents[json.loads(next(iter(contents.values())))["config"]["digest"]])
    assert config["rootfs"]["diff_ids"] == inspected


def test_podman_pushes_a_manifest_list(
    server: ServerProcess, layout: LayoutMaker, podman: Storage, tmp_path: Path
) -> None:
    """An index that podman made of two platforms, with both images."""
    command = podman("one")
    push(layout, "multi", server, "podman/parts")
    index = json.loads(layout.blob_path(layout.roots[2]["digest"]).read_bytes())
    digests = [child["digest"] for child in index["manifests"]]
    run(*command, "manifest", "create", "both")
    for digest in digests:
        part = f"docker://{server.address}/podman/parts@{digest}"
        run(*command, "manifest", "add", "--tls-verify=false", "both", part)
    target = f"docker://{server.address}/podman/both:1"
    run(*command, "manifest", "push", "--tls-verify=false", "--all", "both", target)
    contents = served(server.url, "podman/both", "1")
    pushed = json.loads(next(iter(contents.values())))["manifests"]
    assert {child["digest"] for child in pushed} == set(digests)
    assert {child["platform"]["architecture"] for child in pushed} == {"amd64", "arm64"}
    expected = closure(layout, "multi")
    assert {digest: expected[digest] for digest in expected if digest in contents} == {
        digest: data for digest, data in contents.items() if digest in expected
    }
    assert len(contents) == len(expected)


def test_buildah_builds_pushes_and_mounts(
    server: ServerProcess, layout: LayoutMaker, buildah: Storage, tmp_path: Path
) -> None:
    """A container on a pulled image, changed and committed; another buildah mounts what it pulled."""
    one, other = buildah("one"), buildah("other")
    base = push(layout, "1.0", server, "buildah/shop")
    container = run(*one, "from", "--tls-verify=false", base).strip().splitlines()[-1]
    program = run(*one, "run", "--isolation", "chroot", container, "/bin/cat", "/app/greeting")
    assert program.encode() == GREETING
    (tmp_path / "added").write_bytes(FILES["app/noise"])
    run(*one, "copy", container, tmp_path / "added", "/app/added")
    run(*one, "config", "--cmd", "/bin/sh", container)
    target = f"{server.address}/buildah/shop:2.0"
    run(*one, "commit", container, target)
    run(*one, "push", "--tls-verify=false", target)
    served(server.url, "buildah/shop", "2.0")
    again = run(*other, "from", "--tls-verify=false", target).strip().splitlines()[-1]
    mounted = Path(run(*other, "mount", again).strip())
    for name, data in (FILES | {"app/added": FILES["app/noise"]}).items():
        assert (mounted / name).read_bytes() == data
    run(*other, "umount", again)


def test_docker_pulls_runs_commits_and_pushes(
    server: ServerProcess, layout: LayoutMaker, docker: list[str], tmp_path: Path
) -> None:
    """The daemon runs what it pulled, pushes a commit, forgets everything and pulls it again."""
    base = push(layout, "1.0", server, "docker/shop")
    run(*docker, "pull", base)
    assert run(*docker, "run", "--network=none", "--rm", base, "/bin/cat", "/app/greeting").encode() == GREETING
    script = "echo more > /app/more; rm /app/empty"
    run(*docker, "run", "--network=none", "--name", "changed", base, "/bin/sh", "-c", script)
    target = f"{server.address}/docker/shop:2.0"
    run(*docker, "commit", "changed", target)
    run(*docker, "push", target)
    pushed = run(*docker, "image", "inspect", "--format", "{{.Id}} {{index .RepoDigests 0}}", target)
    contents = served(server.url, "docker/shop", "2.0")
    assert pushed.strip().endswith(next(iter(contents)))
    run(*docker, "rm", "changed")
    run(*docker, "rmi", base, target)
    run(*docker, "pull", target)
    assert run(*docker, "image", "inspect", "--format", "{{.Id}} {{index .RepoDigests 0}}", target) == pushed
    show = "cat /app/greeting /app/more; ls /app/empty 2>/dev/null || true"
    shown = run(*docker, "run", "--network=none", "--rm", target, "/bin/sh", "-c", show)
    assert shown.encode() == GREETING + b"more\n"
    run(*docker, "rmi", target)
    run(*docker, "pull", "--platform=linux/arm64", push(layout, "multi", server, "docker/shop"))


def test_containerd_pulls_runs_and_pushes(
    server: ServerProcess, layout: LayoutMaker, ctr: list[str], tmp_path: Path
) -> None:
    """What containerd pulled runs, and is pushed to another repository; so is an index with all its platforms."""
    images = [*ctr, "images"]
    base = push(layout, "1.0", server, "containerd/shop")
    run(*images, "pull", "--plain-http", "--snapshotter=native", base)
    options = ["--rm", "--snapshotter=native", "--runc-binary=runc", "--net-host"]
    name = f"shop-{server.port}"
    assert run(*ctr, "run", *options, base, name, "/bin/cat", "/app/greeting").encode() == GREETING
    target = f"{server.address}/containerd/other:2.0"
    run(*images, "push", "--plain-http", target, base)
    assert served(server.url, "containerd/other", "2.0") == closure(layout, "1.0")
    both = push(layout, "multi", server, "containerd/shop")
    run(*images, "pull", "--plain-http", "--snapshotter=native", "--all-platforms", both)
    run(*images, "push", "--plain-http", f"{server.address}/containerd/other:both", both)
    assert served(server.url, "containerd/other", "both") == closure(layout, "multi")


def test_oras_pushes_and_pulls_an_artifact(server: ServerProcess, tmp_path: Path) -> None:
    """Files of any kind, as one piece and in chunks."""
    client = oras.client.OrasClient(insecure=True)
    paths = []
    for name, data in (("notes.txt", GREETING), ("noise.bin", FILES["app/noise"])):
        path = tmp_path / name
        path.write_bytes(data)
        paths.append(str(path))
    for number, options in enumerate(({}, {"do_chunked": True, "chunk_size": 40_000})):
        target = f"{server.address}/oras/files:{number}"
        client.push(target, files=paths, disable_path_validation=True, **options)
        pulled = client.pull(target, outdir=str(tmp_path / f"out{number}"))
        assert {Path(one).name: Path(one).read_bytes() for one in pulled} == {
            "notes.txt": GREETING,
            "noise.bin": FILES["app/noise"],
        }
        served(server.url, "oras/files", str(number))


def test_layerstore_copies_out_what_was_pushed(server: ServerProcess, layout: LayoutMaker, tmp_path: Path) -> None:
    """The images of the registry are the images of the store; the command line has the same bytes."""
    push(layout, "multi", server, "own/shop")
    command = [
        sys.executable,
        "-m",
        "layerstore",
        "--store",
        server.store,
        "export",
        "own/shop:multi",
        f"oci:{tmp_path}/out",
    ]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=60, check=False)
    assert not done.returncode, done.stderr
    exported = tree(tmp_path / "out" / "blobs" / "sha256")
    assert {f"sha256:{name}": data for name, data in exported.items()} == closure(layout, "multi")
