"""The page of an image: what it is made of, what it shares, and what deleting it would free."""

import json
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from layerstore import ImageUsage
from layerstore.digest import Digest
from layerstore.errors import LayerstoreError
from layerstore.objects import Image
from layerstore.oci.documents import Descriptor, Manifest, parse_image
from layerstore.places.platforms import normalized
from layerstore.registry.server.pages.commands import pull_commands
from layerstore.registry.server.pages.figures import Figures, figures_of
from layerstore.registry.server.pages.layers import STEPS_MAX, steps_of, stored_blobs
from layerstore.registry.server.pages.readers import Reader, image_in, reader_in
from layerstore.registry.server.pages.rendering import page
from layerstore.registry.server.pages.run_settings import settings_of
from layerstore.registry.server.pages.sharing import SeenSharing, seen_by, users_besides
from layerstore.registry.server.pages.summaries import Summary, created
from layerstore.registry.server.pages.text import Lines
from layerstore.registry.server.registry import registry_of

_DOCUMENT_SHOWN_MAX = 64 << 10
_LISTED_MAX = 200


@dataclass(frozen=True, slots=True)
class _Part:
    platform: str
    image: Image
    summary: Summary


@dataclass(frozen=True, slots=True)
class _Space:
    """What an image takes, and gives back."""

    usage: ImageUsage | None
    """None for a part of an index."""
    wholes: tuple[Digest, ...]
    """The images of the repository that it is part of."""
    other_repositories: tuple[str, ...]
    """Other repositories that have it and may be seen."""
    hidden_repositories: int
    sharing: SeenSharing
    users: dict[Digest, int]
    """How many other images have each layer."""


def image(request: Request) -> Response:
    """All about an image of a repository."""
    name = request.path_params["repository"]
    reader, figures = reader_in(request, name), figures_of(request)
    found = image_in(reader, name, request.path_params["digest"])
    with reader.registry.repositories.turn_to_parse(len(found.manifest_bytes)):
        return _page_of(request, reader, figures, name, found)


def _page_of(request: Request, reader: Reader, figures: Figures, name: str, found: Image) -> Response:
    document = parse_image(found.manifest_bytes)
    summary = figures.summary(found)
    tags = sorted(tag for tag, digest in reader.registry.repositories.tags(name).items() if digest == found.digest)
    reference = f"{name}:{tags[0]}" if tags else f"{name}@{found.digest}"
    referrers = reader.registry.repositories.referrers(name, found.digest)
    values = {
        "reader": reader,
        "name": name,
        "image": found,
        "document": document,
        "summary": summary,
        "tags": tags,
        "created": created(reader.registry.store, found.digest),
        "commands": pull_commands(request, reference, is_artifact=summary.kind == "artifact"),
        "subject": _known_subject(reader, name, document.subject),
        "referrers": [(one, _is_there(reader, name, one.digest)) for one in referrers[:_LISTED_MAX]],
        "referrer_count": len(referrers),
        "space": _space(reader, figures, name, found),
        "annotations": _first(document.annotations),
        "manifest_text": _document_text(found.manifest_bytes),
        **_contents(request, figures, found, document, summary),
    }
    return page(request, "image.html", values)


def _contents(
    request: Request, figures: Figures, found: Image, document: object, summary: Summary
) -> dict[str, object]:
    """What there is to show of one kind of image, and nothing for what the others have."""
    store = registry_of(request).store
    values: dict[str, object] = {
        "parts": (),
        "steps": (),
        "blobs": (),
        "settings": None,
        "config_digest": None,
        "not_shown_count": 0,
        "trouble": "",
    }
    if summary.kind == "index":
        children = found.platforms
        shown = children[:_LISTED_MAX]
        values["parts"] = [
            _Part("" if platform is None else str(normalized(platform)), child, figures.summary(child))
            for platform, child in shown
        ]
        values["not_shown_count"] = len(children) - len(shown)
    elif isinstance(document, Manifest) and summary.kind == "artifact":
        values["blobs"] = stored_blobs(store, document.layers)
        values["not_shown_count"] = max(0, len(document.layers) - STEPS_MAX)
    elif isinstance(document, Manifest):
        values["config_digest"] = document.config.digest
        try:
            config = found.config
            values["settings"] = settings_of(config)
            values["steps"] = steps_of(store, found)
            values["not_shown_count"] = max(0, max(len(config.history), len(config.diff_ids)) - STEPS_MAX)
        except LayerstoreError as error:
            values["trouble"] = str(error)
    return values


def _space(reader: Reader, figures: Figures, name: str, found: Image) -> _Space:
    store = reader.registry.store
    wholes = tuple(reader.registry.repositories.users_of(name, found.digest))
    sharing = figures.sharing(found)
    seen = seen_by(reader, sharing, frozenset(wholes))
    users = users_besides(sharing, frozenset(wholes))
    if found.digest not in store.images:
        return _Space(None, wholes, (), 0, seen, users)
    readable, hidden = reader.repositories_of(found.digest)
    others = tuple(one for one in readable if one != name)
    return _Space(figures.usage(found), wholes, others, hidden, seen, users)


def _known_subject(reader: Reader, name: str, subject: Descriptor | None) -> tuple[Descriptor, bool] | None:
    return None if subject is None else (subject, _is_there(reader, name, subject.digest))


def _is_there(reader: Reader, name: str, digest: Digest) -> bool:
    return reader.registry.repositories.resolve(name, digest) is not None


def _first(pairs: dict[str, str]) -> list[tuple[str, str]]:
    return sorted(pairs.items())[:_LISTED_MAX]


def _document_text(data: bytes) -> Lines:
    """The manifest, indented so that it can be read; of a large one the beginning as it is."""
    if len(data) > _DOCUMENT_SHOWN_MAX:  # to indent it would take long
        return Lines(data[:_DOCUMENT_SHOWN_MAX].decode(errors="replace") + "…")
    return Lines(json.dumps(json.loads(data), indent=2, ensure_ascii=False))
