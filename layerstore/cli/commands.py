"""The commands by their sections and names. The module of each is loaded when its command is looked up."""

from collections.abc import Iterator, Mapping, MutableMapping

import click

from layerstore.cli.loading import load

SECTIONS: dict[str, dict[str, str]] = {
    "Layers": {"push": "layers.push", "pull": "layers.pull", "layers": "layers.layers"},
    "Images": {
        "images": "images.images",
        "tag": "images.tag",
        "untag": "images.untag",
        "rm": "images.rm",
        "trash": "images.trash",
        "undelete": "images.undelete",
    },
    "Transfer": {"import": "transfer.import_", "export": "transfer.export", "copy": "transfer.copy_"},
    "Registry": {"login": "logins.login", "logout": "logins.logout", "serve": "serve.serve"},
    "Files": {
        "ls": "files.ls",
        "find": "files.find",
        "tree": "tree.tree",
        "cat": "files.cat",
        "cp": "copying.cp",
        "unpack": "files.unpack_",
        "diff": "changes.diff",
        "mount": "mounts.mount",
        "umount": "mounts.umount",
    },
    "Containers": {"run": "run.run", "container": "containers.container", "commit": "containers.commit"},
    "Inspection": {
        "inspect": "inspection.inspect",
        "history": "inspection.history",
        "why": "inspection.why",
        "encodings": "encodings.encodings",
        "stats": "maintenance.stats",
        "recognise": "recognition.recognise",
    },
    "Space": {"gc": "maintenance.gc", "prune": "maintenance.prune"},
    "The store": {
        "init": "care.init",
        "verify": "care.verify",
        "repair": "care.repair",
        "rebuild-index": "care.rebuild_index",
        "backup": "care.backup",
        "upgrade": "care.upgrade",
        "completion": "completion.completion",
    },
}
"""By section and name of a command, in which module it is, and what it is called there."""


class Commands(MutableMapping[str, click.Command]):
    """Commands by name, in the order of the sections."""

    def __init__(self, sections: Mapping[str, Mapping[str, str]]) -> None:
        places = {name: place for section in sections.values() for name, place in section.items()}
        self._commands: dict[str, click.Command | str] = {**places}

    def __getitem__(self, name: str) -> click.Command:
        command = self._commands[name]
        if isinstance(command, str):
            module, _, attribute = command.partition(".")
            command = self._commands[name] = _checked(getattr(load(f"layerstore.cli.{module}"), attribute), name)
        return command

    def __setitem__(self, name: str, command: click.Command) -> None:
        self._commands[name] = command

    def __delitem__(self, name: str) -> None:
        del self._commands[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._commands)

    def __len__(self) -> int:
        return len(self._commands)


def _checked(command: object, name: str) -> click.Command:
    assert isinstance(command, click.Command) and command.name == name, f"{name} is another command"
    return command
