"""The real server on a free port, and what it answers."""

import base64
import http.client
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from server_process import ServerProcess


@dataclass(frozen=True)
class Answer:
    """What the server said."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


@dataclass(frozen=True)
class RunningServer:
    """A server that answers."""

    port: int

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def get(
        self, path: str, *, account: str | None = None, password: str = "secret", host: str | None = None
    ) -> Answer:
        """A page, to whoever has that account."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.putrequest("GET", path, skip_host=host is not None)
            if host is not None:
                connection.putheader("Host", host)
            if account is not None:
                credentials = base64.b64encode(f"{account}:{password}".encode()).decode()
                connection.putheader("Authorization", f"Basic {credentials}")
            connection.endheaders()
            response = connection.getresponse()
            headers = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, headers, response.read())
        finally:
            connection.close()

    def page(self, path: str, **more: str) -> str:
        """The text of a page that is there."""
        answer = self.get(path, **more)
        assert answer.status == 200, (path, answer.status, answer.body[:2000])
        return answer.text


@contextmanager
def serving(store: Path, configuration: Mapping[str, object] | None = None) -> Iterator[RunningServer]:
    """``layerstore serve``, until the block is left. JSON, as the configuration is written, is YAML as well."""
    settings = store.with_name(f"{store.name}-{uuid4()}.yaml")
    settings.write_text(json.dumps({"collection_interval": 0, **(configuration or {})}))
    with ServerProcess(store, "--config", str(settings)) as process:
        yield RunningServer(process.port)
