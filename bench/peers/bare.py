"""A bare ASGI application: no routing, no middleware, no validation, nothing but an answer."""

import json
import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool
from starlette.types import ASGIApp, Receive, Scope, Send

from db.pools import SESSION_OPTIONS
from infra.settings import Settings

GIVEN = "BENCH_PEER"
"""The variable that holds, as JSON, what a peer is given."""

CONNECTIONS = 10

Answer = Callable[[Scope, Receive], Awaitable[bytes]]
Pool = AsyncConnectionPool[AsyncConnection[TupleRow]]


def given() -> dict[str, Any]:
    """Read what this peer is given."""
    values: dict[str, Any] = json.loads(os.environ[GIVEN])
    return values


def application(answering: Callable[[], AsyncGenerator[Answer, None]]) -> ASGIApp:
    """Make the application; `answering` opens what is needed, yields what gives a body, and closes again."""
    open_ = asynccontextmanager(answering)
    answer: Answer | None = None

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal answer
        if scope["type"] == "lifespan":
            await receive()
            async with open_() as answer:
                await send({"type": "lifespan.startup.complete"})
                await receive()
            await send({"type": "lifespan.shutdown.complete"})
        elif answer is not None:
            body = await answer(scope, receive)
            length = str(len(body)).encode()
            headers = [(b"content-type", b"application/json"), (b"content-length", length)]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": body})

    return app


@asynccontextmanager
async def open_pool(options: str = SESSION_OPTIONS) -> AsyncGenerator[Pool, None]:
    """Open connections to the shop's database; nothing is asked of one before it is used."""
    async with AsyncConnectionPool(
        Settings.load().postgres_dsn,
        connection_class=AsyncConnection[TupleRow],
        min_size=CONNECTIONS,
        max_size=CONNECTIONS,
        kwargs={"autocommit": True, "options": options},
    ) as pool:
        yield pool
