"""A client that costs little, since it shares the machine with what it measures: one kept connection."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self

from infra.settings import Settings

PREFIX = "/api/v1"

PAST_CACHES = {"Cache-Control": "no-store"}
"""What makes the service compute a page anew, whatever it remembers."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def is_good(self) -> bool:
        """Tell whether it is no refusal."""
        return self.status < HTTPStatus.BAD_REQUEST

    def json(self) -> Any:  # noqa: ANN401
        """Read the body."""
        return json.loads(self.body)


class Client:
    """Someone who asks one thing after the other."""

    def __init__(self, settings: Settings, token: str) -> None:
        self._settings = settings
        self._head = f"Host: bench\r\nAuthorization: Bearer {token}\r\n"

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection(self._settings.host, self._settings.port)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()

    async def request(
        self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Send a request under the API's prefix, and read the whole answer."""
        content = b"" if body is None else json.dumps(body).encode()
        kind = "Content-Type: application/json\r\n" if content else ""
        more = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
        head = f"{method} {PREFIX}{path} HTTP/1.1\r\n{self._head}{more}{kind}Content-Length: {len(content)}\r\n\r\n"
        self._writer.write(head.encode() + content)
        first, *lines = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").rstrip().split("\r\n")
        answered = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = int(answered.get("content-length", 0))
        return Answer(int(first.split()[1]), answered, await self._reader.readexactly(length))
