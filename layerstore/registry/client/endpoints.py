"""What one repository of a registry has to offer, each part by the requests that are for it."""

from layerstore.registry.client.connection import Connection
from layerstore.registry.client.differences import Differences
from layerstore.registry.client.manifests import Manifests
from layerstore.registry.client.referrers import Referrers
from layerstore.registry.client.uploads import Uploads


class Endpoints:
    """The parts of one repository, over one connection."""

    def __init__(self, connection: Connection, path: str) -> None:
        """``path`` is the name of the repository in the registry."""
        self.manifests = Manifests(connection, path)
        self.referrers = Referrers(connection, path)
        self.uploads = Uploads(connection, path)
        self.differences = Differences(connection, path)
