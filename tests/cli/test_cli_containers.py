"""The commands for containers, as a user types them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from layerstore import Store

Run = Callable[..., Any]


@pytest.fixture
def web(output: Run, path: Path, shop: str) -> str:
    """A container with one change of each kind."""
    output("container", "create", "shop:1.0", "--name", "web")
    with Store.open(path) as store, store.containers["web"] as container:
        container.write_bytes("/etc/os", b"changed")
        container.write_bytes("/etc/new", b"new")
        container.unlink("/app/data")
    return "web"


def test_create_list_remove(output: Run, document: Run, run: Run, shop: str) -> None:
    assert output("container", "create", "shop:1.0", "--name", "web") == "web\n"
    generated = output("container", "create", "shop:1.0").strip()
    assert len(generated) == 12
    assert output("container", "-q").split() == sorted([generated, "web"])
    lines = output("container", "ls").splitlines()
    assert lines[0].split() == ["NAME", "IMAGE", "CREATED", "IN", "USE"]
    assert any(line.startswith("web ") and " shop:1.0 " in line and line.endswith(" -") for line in lines[1:])
    assert output("container") == output("container", "ls")
    row = next(one for one in document("container") if one["name"] == "web")
    assert row["image"] == shop and row["tags"] == ["shop:1.0"] and not row["is_in_use"] and row["layers"]
    taken = run("container", "create", "shop:1.0", "--name", "web")
    assert taken.exit_code == 4 and "layerstore container rm web" in taken.stderr
    assert run("container", "create", "shop:1.0", "--name", "../web").exit_code == 2
    assert output("container", "rm", "web", generated).splitlines() == [
        "removed container web",
        f"removed container {generated}",
    ]
    assert run("container", "rm", "web").exit_code == 3
    assert output("container", "-q") == ""


def test_a_damaged_container_does_not_hide_the_others(
    output: Run, document: Run, run: Run, path: Path, web: str
) -> None:
    output("container", "create", "shop:1.0", "--name", "whole")
    (path / "containers" / web / "container.json").write_text("{")
    lines = output("container", "ls").splitlines()
    assert "damaged" in lines[1] and lines[2].startswith("whole ")
    assert [(one["name"], one["is_damaged"], one["image"] is None) for one in document("container")] == [
        ("web", True, True),
        ("whole", False, False),
    ]
    told = run("verify")
    assert told.exit_code == 6 and "container web" in told.output
    assert run("gc").exit_code == 0
    assert run("diff", "container:web").exit_code == 6
    assert output("container", "rm", "web") == "removed container web\n"
    assert output("verify").startswith("clean")
    assert output("container", "-q") == "whole\n"


def test_nothing_is_removed_if_one_name_is_wrong(output: Run, run: Run, web: str) -> None:
    assert run("container", "rm", web, "missing").exit_code == 3
    assert output("container", "-q").split() == [web]


def test_a_container_that_is_changed_elsewhere_is_not_removed(run: Run, path: Path, web: str) -> None:
    with Store.open(path) as store, store.containers[web] as container:
        container.write_bytes("/x", b"")
        refused = run("container", "rm", web)
        assert refused.exit_code == 4 and "mounted, or being changed" in refused.stderr


def test_the_changes_of_a_container(output: Run, document: Run, run: Run, web: str) -> None:
    expected = ["C /app", "D /app/data", "C /etc", "A /etc/new", "C /etc/os"]
    assert output("diff", "container:web").splitlines() == expected
    assert output("diff", "shop:1.0", "container:web").splitlines() == expected
    added = next(one for one in document("diff", "container:web") if one["kind"] == "added")
    assert added["path"] == "/etc/new" and added["old"] is None and added["new"]["size"] == 3
    assert run("diff", "web").exit_code == 2
    assert run("diff", "container:missing").exit_code == 3


def test_the_bytes_of_a_file_that_differ(output: Run, document: Run, run: Run, web: str) -> None:
    lines = output("diff", "shop:1.0", "container:web", "etc/os").splitlines()
    assert lines[0].split() == ["OLD", "OFFSET", "OLD", "BYTES", "NEW", "OFFSET", "NEW", "BYTES"] and len(lines) == 2
    (only,) = document("diff", "shop:1.0", "container:web", "/etc/os")
    assert only["new_size"] <= 7 and set(only) == {"old_offset", "old_size", "new_offset", "new_size"}
    assert document("diff", "shop:1.0", "shop:1.0", "etc/os") == []
    assert run("diff", "shop:1.0", "container:web", "etc/missing").exit_code == 3


def test_commit(output: Run, document: Run, run: Run, web: str) -> None:
    line = output("commit", web, "shop:2.0", "--comment", "mended", "--cmd", "serve --port 80", "--env", "A=1")
    assert line.startswith("sha256:") and "shop:2.0" in line and "changes of" in line
    assert output("cat", "shop:2.0", "etc/os") == "changed"
    # A layer has whole seconds, so what was changed differs in nothing but its time.
    assert {line[0] for line in output("diff", "shop:2.0", "container:web").splitlines()} == {"C"}
    assert document("diff", "shop:2.0", "container:web", "etc/os") == []
    inspected = document("inspect", "shop:2.0")
    assert inspected["config"]["config"]["Cmd"] == ["serve", "--port", "80"]
    assert "A=1" in inspected["config"]["config"]["Env"]
    assert inspected["config"]["history"][-1]["comment"] == "mended"
    again = document("commit", web, "--comment", "mended", "--cmd", "serve --port 80", "--env", "A=1")
    assert again["digest"] == inspected["digest"] and again["tag"] is None and again["layer_size"] > 0
    assert run("commit", web, "not a tag").exit_code == 2
    assert run("commit", "missing", "x:1").exit_code == 3


def test_commit_of_no_changes(output: Run, document: Run, shop: str) -> None:
    output("container", "create", "shop:1.0", "--name", "idle")
    assert "no changes" in output("commit", "idle", "shop:same")
    assert document("commit", "idle")["layer"] is None
    assert len(document("inspect", "shop:same")["layers"]) == len(document("inspect", "shop:1.0")["layers"])


def test_the_layers_of_a_container_outlive_its_image(output: Run, document: Run, web: str) -> None:
    layers = [layer["diff_id"] for layer in document("inspect", "shop:1.0")["layers"]]
    output("rm", "shop:1.0", "--now")
    output("gc")
    assert "container web stands on it" in output("why", layers[0])
    assert output("commit", web, "shop:2.0")
    assert output("verify").startswith("clean")


def test_a_container_of_nothing(run: Run) -> None:
    assert run("container", "create", "missing:1").exit_code == 3


def test_errors_as_json(run: Run, web: str) -> None:
    refused = run("container", "create", "shop:1.0", "--name", "web", "--json")
    assert json.loads(refused.stderr)["error"]["code"] == "container-exists"
