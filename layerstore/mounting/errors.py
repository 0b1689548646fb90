"""Errors about mounts."""

from layerstore.errors import ConflictError, InvalidInputError, NotFoundError, UnavailableError


class MountUnavailableError(UnavailableError):
    """The system lacks what mounting needs, or refuses it."""

    code = "mount-unavailable"


class MountTargetError(InvalidInputError):
    """What was to be mounted at is no directory."""

    code = "mount-target"


class AlreadyMountedError(ConflictError):
    """Something is mounted there already."""

    code = "already-mounted"


class MountBusyError(ConflictError):
    """Processes still use what is to be unmounted."""

    code = "mount-busy"


class NotMountedError(NotFoundError):
    """Nothing of ours is mounted there."""

    code = "not-mounted"
