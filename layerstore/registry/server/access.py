"""Who may do what."""

import base64
import re
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from starlette.requests import Request

from layerstore.registry.protocol import ErrorCode, is_repository_name
from layerstore.registry.server.accounts import Accounts
from layerstore.registry.server.buckets import Buckets, client_of
from layerstore.registry.server.observation import observation_of
from layerstore.registry.server.problems import ProblemError
from layerstore.registry.server.rights import Rights
from layerstore.registry.server.settings import ServerSettings
from layerstore.registry.server.signing import CATALOG, Signer, Token, read_secret

_HOST = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252})|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
_SECONDS_PER_FAILURE = 10.0
_SCOPE_ACTIONS: dict[str, frozenset[str]] = {
    "pull": frozenset({"read"}),
    "push": frozenset({"write"}),
    "delete": frozenset({"delete"}),
    "*": frozenset({"read", "write", "delete"}),
}


class Action(StrEnum):
    """What rights are given for, in a repository."""

    READ = "read"
    WRITE = "write"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class Identity:
    """Who makes a request."""

    name: str | None
    """None: nobody has said who they are."""
    grants: Mapping[str, frozenset[str]] | None = None
    """What the token of the request is for; None: it came without one, and every right counts."""


class Access:
    """Decides what requests may do. Its methods may be called from several threads at once."""

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._failures = Buckets(
            settings.folder / "login-failures",
            per_second=1 / _SECONDS_PER_FAILURE,
            burst=settings.login_failures,
        )
        self._rights = Rights(settings)
        self._accounts = None if settings.htpasswd is None else Accounts(settings.htpasswd, self._failures)
        self._signer: Signer | None = None

    @property
    def has_accounts(self) -> bool:
        """Whether anybody can say who they are."""
        return self._accounts is not None

    @property
    def signer(self) -> Signer:
        """What makes tokens."""
        with self._lock:
            if self._signer is None:
                own = self._settings.folder / "token-secret"
                given = self._settings.token_secret
                secret = read_secret(given or own, is_own=given is None)
                self._signer = Signer(secret, self._settings.service, self._settings.token_lifetime)
            return self._signer

    def authorize(self, request: Request, repository: str | None, *actions: Action) -> Identity:
        """Who makes the request, if they may do all actions there. Raises `ProblemError` with 401 or 403 otherwise.

        Without a repository it is about the list of repositories, of which `allows` says what may be shown. It may take
        a while: call it on a thread.
        """
        identity = self.identify(request)
        if repository is None:
            return self._for_catalog(request, identity)
        if all(self.allows(identity, repository, action) for action in actions):
            return identity
        if self.has_accounts:
            # What the account may do and its token is not for, another token would be for.
            has_right = all(self._rights.allow(identity.name, repository, action) for action in actions)
            if identity.name is None or has_right:
                error = None if identity.grants is None else "insufficient_scope"
                raise self.challenge(request, _scope(repository, actions), error=error)
        raise ProblemError(403, ErrorCode.DENIED, f"{' and '.join(actions)} in {repository} is not allowed")

    def allows(self, identity: Identity, repository: str, action: Action) -> bool:
        """Whether somebody may do something in a repository."""
        if identity.grants is not None and action not in identity.grants.get(repository, ()):
            return False
        return self._rights.allow(identity.name, repository, action)

    def greet(self, request: Request) -> None:
        """Raise the 401 that makes clients log in, if there are accounts and the request does not say who makes it.

        Even where something may be done without an account: Docker sends what `docker login` was given only if it was
        asked for here, and gets a token without an account where it was given nothing.
        """
        if self.has_accounts and "authorization" not in request.headers:
            raise self.challenge(request, None)
        self.identify(request)

    def identify(self, request: Request) -> Identity:
        """Who makes a request. Raises `ProblemError` with 401 if they are not who they say."""
        header = request.headers.get("authorization")
        if header is None or not self.has_accounts:
            return Identity(None)
        kind, _, value = header.partition(" ")
        if kind.lower() == "bearer":
            identity = self._bearer(request, value.strip())
        elif kind.lower() == "basic":
            identity = Identity(self.account_of(request))
        else:
            raise self.challenge(request, None)
        observation_of(request.scope).account = identity.name
        return identity

    def account_of(self, request: Request) -> str | None:
        """The account whose name and password a request has (RFC 7617); None without them. Raises as `identify`."""
        kind, _, value = request.headers.get("authorization", "").partition(" ")
        if kind.lower() != "basic":
            return None
        try:
            text = base64.b64decode(value.strip(), validate=True).decode()
        except ValueError:  # binascii.Error and UnicodeDecodeError are such, as is what is not ASCII
            raise self.challenge(request, None) from None
        name, _, password = text.partition(":")
        return self.log_in(request, name, password)

    def log_in(self, request: Request, name: str, password: str) -> str:
        """The account of a name and its password. Raises as `identify`."""
        client = client_of(request.client.host if request.client else "")
        if self._accounts is None or not self._accounts.verify(name, password, client):
            observation_of(request.scope).failed_login = name
            raise self.challenge(request, None, message="the name or the password is wrong")
        observation_of(request.scope).account = name
        return name

    def token_for(self, account: str | None, scopes: Iterable[str]) -> str:
        """A token for those of the scopes (``repository:NAME:pull,push``) that the account has a right to."""
        grants: dict[str, frozenset[str]] = {}
        for scope in scopes:
            kind, _, rest = scope.partition(":")
            name, _, words = rest.rpartition(":")
            if kind == "registry" and name == "catalog":
                grants[CATALOG] = frozenset()
            elif kind == "repository" and is_repository_name(name):
                wanted = frozenset[str]().union(*(_SCOPE_ACTIONS.get(word, ()) for word in words.split(",")))
                allowed = frozenset(one for one in wanted if self._rights.allow(account, name, one))
                grants[name] = grants.get(name, frozenset()) | allowed
        return self.signer.sign(Token(account, self._fingerprint(account), grants), time.time())

    def has_anonymous(self) -> bool:
        """Whether anything may be done without an account."""
        return self._rights.has_anonymous

    def reload(self, settings: ServerSettings) -> None:
        """Decide by other accounts and rights from now on. Raises as `create_access`, and changes nothing then."""
        accounts = None if settings.htpasswd is None else Accounts(settings.htpasswd, self._failures)
        self._rights, self._accounts = Rights(settings), accounts

    def challenge(
        self, request: Request, scope: str | None, *, error: str | None = None, message: str | None = None
    ) -> ProblemError:
        """The 401 that tells a client where to get a token (RFC 6750)."""
        parts = [f'realm="{self._base(request)}/v2/token"', f'service="{self._settings.service}"']
        if scope is not None:
            parts.append(f'scope="{scope}"')
        if error is not None:
            parts.append(f'error="{error}"')
        headers = {"WWW-Authenticate": f"Bearer {','.join(parts)}"}
        return ProblemError(401, ErrorCode.UNAUTHORIZED, message or "say who you are", headers=headers)

    def _for_catalog(self, request: Request, identity: Identity) -> Identity:
        scope = "registry:catalog:*"
        if identity.grants is not None and CATALOG not in identity.grants:
            raise self.challenge(request, scope, error="insufficient_scope")
        if identity.name is None and not self._rights.has_anonymous:
            if self.has_accounts:
                raise self.challenge(request, scope)
            raise ProblemError(403, ErrorCode.DENIED, "nothing is allowed here")
        return Identity(identity.name)

    def _bearer(self, request: Request, text: str) -> Identity:
        token = self.signer.read(text)
        if token is None or token.fingerprint != self._fingerprint(token.account):
            # A token that has ended is no attempt at anything; whose it was is not known for sure either.
            raise self.challenge(request, None, error="invalid_token", message="the token does not hold any more")
        return Identity(token.account, token.grants)

    def _fingerprint(self, account: str | None) -> str:
        known = None
        if account is not None and self._accounts is not None:
            known = self._accounts.hash_of(account)
            if known is None:
                return ""  # no token has this
        return self.signer.fingerprint(known)

    def _base(self, request: Request) -> str:
        if self._settings.url is not None:
            return self._settings.url
        # The client reads what it has sent; a host that is none would only make the header ambiguous.
        host = request.headers.get("host", "")
        if not _HOST.fullmatch(host):
            server = request.scope.get("server") or (self._settings.host, self._settings.port)
            host = f"[{server[0]}]:{server[1]}" if ":" in server[0] else f"{server[0]}:{server[1]}"
        return f"{request.scope['scheme']}://{host}"


def create_access(settings: ServerSettings) -> Access:
    """What decides. Raises `InvalidOptionError` if the accounts or the secret for tokens cannot be used."""
    access = Access(settings)
    if access.has_accounts:
        _ = access.signer
    return access


def _scope(repository: str, actions: Iterable[Action]) -> str:
    words = ["delete"] if Action.DELETE in actions else []
    if Action.WRITE in actions:
        words = ["pull", "push", *words]
    return f"repository:{repository}:{','.join(words or ['pull'])}"
