"""What urllib3 and the system say when a request fails, in plain words: who did what."""

import http.client
import ssl
from urllib.parse import urlsplit

from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    IncompleteRead,
    NameResolutionError,
    NewConnectionError,
    ProxyError,
    ReadTimeoutError,
    SSLError,
)

from layerstore.errors import RegistryError
from layerstore.registry.client.addresses import Origin
from layerstore.registry.client.options import ConnectionOptions
from layerstore.registry.client.problems import (
    BrokenConnectionError,
    ClientCertificateError,
    NoTLSError,
    UnreachableError,
    UntrustedError,
)
from layerstore.registry.client.tls import plain_reason

_CERTIFICATE_WANTED = ("CERTIFICATE_REQUIRED", "HANDSHAKE_FAILURE", "BAD_CERTIFICATE", "UNKNOWN_CA")
"""Alerts with which a server ends a connection whose client shows no certificate, or one that it does not like."""

_DEEDS: tuple[tuple[tuple[type[BaseException], ...], str], ...] = (
    ((NameResolutionError,), "cannot be found: nobody knows that name"),
    ((ConnectionRefusedError,), "refused the connection"),
    ((http.client.RemoteDisconnected,), "closed the connection without an answer"),
    (
        (IncompleteRead, http.client.IncompleteRead, ssl.SSLEOFError),
        "closed the connection in the middle of an answer",
    ),
    ((ConnectionResetError, BrokenPipeError), "broke the connection"),
)
"""What is done by errors of these kinds; the first that fits holds."""
_NO_TUNNEL = "Tunnel connection failed: "
"""How the standard library begins what a proxy says that does not connect us."""


def request_error(
    error: HTTPError | OSError, origin: Origin, options: ConnectionOptions, proxy: str | None
) -> RegistryError:
    """Our error for one that a request ended with."""
    tls = _tls_error(error)
    if tls is not None:
        return _tls_problem(tls, origin, options)
    if isinstance(error, ProxyError):
        parts = urlsplit(proxy or "")
        who = f"the proxy {parts.hostname}:{parts.port}" if parts.port else f"the proxy {parts.hostname}"
        return BrokenConnectionError(f"{origin} cannot be reached: {who} {_did(error.original_error, options)}")
    kind = UnreachableError if isinstance(error, NewConnectionError) else BrokenConnectionError
    return kind(f"{origin} {_did(error, options)}")


def answer_error(error: HTTPError | OSError, origin: Origin, options: ConnectionOptions) -> BrokenConnectionError:
    """Our error for one that the body of an answer ended with."""
    return BrokenConnectionError(f"{origin} {_did(error, options)}")


def _did(error: BaseException, options: ConnectionOptions) -> str:
    """What somebody did, for a sentence that begins with his name."""
    chain = _chain(error)
    # urllib3 has made `NewConnectionError` one of these.
    if any(isinstance(one, ConnectTimeoutError) and not isinstance(one, NewConnectionError) for one in chain):
        return f"did not answer within {options.connect_seconds_max:g} s"
    if any(isinstance(one, (ReadTimeoutError, TimeoutError)) for one in chain):
        return f"was silent for {options.read_seconds_max:g} s"
    for kinds, deed in _DEEDS:
        if any(isinstance(one, kinds) for one in chain):
            return deed
    system = next((one for one in chain if isinstance(one, OSError)), None)
    if isinstance(system, ssl.SSLError):
        return f"broke the connection: {plain_reason(system)}"
    if system is not None and _NO_TUNNEL in str(system):
        return f"does not connect to it: {str(system).partition(_NO_TUNNEL)[2][:200]}"
    if system is not None:
        return f"cannot be reached: {system.strerror or system}"
    if any(isinstance(one, http.client.HTTPException) for one in chain):
        return "answers with what is not HTTP"
    return f"broke the connection: {str(error)[:200]}"


def _tls_error(error: BaseException) -> ssl.SSLError | None:
    if isinstance(error, ProxyError):
        return None
    found = next((one for one in _chain(error) if isinstance(one, ssl.SSLError)), None)
    return ssl.SSLError(str(error)) if found is None and isinstance(error, SSLError) else found


def _tls_problem(error: ssl.SSLError, origin: Origin, options: ConnectionOptions) -> RegistryError:
    if isinstance(error, ssl.SSLCertVerificationError):
        reason = error.verify_message.rstrip(".")
        return UntrustedError(f"the certificate of {origin} is not trusted: {reason}; its authority has to be trusted")
    if any(alert in (error.reason or "") for alert in _CERTIFICATE_WANTED):
        if options.client_certificate is None:
            return ClientCertificateError(f"{origin} ended the connection: it may want a certificate of ours; give one")
        return ClientCertificateError(
            f"{origin} does not accept the certificate {options.client_certificate} ({plain_reason(error)})"
        )
    if isinstance(error, ssl.SSLEOFError):
        return UnreachableError(f"{origin} closed the connection")
    return NoTLSError(f"{origin} does not speak TLS as it should: {plain_reason(error)}; it may be without")


def _chain(error: BaseException) -> list[BaseException]:
    """An error with all that it was made of."""
    found: list[BaseException] = []
    waiting = [error]
    while waiting:
        one = waiting.pop(0)
        if one not in found:
            found.append(one)
            inner = (one.__cause__, getattr(one, "reason", None), getattr(one, "original_error", None), *one.args)
            waiting += [other for other in inner if isinstance(other, BaseException)]
    return found
