"""The configuration file (YAML), and what the command line says over it, as `ServerSettings`."""

import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from layerstore.errors import InvalidOptionError
from layerstore.oci.documents import DOCUMENT_SIZE_MAX
from layerstore.os_errors import translate_os_errors
from layerstore.registry.protocol import is_repository_name
from layerstore.registry.server.options import Options
from layerstore.registry.server.quantities import duration_of, size_of
from layerstore.registry.server.repositories import BLOB_TTL_SECONDS
from layerstore.registry.server.settings import (
    ACCOUNTS,
    EVERYONE,
    Anonymous,
    LogFormat,
    MetricsAccess,
    Right,
    ServerSettings,
    Upstream,
)

_FILE_SIZE_MAX = 1 << 20
_KEEP_SECONDS_MIN = 3600
_DAY = 86_400
_YEARS = 10 * 365 * _DAY
_PATTERN = re.compile(r"[a-z0-9._/*-]{1,255}")
_GROUP = re.compile(r"@[A-Za-z0-9._-]{1,64}")
_SERVICE = re.compile(r"[A-Za-z0-9 .:/_-]{1,128}")


def _web_address(text: str) -> str:
    parts = urlsplit(text)
    is_plain = not (parts.query or parts.fragment or parts.username) and text.isprintable() and '"' not in text
    if parts.scheme not in ("http", "https") or not parts.hostname or not is_plain:
        raise ValueError("it is no address such as https://registry.example.org")
    return text.rstrip("/")


def _network(text: str) -> str:
    ipaddress.ip_network(text)  # its ValueError says what is wrong
    return text


def _pattern(text: str) -> str:
    if not _PATTERN.fullmatch(text):
        raise ValueError('it is no pattern for names of repositories, such as "team/*" or "base/**"')
    return text


def _service_name(text: str) -> str:
    if not _SERVICE.fullmatch(text):
        raise ValueError("it is no name for a service")
    return text


Size = Annotated[int, BeforeValidator(size_of), Field(gt=0)]
Duration = Annotated[float, BeforeValidator(duration_of), Field(ge=0)]
WebAddress = Annotated[str, AfterValidator(_web_address)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Tls(_Section):
    certificate: Path
    key: Path


class _Listen(_Section):
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 5000
    workers: Annotated[int, Field(ge=1, le=256)] = 1
    tls: _Tls | None = None
    url: WebAddress | None = None
    trusted_proxies: tuple[Annotated[str, AfterValidator(_network)], ...] = ()


class _Accounts(_Section):
    htpasswd: Path


class _Right(_Section):
    who: tuple[str, ...] = Field(min_length=1)
    repositories: tuple[Annotated[str, AfterValidator(_pattern)], ...] = Field(min_length=1)
    actions: frozenset[Literal["read", "write", "delete"]] = Field(min_length=1)


class _Tokens(_Section):
    lifetime: Annotated[Duration, Field(ge=10, le=86400)] = 300.0
    secret: Path | None = None
    service: Annotated[str, AfterValidator(_service_name)] = "layerstore"


class _Requests(_Section):
    per_second: Annotated[float, Field(ge=0, le=1e6)] = 200.0
    burst: Annotated[int, Field(ge=1, le=10**7)] = 2000
    at_once: Annotated[int, Field(ge=0, le=10**6)] = 256


class _Limits(_Section):
    blob: Annotated[Size, Field(le=1 << 50)] = 64 << 30
    manifest: Annotated[Size, Field(le=DOCUMENT_SIZE_MAX)] = 8 << 20
    header: Annotated[Size, Field(ge=4 << 10, le=1 << 20)] = 64 << 10
    requests: _Requests = _Requests()
    connections: Annotated[int, Field(ge=1, le=10**6)] = 4000
    client_connections: Annotated[int, Field(ge=0, le=10**6)] = 500
    client_uploads: Annotated[int, Field(ge=0, le=10**6)] = 1000
    login_failures: Annotated[int, Field(ge=1, le=10**6)] = 10
    idle: Annotated[Duration, Field(ge=1, le=_DAY)] = 60.0


class _Metrics(_Section):
    access: MetricsAccess = MetricsAccess.LOOPBACK
    token: Path | None = None


class _Shutdown(_Section):
    drain: Annotated[Duration, Field(le=_DAY)] = 0.0
    timeout: Annotated[Duration, Field(ge=1, le=_DAY)] = 300.0


class _Proxy(_Section):
    url: WebAddress
    username: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    password: Path | None = None
    ca: Path | None = None
    fresh: Annotated[Duration, Field(le=_YEARS)] = 60.0
    silent: Annotated[Duration, Field(gt=0, le=3600)] = 30.0
    keep: Annotated[Duration, Field(le=_YEARS)] = 0.0


def _with_url(value: object) -> object:
    return {"url": value} if isinstance(value, str) else value


class _Configuration(_Section):
    listen: _Listen = _Listen()
    accounts: _Accounts | None = None
    anonymous: Anonymous | None = None
    groups: dict[str, tuple[str, ...]] = {}
    rights: tuple[_Right, ...] | None = None
    tokens: _Tokens = _Tokens()
    limits: _Limits = _Limits()
    delete: bool = True
    blob_ttl: Annotated[Duration, Field(ge=60, le=_YEARS)] = BLOB_TTL_SECONDS
    collection_interval: Annotated[Duration, Field(le=_YEARS)] = 3600.0
    compression_level: Annotated[int, Field(ge=-7, le=19)] = 3
    proxies: dict[str, Annotated[_Proxy, BeforeValidator(_with_url)]] = {}
    audit: Path | None = None
    metrics: _Metrics = _Metrics()
    log: LogFormat = LogFormat.AUTO
    shutdown: _Shutdown = _Shutdown()


def load_settings(store: Path, options: Options) -> ServerSettings:
    """The settings. Raises `InvalidOptionError` for what cannot be meant, and says where it stands."""
    path = options.configuration
    document = {} if path is None else _read(path)
    source = "the command line" if path is None else str(path)
    try:
        configuration = _Configuration.model_validate(_with_options(document, options, source))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "its content"
        raise InvalidOptionError(f"{source}: {place}: {_reason(first)}") from None
    settings = _settings(store.absolute(), configuration, source, None if path is None else path.absolute().parent)
    return replace(settings, is_quiet=options.quiet)


def _reason(error: Mapping[str, Any]) -> str:
    kinds = {"extra_forbidden": "there is no such setting", "missing": "this setting is missing"}
    message = str(error["msg"]).removeprefix("Value error, ")
    return kinds.get(str(error["type"]), message[:1].lower() + message[1:])


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice: the first one would be ignored."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            name = str(key.value)
            if name in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{name!r} stands twice", key.start_mark)
            seen.add(name)
        return super().construct_mapping(node, deep)


def _read(path: Path) -> dict[str, Any]:
    with translate_os_errors(f"cannot read {path}"), path.open("rb") as file:
        data = file.read(_FILE_SIZE_MAX + 1)
    if len(data) > _FILE_SIZE_MAX:
        raise InvalidOptionError(f"{path} is too large for a configuration file")
    try:
        document = yaml.load(data, _Loader)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise InvalidOptionError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise InvalidOptionError(f"{path} is no configuration: it has no settings by name")
    return document


def _with_options(document: dict[str, Any], options: Options, source: str) -> dict[str, Any]:
    merged = dict(document)

    def put(section: str, **values: object) -> None:
        given = {name: value for name, value in values.items() if value is not None}
        present = merged.get(section)
        if given and not isinstance(present, (dict, type(None))):
            raise InvalidOptionError(f"{source}: {section}: it has no settings by name")
        if given:
            merged[section] = {**(present or {}), **given}

    tls = {"certificate": options.tls_certificate, "key": options.tls_key}
    tls = {name: value for name, value in tls.items() if value is not None}
    put("listen", host=options.host, port=options.port, workers=options.workers, url=options.url, tls=tls or None)
    put("accounts", htpasswd=options.htpasswd)
    put("proxies", **options.proxies)
    for name, value in (("anonymous", options.anonymous), ("audit", options.audit)):
        if value is not None:
            merged[name] = value
    if options.no_delete:
        merged["delete"] = False
    return merged


def _settings(store: Path, file: _Configuration, source: str, folder: Path | None) -> ServerSettings:
    listen, limits = file.listen, file.limits
    tls = listen.tls
    _check_proxies(file.proxies, source)

    def placed(path: Path | None) -> Path | None:
        # Beside the file that names it, so that it does not matter where the server is started.
        return path if path is None else (folder or Path.cwd()) / path

    rights = _rights(file, source)
    if file.rights and file.accounts is None and file.anonymous is None:
        raise InvalidOptionError(
            f"{source}: rights: without accounts (accounts.htpasswd) they bind nobody; say with `anonymous` what "
            "everyone may do beside them"
        )
    return ServerSettings(
        store=store,
        blob_size_max=limits.blob,
        manifest_size_max=limits.manifest,
        blob_ttl=file.blob_ttl,
        is_delete_enabled=file.delete,
        collection_interval=file.collection_interval,
        compression_level=file.compression_level,
        proxies={
            name: Upstream(
                url=one.url,
                username=one.username,
                password=placed(one.password),
                ca=placed(one.ca),
                fresh_seconds=one.fresh,
                silent_seconds=one.silent,
                keep_seconds=one.keep,
            )
            for name, one in file.proxies.items()
        },
        host=listen.host,
        port=listen.port,
        workers=listen.workers,
        url=listen.url,
        tls_certificate=placed(tls.certificate) if tls else None,
        tls_key=placed(tls.key) if tls else None,
        trusted_proxies=listen.trusted_proxies,
        htpasswd=placed(file.accounts.htpasswd) if file.accounts else None,
        anonymous=_anonymous(file, source),
        rights=rights,
        token_lifetime=file.tokens.lifetime,
        token_secret=placed(file.tokens.secret),
        service=file.tokens.service,
        header_size_max=limits.header,
        requests_per_second=limits.requests.per_second,
        requests_burst=limits.requests.burst,
        requests_at_once=limits.requests.at_once,
        connections_max=limits.connections,
        client_connections_max=limits.client_connections,
        client_uploads_max=limits.client_uploads,
        login_failures=limits.login_failures,
        idle_seconds=limits.idle,
        audit=placed(file.audit),
        metrics=file.metrics.access,
        metrics_token=placed(file.metrics.token),
        log=file.log,
        drain_seconds=file.shutdown.drain,
        shutdown_seconds=file.shutdown.timeout,
    )


def _check_proxies(proxies: Mapping[str, _Proxy], source: str) -> None:
    for name, one in proxies.items():
        if not is_repository_name(name) or "/" in name:
            raise InvalidOptionError(f"{source}: proxies.{name}: it cannot be the first part of a repository's name")
        path = urlsplit(one.url).path.strip("/")
        if path and not is_repository_name(path):
            raise InvalidOptionError(f"{source}: proxies.{name}.url: {path[:80]!r} begins no name of a repository")
        if 0 < one.keep < _KEEP_SECONDS_MIN:
            raise InvalidOptionError(f"{source}: proxies.{name}.keep: it is 1h or more, or 0 for ever")
        if (one.username is None) != (one.password is None):
            raise InvalidOptionError(f"{source}: proxies.{name}: a username and the file of its password go together")


def _anonymous(file: _Configuration, source: str) -> Anonymous:
    if file.anonymous is not None:
        return file.anonymous
    if file.accounts is not None:
        return Anonymous.NONE
    if is_loopback(file.listen.host):
        return Anonymous.ALL
    raise InvalidOptionError(
        f"{source}: whoever reaches {file.listen.host} could read and write: name accounts (--htpasswd FILE), or say "
        "what may be done without (--anonymous read, write or all)"
    )


def _rights(file: _Configuration, source: str) -> tuple[Right, ...]:
    for name in file.groups:
        if not _GROUP.fullmatch(f"@{name}") or f"@{name}" in (EVERYONE, ACCOUNTS):
            raise InvalidOptionError(f"{source}: groups.{name}: a group cannot have this name")
    if file.rights is None:
        everywhere = Right(
            who=frozenset({ACCOUNTS}), repositories=("**",), actions=frozenset({"read", "write", "delete"})
        )
        return (everywhere,)
    return tuple(
        Right(
            who=frozenset(_members(one.who, file.groups, f"{source}: rights.{number}.who")),
            repositories=one.repositories,
            actions=one.actions,
        )
        for number, one in enumerate(file.rights)
    )


def _members(who: Iterable[str], groups: Mapping[str, tuple[str, ...]], place: str) -> Iterable[str]:
    for name in who:
        if not name.startswith("@") or name in (EVERYONE, ACCOUNTS):
            yield name
        elif name[1:] in groups:
            yield from groups[name[1:]]
        else:
            raise InvalidOptionError(f"{place}: there is no group {name}")


def is_loopback(host: str) -> bool:
    """Whether only programs on this machine reach a host."""
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback
