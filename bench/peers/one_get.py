"""The page's bytes through one Redis GET."""

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import cast

from redis.asyncio import Redis
from starlette.types import ASGIApp, Receive, Scope

from bench.peers.bare import Answer, application, given
from infra.settings import Settings

KEY = "bench:page"


def create_app() -> ASGIApp:
    """Put the bytes of the given `page`, a file, into Redis, and answer everything from there."""
    page = Path(given()["page"]).read_bytes()

    async def answering() -> AsyncGenerator[Answer, None]:
        async with Redis.from_url(Settings.load().redis_dsn) as redis:
            await redis.set(KEY, page)

            async def answer(_scope: Scope, _receive: Receive) -> bytes:
                return cast("bytes", await redis.get(KEY))

            yield answer

    return application(answering)
