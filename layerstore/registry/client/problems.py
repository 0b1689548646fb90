"""What can be wrong with a registry, where what to do about it depends on how it is reached.

They say what to do in words; who asks the registry knows by their types with which option of its own that is done.
"""

from layerstore.errors import AuthenticationError, RegistryError


class BrokenConnectionError(RegistryError):
    """A connection was not made, or broke: it may work the next time."""


class UnreachableError(BrokenConnectionError):
    """Nobody is there who could answer: the name is not known, the connection is refused, or there is no TLS."""


class NoTLSError(UnreachableError):
    """Somebody is there, but does not speak TLS: plain HTTP may do."""


class UntrustedError(RegistryError):
    """A certificate is not good: another authority may have to be trusted."""


class ClientCertificateError(RegistryError):
    """A registry wants a certificate that says who we are, or another one."""


class UnencryptedError(RegistryError):
    """The way leads over plain HTTP, which was not allowed."""


class UnencryptedLoginError(AuthenticationError):
    """Credentials would go over plain HTTP, which was not allowed."""


class CredentialHelperError(AuthenticationError):
    """The program that keeps credentials is not there, or failed."""


class CredentialsError(AuthenticationError):
    """Credentials are missing, or are refused: others have to be given."""

    def __init__(self, message: str, domain: str) -> None:
        super().__init__(message)
        self.domain = domain
        """The registry, as it stands in references."""
