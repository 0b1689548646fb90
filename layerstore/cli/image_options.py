"""The options of ``push`` and ``commit`` that make an image, and what they mean for its config."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import click

from layerstore.cli.grouped_options import Command, with_options
from layerstore.cli.lookup import find_image, for_platform, refuse_artifact
from layerstore.cli.parameters import complete_image, complete_tag, pair, utf8, words
from layerstore.objects import Container, Image, Layer
from layerstore.store import Store


@dataclass(frozen=True, slots=True)
class ConfigOptions:
    """What an image's config is to have; each field is an option of that name."""

    env: tuple[tuple[str, str], ...]
    label: tuple[tuple[str, str], ...]
    cmd: list[str] | None
    entrypoint: list[str] | None
    workdir: str | None
    user: str | None
    author: str | None

    def config(self, base: Image | Container | None) -> dict[str, Any]:
        """The fields that the options set, on top of those of the base."""
        inherited = None if base is None else base.config.config
        # The store lays a config over the base's field by field. Variables and labels are added one by one here, as
        # ENV and LABEL do in a Dockerfile.
        config: dict[str, Any] = {}
        if self.env:
            config["Env"] = merged_environment(() if inherited is None else inherited.env, dict(self.env))
        if self.label:
            config["Labels"] = {**({} if inherited is None else inherited.labels), **dict(self.label)}
        if self.entrypoint is not None:
            config["Entrypoint"] = self.entrypoint or None
            config["Cmd"] = None  # the base's arguments are for its own entrypoint
        if self.cmd is not None:
            config["Cmd"] = self.cmd or None
        if self.workdir is not None:
            config["WorkingDir"] = self.workdir
        if self.user is not None:
            config["User"] = self.user
        return config


@dataclass(frozen=True, slots=True)
class ImageOptions(ConfigOptions):
    """What image the pushed layers are to become; each field is an option of that name."""

    tag: tuple[str, ...]
    base: str | None
    architecture: str | None
    annotation: tuple[tuple[str, str], ...]

    @property
    def wanted(self) -> bool:
        """Whether an image is to be made at all. Raises `click.UsageError` for options that would have no effect."""
        if self.tag or self.base:
            return True
        idle = [field.name for field in fields(self) if getattr(self, field.name)]
        if idle:
            raise click.UsageError(f"--{idle[0]} describes an image; name it with --tag, or build it on --base")
        return False

    def check(self, store: Store) -> None:
        """Find out what is wrong before anything is pushed. Raises errors of `layerstore.errors`."""
        for tag in self.tag:
            store.tags.check(tag)
        if self.base is not None:
            self._found_base(store, self.base)

    def create(self, store: Store, layers: list[Layer]) -> Image:
        """Make the image and set all its tags."""
        base = None if self.base is None else self._found_base(store, self.base)
        image = store.create_image(
            layers,
            base=base,
            tag=self.tag[0] if self.tag else None,
            config=self.config(base),
            architecture=self.architecture,
            author=self.author,
            annotations=dict(self.annotation) or None,
        )
        for tag in self.tag[1:]:
            store.tags[tag] = image.digest
        return image

    def _found_base(self, store: Store, text: str) -> Image:
        platform = None if self.architecture is None else f"linux/{self.architecture}"
        return refuse_artifact(for_platform(find_image(store, text), text, platform), text)


def merged_environment(inherited: tuple[str, ...], changes: Mapping[str, str]) -> list[str]:
    """``NAME=value`` texts with some names set anew, where they stood, and others added behind."""
    rest = dict(changes)
    result = []
    for text in inherited:
        name = text.partition("=")[0]
        result.append(f"{name}={rest.pop(name)}" if name in rest else text)
    return result + [f"{name}={value}" for name, value in rest.items()]


_CONFIG_OPTIONS = (
    click.option("--env", type=pair, multiple=True, metavar="NAME=VALUE", help="Set an environment variable."),
    click.option("--label", type=pair, multiple=True, metavar="NAME=VALUE", help="Set a label."),
    click.option("--cmd", type=words, metavar="WORDS", help="Default arguments: words, or a JSON array."),
    click.option("--entrypoint", type=words, metavar="WORDS", help="Program to run; drops the base's --cmd."),
    click.option("--workdir", type=utf8, metavar="PATH", help="Working directory."),
    click.option("--user", type=utf8, metavar="USER", help="User, or USER:GROUP."),
    click.option("--author", type=utf8, metavar="TEXT", help="Who made the image."),
)

_IMAGE_OPTIONS = (
    click.option(
        "--tag",
        shell_complete=complete_tag,
        multiple=True,
        metavar="TAG",
        help="Make an image of the layers, in their order.",
    ),
    click.option(
        "--base",
        shell_complete=complete_image,
        metavar="IMAGE",
        help="Put the layers on top of this image's; inherit its config.",
    ),
    *_CONFIG_OPTIONS[:-1],
    click.option(
        "--architecture", type=utf8, metavar="NAME", help="For example amd64 or arm64; this machine's by default."
    ),
    _CONFIG_OPTIONS[-1],
    click.option("--annotation", type=pair, multiple=True, metavar="KEY=VALUE", help="Annotate the manifest."),
)


def image_options(function: Command) -> Command:
    """Add the options to a command, whose function gets them as one `ImageOptions` called ``image``."""
    return with_options(function, ImageOptions, "image", _IMAGE_OPTIONS)


def config_options(function: Command) -> Command:
    """Add the options to a command, whose function gets them as one `ConfigOptions` called ``chosen``."""
    return with_options(function, ConfigOptions, "chosen", _CONFIG_OPTIONS)
