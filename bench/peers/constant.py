"""Bare bytes: the page in memory, and no question asked."""

from collections.abc import AsyncGenerator
from pathlib import Path

from starlette.types import ASGIApp, Receive, Scope

from bench.peers.bare import Answer, application, given


def create_app() -> ASGIApp:
    """Answer everything with the bytes of the given `page`, a file."""
    body = Path(given()["page"]).read_bytes()

    async def answer(_scope: Scope, _receive: Receive) -> bytes:
        return body

    async def answering() -> AsyncGenerator[Answer, None]:
        yield answer

    return application(answering)
