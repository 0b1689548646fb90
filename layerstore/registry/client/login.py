"""Whether a registry takes credentials, before they are kept."""

from contextlib import closing

from layerstore.registry.client.connection import Connection
from layerstore.registry.client.options import ConnectionOptions


def check_login(domain: str, options: ConnectionOptions) -> bool:
    """Log in at a registry, with the credentials of the options; whether it asked for any.

    Raises `AuthenticationError` if it refuses them, and `RegistryError` if it cannot be asked.
    """
    with closing(Connection(domain, options)) as connection:
        connection.request("GET", "/v2/").close()
        return connection.asks_for_credentials
