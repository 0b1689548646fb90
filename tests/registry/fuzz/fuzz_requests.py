"""Requests as nobody should make them, byte by byte, and what came back."""

import http.client
import json
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from layerstore.registry.protocol import ErrorCode

_CODES = {str(code) for code in ErrorCode}


@dataclass(frozen=True)
class RawAnswer:
    """An answer; status 0: the server closed the connection instead."""

    status: int
    headers: dict[str, str]
    body: bytes


def send(port: int, data: bytes, *, closes: bool = False, method: str = "GET") -> RawAnswer:
    """Send bytes as they are, and read what is answered. With ``closes`` nothing more is sent, and the server knows."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        try:
            connection.sendall(data)
            if closes:
                connection.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it was refused before all was sent: the answer says why
        answer = http.client.HTTPResponse(connection, method=method)
        try:
            answer.begin()
            body = answer.read()
        except (http.client.HTTPException, OSError):
            return RawAnswer(0, {}, b"")
        return RawAnswer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, body)


def request(method: str, path: bytes, headers: Sequence[tuple[bytes, bytes]] = (), body: bytes = b"") -> bytes:
    """The bytes of a request whose length is right."""
    lines = [method.encode() + b" " + path + b" HTTP/1.1", b"Host: registry.test", b"Connection: close"]
    lines += [name + b": " + value for name, value in headers]
    lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def check(answer: RawAnswer, method: str = "GET", path: bytes = b"/v2/") -> None:
    """No failure of the server's; whatever is refused below ``/v2/`` is refused as the specification says."""
    assert answer.status < 500, answer
    assert "x-injected" not in answer.headers, answer
    if answer.status < 400 or method == "HEAD" or not path.startswith(b"/v2/"):
        return
    if answer.status == 400 and answer.body == b"Invalid HTTP request received.":
        return  # by the parser, before anybody knew what is asked for
    (error, *_) = json.loads(answer.body)["errors"]
    assert error["code"] in _CODES, answer
    assert isinstance(error["message"], str), answer


def hostile_names(real: Sequence[str]) -> SearchStrategy[bytes]:
    """Names of repositories, most of them none."""
    written = [
        *real, "..", ".", "a/../b", "a/./b", "/a", "a//b", "a/", "A", "-a", "a-", "a..b", "a__b", "a___b", "_catalog",
        "a/manifests/b", "a/blobs/uploads", "a/tags/list", "a" * 255, "a" * 256, "a/" * 128 + "b", "a-" * 3000 + "/",
        "%2e%2e", "a/%2e%2e/b", "a%2fb", "a%2F..%2Fb", "%00", "a%00b", "a%0d%0aX-Injected:%201", "%c3%bc", "%ff%fe",
        "%", "%zz", "%u002e", "a\\..\\b", "a;b", "a?b", "a#b", "a b", "ü", "\x00", "{name}", "*", "a:b", "a@b",
        "..%2f..%2f..%2fetc", "%252e%252e", "a%20b", "con", "~", "a\x7f",
    ]  # fmt: skip
    return _latin(written)


def hostile_references(real: Sequence[str]) -> SearchStrategy[bytes]:
    """Tags and digests, most of them none."""
    sha256, sha512 = "a" * 64, "b" * 128
    written = [
        *real, "latest", ".", "..", "-a", ".a", "a" * 128, "a" * 129, "a%2fb", "%00", "a%0d%0aX-Injected:%201", "ü",
        f"sha256:{sha256}", f"sha512:{sha512}", f"sha256:{sha256.upper()}", f"sha256:{sha256[:-1]}",
        f"sha256:{sha256}0", "sha256:", ":", f":{sha256}", "sha256", f"sha256:{'g' * 64}", f"sha256:{sha256}:x",
        f"sha256%3a{sha256}", f"sha384:{'c' * 96}", f"md5:{'d' * 32}", f"blake3:{sha256}", f"sha1:{'e' * 40}",
        f"sha256+b64:{sha256}", f"SHA256:{sha256}", "sha256:../../../../etc/passwd", "sha256:" + "%00" * 64,
        "sha256:" + "\u0661".encode().decode("latin-1") * 32, "x" * 5000, "sha512:" + sha256, "unknown:abc",
    ]  # fmt: skip
    return _latin(written)


def hostile_headers() -> SearchStrategy[list[tuple[bytes, bytes]]]:
    """Headers of a request, a few at a time."""
    numbers = ["0", "-1", "1", "18446744073709551616", "9" * 19, "9" * 40, "0x10", "1e3", "+1", " 1", "\xb2", ""]
    ranges = [f"{unit}{a}-{b}" for unit in ("", "bytes=", "bytes ", "items=") for a in numbers for b in numbers]
    ranges += ["bytes=0-1,3-4", "bytes=-", "bytes=", "bytes=0-0/5", "0-5/*", "0-5/x", "bytes=" + "0-1," * 2000]
    types = [
        "application/json", "text/html", "", "a", "a/b; q=x", "multipart/form-data; boundary=x",
        "application/" + "x" * 9000,
        "application/vnd.oci.image.manifest.v1+json; charset=utf-16", "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.v1+prettyjws",
    ]  # fmt: skip
    one_of = {
        b"Range": ranges,
        b"Content-Range": ranges,
        b"Content-Type": types,
        b"Accept": [*types, "*/*", ", " * 1000],
        b"If-None-Match": ["*", '"x"', "W/", '"' * 500, "\xff"],
        b"If-Range": ['"x"', "Thu, 01 Jan 1970 00:00:00 GMT"],
        b"Authorization": ["Basic", "Basic !!!", "Basic " + "YTpi", "Bearer x.y.z", "Bearer " + "a" * 9000, "\xff"],
        b"Expect": ["100-continue", "x"],
        b"Content-Encoding": ["gzip", "zstd"],
        b"X-Forwarded-For": ["1.2.3.4", "x" * 3000, "\xff"],
        b"X-Forwarded-Proto": ["https", "javascript"],
        b"X-Request-Id": ["a" * 5000, "a\tb", "\xff"],
        b"Cookie": ["a=b; " * 500],
    }
    pairs = [(name, value.encode("latin-1")) for name, values in one_of.items() for value in values]
    return st.lists(st.sampled_from(pairs), max_size=4)


def hostile_queries(references: SearchStrategy[bytes], names: SearchStrategy[bytes]) -> SearchStrategy[bytes]:
    """Query strings."""
    values: dict[bytes, SearchStrategy[bytes]] = {
        b"digest": references,
        b"mount": references,
        b"from": names,
        b"n": st.sampled_from([b"0", b"1", b"-1", b"99999999999", b"x", b"", b"1.5", b"%31", b"\xb2"]),
        b"last": names | references,
        b"tag": references,
        b"artifactType": names,
        b"digest-algorithm": st.sampled_from([b"sha256", b"sha512", b"md5", b"", b"%00", b"x" * 500]),
    }
    pairs = [st.tuples(st.just(name), value).map(b"=".join) for name, value in values.items()]
    return st.lists(st.one_of(pairs), max_size=3).map(b"&".join)


def _latin(written: Sequence[str]) -> SearchStrategy[bytes]:
    """What was written down, and anything else that fits into the first line of a request."""
    allowed = bytes(byte for byte in range(256) if byte not in b" \r\n")
    anything = st.lists(st.sampled_from(list(allowed)), max_size=40).map(bytes)
    usual = [one.encode("latin-1").replace(b" ", b"%20") for one in written]
    return st.sampled_from(usual) | anything
