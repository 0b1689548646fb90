"""What client and server say to each other: one JSON object a line, over a socket of the kernel's."""

import json
import socket
import struct
from typing import Any

from layerstore.errors import InvalidInputError, LayerstoreError, MountUnavailableError

Message = dict[str, Any]
MESSAGE_SIZE_MAX = 1 << 20
_CREDENTIALS = struct.Struct("=iII")


def encode(message: Message) -> bytes:
    """A message as a line."""
    return json.dumps(message).encode() + b"\n"


def decode(line: bytes) -> Message:
    """The message that a line is. Raises `InvalidInputError` for what is none."""
    try:
        parsed = json.loads(line)
    except ValueError:
        parsed = None
    if not isinstance(parsed, dict):
        raise InvalidInputError("what came over the socket is no message")
    return parsed


def error_message(error: LayerstoreError) -> Message:
    """What is sent in place of an answer."""
    return {"error": {"code": error.code, "message": str(error)}}


def raise_error(message: Message) -> None:
    """Raise the error that a message is, if it is one."""
    error = message.get("error")
    if error is not None:
        kind = _kinds().get(error["code"], MountUnavailableError)
        raised = kind.__new__(kind)
        Exception.__init__(raised, error["message"])
        raise raised


def peer_user(connection: socket.socket) -> int:
    """The user at the other end."""
    data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    user: int = _CREDENTIALS.unpack(data)[1]
    return user


def _kinds() -> dict[str, type[LayerstoreError]]:
    found: dict[str, type[LayerstoreError]] = {}
    todo: list[type[LayerstoreError]] = [LayerstoreError]
    while todo:
        kind = todo.pop()
        found.setdefault(kind.code, kind)
        todo.extend(kind.__subclasses__())
    return found
