"""How a page asks: the same queries as the read API's, each answer including what this browser has written."""

import asyncio
import json
from typing import Any

from fastapi import Request

from db.connections import current_connections
from db.consistency import Token
from infra.errors import Malformed
from queries.pages import Query, edge_of
from web.session import CONSISTENCY_COOKIE

SEEN = "Seen-Batch"
"""The header by which a page that follows the shop names the change that it was told of."""


async def read(request: Request, *queries: Query, batch: int | None = None) -> Any:  # noqa: ANN401
    """Give the parsed answer of a query, or the answers of several, asked at once.

    They include what this browser has written, and `batch` or what the page was told of, where that is newer. The
    request's state then has the batch up to which nothing is missing on all that it has read, as `shown_batch`.
    """
    edge = edge_of(request, _token(request, _seen(request) if batch is None else batch))
    pages = [page for page, _ in await asyncio.gather(*(edge.page(query) for query in queries))]
    batches = [page.checkpoint.batch for page in pages]
    request.state.shown_batch = min(getattr(request.state, "shown_batch", batches[0]), *batches)
    answers = [json.loads(page.body) for page in pages]
    return answers[0] if len(queries) == 1 else answers


def _seen(request: Request) -> int | None:
    text = request.headers.get(SEEN, "")
    return int(text) if text.isascii() and text.isdecimal() else None


def _token(request: Request, batch: int | None) -> Token | None:
    """Give the change to wait for; one of another life of the database is forgotten, as nobody can wait for it."""
    connections = current_connections(request)
    current = connections.watcher.current
    if batch is not None and current is not None:
        return Token(current.incarnation, batch=min(batch, current.batch))
    text = request.cookies.get(CONSISTENCY_COOKIE)
    if text is None:
        return None
    try:
        token = connections.tokens.read(text)
    except Malformed:
        return None
    return token if current is None or token.incarnation == current.incarnation else None
