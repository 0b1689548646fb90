"""The file in which Podman, Buildah and skopeo keep logins (``auth.json``, containers-auth.json(5)), to be read."""

from pathlib import Path

from layerstore.registry.client.credentials import HUB_DOMAIN, HUB_KEY, Credentials, kept_by_helper, kept_in_entry
from layerstore.registry.client.login_files import entry_of, read_login_file, table


class ContainersAuthFile:
    """An ``auth.json`` as `podman login` writes it. A file that is not there knows nobody."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def credentials(self, name: str) -> Credentials | None:
        """The credentials for ``registry/namespace/repository``, or for a registry alone; None if there are none.

        Of several entries that are for it, the one with the longest name holds. Raises `InvalidInputError` for a file
        that is malformed, and `AuthenticationError` if a helper fails.
        """
        config = read_login_file(self.path)
        domain = name.partition("/")[0]
        helper = table(config, "credHelpers").get(domain)
        found = kept_by_helper(helper, domain) if helper else None
        if found is not None:
            return found
        auths = table(config, "auths")
        here = name
        while here:
            if here in auths:
                return kept_in_entry(auths[here], self.path)
            here = here.rpartition("/")[0]
        # What comes from Docker's file has URLs, and a name of its own for Docker's registry.
        urls = {key: value for key, value in auths.items() if "://" in key}
        return kept_in_entry(entry_of(urls, HUB_KEY if domain == HUB_DOMAIN else domain), self.path)
