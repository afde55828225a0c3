"""A shop as its readers meet it: the read API as it is shipped, with the projector at work."""

import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.http import Answer, Client
from bench.load import CONNECTIONS, Load, drive, request
from bench.programs import peering, projecting, served
from bench.shops import Bench
from bench.traffic import sign_in
from infra.errors import ConfigurationError
from infra.settings import Settings

LISTING = "/packages"
"""What everybody opens first: the newest 50 parcels, of every status."""


@dataclass(frozen=True, slots=True)
class Readers:
    """Those who read at one address, signed in where a token is needed."""

    settings: Settings
    token: str = ""

    async def get(self, path: str, headers: Mapping[str, str] | None = None) -> Answer:
        """Ask once; a refusal is a ConfigurationError."""
        async with Client(self.settings, self.token) as client:
            answer = await client.request("GET", path, headers=headers)
        if not answer.is_good:
            raise ConfigurationError(f"{path}: {answer.status} {answer.body.decode()[:200]}")
        return answer

    async def drive(
        self,
        paths: Sequence[str],
        seconds: float,
        headers: Mapping[str, str] | None = None,
        connections: int = CONNECTIONS,
    ) -> Load:
        """Ask for these again and again, as many times as the server can answer."""
        authorization = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        requests = [request(f"/api/v1{path}", headers=authorization | dict(headers or {})) for path in paths]
        return await drive(self.settings, requests, seconds, connections)


@contextlib.asynccontextmanager
async def reading_shop(bench: Bench, packages: int | None = None, workers: int = 1) -> AsyncIterator[Readers]:
    """Open a shop, let it be projected and read while the block lasts."""
    async with bench.open(packages) as settings:
        token = await sign_in(settings)
        async with projecting(settings), served(settings, "queries", workers) as server:
            yield Readers(server.settings, token)


async def keep_page(readers: Readers, path: str) -> Path:
    """Put an answer's bytes into a file, for peers that give them away."""
    page = readers.settings.data_dir / "page.json"
    page.write_bytes((await readers.get(path)).body)
    return page


@contextlib.asynccontextmanager
async def reading_peer(settings: Settings, name: str, **given: object) -> AsyncIterator[Readers]:
    """Serve a peer while the block lasts, for readers whom nobody asks to sign in."""
    async with peering(settings, name, **given) as peer:
        yield Readers(peer)
