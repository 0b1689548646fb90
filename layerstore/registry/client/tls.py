"""TLS as the options want it: whom we trust, and the certificate that says who we are."""

import ssl
from pathlib import Path

from layerstore.errors import InvalidOptionError
from layerstore.registry.client.options import ConnectionOptions


def tls_context(options: ConnectionOptions) -> ssl.SSLContext:
    """What connections are made with. Raises `InvalidOptionError` for files that cannot be used."""
    context = ssl.create_default_context()
    if options.ca_file is not None:
        try:
            context.load_verify_locations(options.ca_file)
        except (OSError, ssl.SSLError) as error:
            raise InvalidOptionError(
                f"{options.ca_file} cannot be read as certificates (PEM): {error.strerror or error}"
            ) from error
    if options.client_certificate is not None:
        _show(context, options.client_certificate, options.client_key)
    if options.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def plain_reason(error: ssl.SSLError) -> str:
    """Why, without the places in OpenSSL's source."""
    return (error.reason or error.strerror or str(error)).replace("_", " ").lower()


def _show(context: ssl.SSLContext, certificate: Path, key: Path | None) -> None:
    def refuse() -> str:
        # OpenSSL would ask for it on the terminal.
        raise InvalidOptionError(f"the key in {key or certificate} has a password; give one without")

    for path in (certificate, key):
        try:
            if path is not None:
                path.open("rb").close()
        except OSError as error:
            raise InvalidOptionError(f"{path} cannot be read: {error.strerror}") from error
    try:
        context.load_cert_chain(certificate, key, password=refuse)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise InvalidOptionError(f"the key in {key or certificate} is not that of {certificate}") from error
        what = f"{certificate} has no certificate and key" if key is None else f"{certificate} or {key} is no such file"
        raise InvalidOptionError(f"{what} in PEM: {plain_reason(error)}") from error
