"""What ``push`` and ``pull`` do with references to registries."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace

import click

from layerstore import CopyReport, RemoteRepository, Store
from layerstore.cli.copies import SELECTION_OPTIONS, CopyOptions, Outcome, copy_all, print_outcome, summed
from layerstore.cli.grouped_options import Command, with_options
from layerstore.cli.lookup import find_image, platforms_of
from layerstore.cli.naming import Naming, namings
from layerstore.cli.output import safe
from layerstore.cli.registry_options import RegistryOptions
from layerstore.cli.settings import Settings
from layerstore.errors import ImageNotFoundError
from layerstore.places.place import Root
from layerstore.places.platforms import WantedPlatform
from layerstore.places.selection import platform_to_copy
from layerstore.places.store_place import StorePlace
from layerstore.registry.client.references import DEFAULT_TAG, RemoteName


@dataclass(frozen=True, slots=True)
class TransferOptions:
    """What `push` and `pull` have in common; each field is an option of that name."""

    platform: str | None
    referrers: bool
    jobs: int | None

    @property
    def given(self) -> bool:
        """Whether any of them is set."""
        return self != TransferOptions(None, False, None)

    def copying(self) -> CopyOptions:
        """As `copy` takes them."""
        return CopyOptions(None, self.platform, self.referrers, self.jobs)


def transfer_options(function: Command) -> Command:
    """Add the options to a command, whose function gets them as one `TransferOptions` called ``transfer``."""
    return with_options(function, TransferOptions, "transfer", SELECTION_OPTIONS)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which images are pulled."""

    transfer: TransferOptions
    name: str | None
    all: bool
    all_tags: bool

    def check(self) -> None:
        """Raise `click.UsageError` for options that contradict each other."""
        if self.all and self.transfer.platform is not None:
            raise click.UsageError("--all takes all platforms; leave out --platform")
        if self.all_tags and self.name is not None:
            raise click.UsageError("--all-tags gives many images; leave out --name")


def pull_image(settings: Settings, text: str, wanted: Wanted, registry: RegistryOptions) -> None:
    """Bring an image of a registry into the store, and print what came."""
    wanted.check()
    remote = RemoteName.parse(text)
    if wanted.all_tags and remote.image is not None:
        raise click.UsageError(f"--all-tags goes with a repository; leave out what stands behind {remote.repository}")
    with settings.open() as store:
        if wanted.name is not None:
            store.tags.check(wanted.name)  # before anything is copied
        reference = remote.repository if wanted.all_tags else _whole(remote)
        with closing(RemoteRepository(reference, options=registry.connection(remote))) as source:
            report = _pull(settings, store, source, wanted)
    print_outcome(settings, Outcome.between(report, source))


def push_images(
    settings: Settings,
    texts: Sequence[str],
    image: str | None,
    options: CopyOptions,
    compression: str | None,
    registry: RegistryOptions,
) -> None:
    """Bring images of the store into registries, and print what went."""
    remotes = [RemoteName.parse(text) for text in texts]
    for remote in remotes:
        if remote.digest is not None:
            raise click.UsageError(f"{remote.repository} gets an image by a tag; leave out the digest")
    with settings.open(read_only=True) as store:
        digests = [_image_to_push(store, image, remote) for remote in remotes]
        reports = []
        traffics = []
        for remote, digest in zip(remotes, digests, strict=True):
            with closing(RemoteRepository(remote.repository, options=registry.connection(remote))) as sink:
                copies = [Naming([digest], remote.tag or DEFAULT_TAG)]
                report = copy_all(
                    settings, StorePlace(store), sink, copies, options, compression=compression, operation="push"
                )
            reports.append(_named_whole(report, remote.repository))
            traffics.append(sink.traffic)
    print_outcome(settings, Outcome(summed(reports), sent=traffics))


def _named_whole(report: CopyReport, repository: str) -> CopyReport:
    """With references in place of tags, which say nothing alone."""
    images = [
        image if image.name is None else replace(image, name=f"{repository}:{image.name}") for image in report.images
    ]
    return replace(report, images=tuple(images))


def _image_to_push(store: Store, image: str | None, remote: RemoteName) -> str:
    if image is not None:
        return find_image(store, image).digest
    try:
        return store.images[remote.with_tag].digest
    except ImageNotFoundError:
        raise ImageNotFoundError(
            f"there is no file {remote.with_tag}, nor does the store have such an image: choose another one of the "
            "store's with --from, or tag it so first"
        ) from None


def _whole(remote: RemoteName) -> str:
    """The reference of one image."""
    if remote.digest is None:
        return remote.with_tag
    tag = "" if remote.tag is None else f":{remote.tag}"
    return f"{remote.repository}{tag}@{remote.digest}"


def _pull(settings: Settings, store: Store, source: RemoteRepository, wanted: Wanted) -> CopyReport:
    reports = []
    for root in source.roots():
        options = wanted.transfer.copying()
        if not wanted.all:
            options = replace(options, platform=_chosen_platform(source, root, options.platform))
        chosen = [str(root.name)] if wanted.all_tags else None
        copies = namings(source, chosen, wanted.name, options.platform)
        reports.append(copy_all(settings, source, StorePlace(store), copies, options, operation="pull"))
        if not wanted.all:
            _warn_of_others(store, reports[-1], wanted.transfer.platform)
    return summed(reports)


def _chosen_platform(source: RemoteRepository, root: Root, given: str | None) -> str | None:
    """The platform to take of an index, this machine's unless one is given; None where there is no choice."""
    whole = root if root.name is None else replace(root, name=f"{source.repository}:{root.name}")
    try:
        platform = platform_to_copy(source, whole, _wanted(given))
    except ImageNotFoundError as error:
        raise ImageNotFoundError(f"{error}; choose one with --platform, or take all with --all") from None
    return None if platform is None else str(platform)


def _wanted(given: str | None) -> WantedPlatform:
    return WantedPlatform.of_this_machine() if given is None else WantedPlatform.parse(given)


def _warn_of_others(store: Store, report: CopyReport, given: str | None) -> None:
    """Say it of images that are for another platform than was meant: without an index there was nothing to choose."""
    meant = _wanted(given)
    fitting = {str(one) for one in meant.candidates()}
    for copied in report.images:
        image = store.images.get(copied.digest)
        known = [] if image is None or image.is_index else platforms_of(image)
        if known and not fitting.intersection(known):
            name = safe(copied.name or copied.digest)
            click.echo(f"layerstore: warning: {name} is for {safe(', '.join(known))}, not for {meant}", err=True)
