"""What a container must not be able to do to this machine, and what it is told; with each runtime that is there."""

import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from layerstore import Image, Store
from layerstore.errors import InvalidInputError, InvalidOptionError
from layerstore.running import RunOptions, run_container
from layerstore.running.options import Volume
from layerstore.running.specification import for_user, runtime_config, unsafe_labels

pytestmark = pytest.mark.usefixtures("mounts")


@pytest.fixture(params=["runc", "bwrap"])
def runtime(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if shutil.which(name) is None:
        pytest.skip(f"there is no {name}")
    return name


def shell(image: Image, script: str, runtime: str, user: str | None = None) -> int:
    container = image.container(None)
    try:
        return run_container(container, RunOptions(command=("sh", "-c", script), user=user), runtime=runtime)
    finally:
        container.remove()


@pytest.mark.parametrize("user", ["0", "app"])
@pytest.mark.parametrize("name", ["sys/kernel/core_pattern", "sys/vm/drop_caches", "sysrq-trigger", "sys/kernel/panic"])
def test_nothing_of_the_kernel_is_writable(image: Image, runtime: str, user: str, name: str) -> None:
    """Whoever writes core_pattern runs a program as this machine's root. Opened to append, nothing is changed."""
    if not Path("/proc", name).exists():
        pytest.skip(f"this kernel has no /proc/{name}")
    assert shell(image, f": >> /proc/{name}", runtime, user) != 0


@pytest.mark.parametrize("name", ["timer_list", "keys", "kcore", "sched_debug"])
def test_what_tells_of_this_machine_is_hidden(image: Image, runtime: str, name: str) -> None:
    assert shell(image, f'test -z "$(cat /proc/{name} 2> /dev/null)"', runtime) == 0


@pytest.mark.parametrize("folder", ["/tmp", "/dev"])
def test_devices_of_this_machine_do_not_open(image: Image, runtime: str, folder: str) -> None:
    script = f"/bin/busybox mknod {folder}/f c 10 229 && (: < {folder}/f) && exit 99; exit 0"
    assert shell(image, script, runtime) == 0


def test_every_user_can_write_shared_memory(image: Image, runtime: str) -> None:
    script = 'test "$(ls -ld /dev/shm | /bin/busybox cut -c1-10)" = drwxrwxrwt && touch /dev/shm/x'
    assert shell(image, script, runtime, "app") == 0


def test_volumes_stay_inside(store: Store, image: Image, runtime: str, open_folder: Path) -> None:
    """bubblewrap keeps this machine's root at /oldroot for a while; a link of the image must not lead it there."""
    outside = open_folder / "outside"
    outside.mkdir()
    links = {"data": f"/oldroot{outside}", "up": f"../../../../oldroot{outside}"}
    with linked(store, image, links, folder=f"oldroot{outside}").container(None) as container:
        options = RunOptions(
            command=("/bin/touch", "/data/deep/x"),
            volumes=(Volume(open_folder, "/data/deep"), Volume(open_folder, "/up/more")),
        )
        assert run_container(container, options, runtime=runtime) == 0
    assert (open_folder / "x").exists()
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("name", ["proc", "sys"])
def test_a_link_in_place_of_a_system_directory(store: Store, image: Image, runtime: str, name: str) -> None:
    container = linked(store, image, {name: "tmp"}).container(None)
    with container, pytest.raises(InvalidInputError, match="symbolic link"):
        run_container(container, RunOptions(command=("/bin/id",)), runtime=runtime)


def test_labels_that_runtimes_obey_are_left_out(store: Store, image: Image) -> None:
    labels = {"run.oci.handler": "krun", "org.criu.config": "/x", "org.systemd.property.x": "1", "": "x", "ok": "1"}
    made = store.create_image(image.layers, config={"Cmd": ["id"], "Labels": labels})
    with made.view() as view:
        document = runtime_config(made.config, view, RunOptions())
    assert {name for name in document["annotations"] if not name.startswith("org.opencontainers.")} == {"ok"}
    assert unsafe_labels(made.config) == ["org.criu.config", "org.systemd.property.x", "run.oci.handler"]
    assert document["linux"]["resources"]["devices"] == [{"allow": False, "access": "rwm"}]


def test_a_user_without_rights_cannot_be_another(store: Store, image: Image) -> None:
    with image.view() as view:
        document = runtime_config(image.config, view, RunOptions(user="app"))
        root = for_user(runtime_config(image.config, view, RunOptions()))
    with pytest.raises(InvalidOptionError, match="1000:1000"):
        for_user(document)
    assert root["process"]["user"]["additionalGids"] == [] and "devices" not in root["linux"]["resources"]


def test_a_terminal_that_is_none(store: Store, image: Image, runtime: str) -> None:
    done = run_process(store, "run", "-t", "--runtime", runtime, "busybox:1")
    assert (done.returncode, done.stdout) == (0, b"default\n")


def test_a_terminal(store: Store, image: Image, runtime: str) -> None:
    leader, follower = os.openpty()
    command = [sys.executable, "-m", "layerstore", "--store", str(store.path), "run", "-t", "--runtime", runtime]
    process = subprocess.Popen(
        [*command, "busybox:1", "sh", "-c", "test -t 0 && test -t 1 && echo terminal; exit 4"],
        stdin=follower,
        stdout=follower,
        stderr=follower,
        start_new_session=True,
    )
    os.close(follower)
    told = b""
    try:
        while block := os.read(leader, 4096):
            told += block
    except OSError:
        pass  # EIO: nobody has the other end any more
    os.close(leader)
    assert process.wait() == 4
    assert b"terminal" in told


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_program_can_end_itself_when_told(store: Store, image: Image, runtime: str, number: int) -> None:
    script = "trap 'echo told; exit 9' TERM INT; echo ready; for n in $(/bin/busybox seq 600); do sleep 0.1; done"
    with started(store, runtime, script) as process:
        process.send_signal(number)
        out, _ = process.communicate(timeout=60)
    assert (process.returncode, out) == (9, b"told\n")


def test_the_third_signal_kills(store: Store, image: Image, runtime: str) -> None:
    script = "trap 'echo told' TERM; echo ready; for n in $(/bin/busybox seq 600); do sleep 0.1; done"
    with started(store, runtime, script) as process:
        assert process.stdout is not None
        for _ in range(2):
            process.send_signal(signal.SIGTERM)
            assert process.stdout.readline() == b"told\n"
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    assert process.returncode == 137
    assert list(store.containers) == []


def test_a_runtime_that_fails_is_told_from_a_program_that_fails(store: Store, image: Image, runtime: str) -> None:
    done = run_process(store, "run", "--runtime", runtime, "-w", "/etc/passwd", "busybox:1")
    assert done.returncode == 125 and done.stderr
    assert run_process(store, "run", "--runtime", runtime, "busybox:1", "sh", "-c", "exit 1").returncode == 1


def linked(store: Store, image: Image, links: dict[str, str], *, folder: str = "tmp") -> Image:
    """The image with symbolic links on top, and a directory."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        directory = tarfile.TarInfo(folder)
        directory.type, directory.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(directory)
        for name, target in links.items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            tar.addfile(info)
    return store.create_image([*image.layers, store.push_layer(buffer.getvalue()).layer])


@contextmanager
def started(store: Store, runtime: str, script: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A run in a process of its own that has printed ``ready``. Its script ends by itself, should all else fail."""
    command = [sys.executable, "-m", "layerstore", "--store", str(store.path), "run", "--runtime", runtime]
    process = subprocess.Popen([*command, "busybox:1", "sh", "-c", script], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def run_process(store: Store, *arguments: str) -> "subprocess.CompletedProcess[bytes]":
    command = [sys.executable, "-m", "layerstore", "--store", str(store.path), *arguments]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
