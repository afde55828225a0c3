"""`GET /api/v1/updates`: what changes, as Server-Sent Events, as it is projected."""

import asyncio
import contextlib
import re
import uuid
from collections.abc import AsyncIterator
from typing import Annotated, Any

import psycopg
from fastapi import Header, Query, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from db.connections import Connections
from db.consistency import HEADER, Checkpoint, Token
from db.package_document import Status
from infra.auth import Role, allow, authorize
from infra.errors import Malformed, Problem, Unavailable
from infra.http import problems
from infra.routing import router
from queries.pages import TheEdge

updates = router("updates")

COMMENT_EVERY = 15.0
"""Seconds; a proxy sees that the stream lives, and we see whether its session does."""

# The batches after the one that was told last; the text is the event's data.
SELECT = """
SELECT b.batch, json_build_object('batch', b.batch, 'packages', b.packages)::text
FROM batch_changes AS b WHERE b.batch > %(after)s AND b.batch <= %(until)s ORDER BY b.batch LIMIT 1000
"""


class ChangedPackage(BaseModel):
    """A parcel as the batch left it."""

    package_id: uuid.UUID
    status: Status
    version: int


class Change(BaseModel):
    """The data of one `change` event; its `id` is the batch."""

    batch: int
    packages: list[ChangedPackage]


EXAMPLE = (
    'event: change\nid: 42\ndata: {"batch": 42, "packages": [{"package_id": "01890a5d-ac96-774b-bcce-b302099a8057",'
    ' "status": "RECEIVED", "version": 2}]}\n\n'
)


class EventStream(StreamingResponse):
    """Server-Sent Events."""

    media_type = "text/event-stream"


async def _current(connections: Connections) -> Checkpoint:
    """Give the present checkpoint; a process that has just begun may have to wait for its first one."""
    with contextlib.suppress(TimeoutError):
        async with (
            asyncio.timeout(connections.settings.consistency_wait),
            contextlib.aclosing(connections.watcher.batches()) as batches,
        ):
            return await anext(batches)
    raise Unavailable("The database can't be reached right now")


def _after(last_event_id: str | None, after: int | None, current: Checkpoint) -> int:
    if last_event_id is None:
        return current.batch if after is None else min(after, current.batch)
    if not re.fullmatch(r"[0-9]{1,18}", last_event_id):
        raise Malformed("The Last-Event-ID is not one of ours")
    return min(int(last_event_id), current.batch)


async def _read(connections: Connections, after: int, until: int) -> list[tuple[int, str]]:
    async with connections.read_pool.connection() as conn:
        rows = await conn.execute(SELECT, {"after": after, "until": until})
        return [(batch, data) for batch, data in await rows.fetchall()]


async def events(request: Request, connections: Connections, after: int) -> AsyncIterator[str]:
    """Tell the batches after `after`, and go on until the reader, the session or the process ends."""
    yield ": following\n\n"
    stopping = asyncio.create_task(request.app.state.stopping.wait())
    batches = connections.watcher.batches()
    moved: asyncio.Future[Checkpoint] = asyncio.ensure_future(anext(batches))
    try:
        while True:
            await asyncio.wait({moved, stopping}, timeout=COMMENT_EVERY, return_when=asyncio.FIRST_COMPLETED)
            if stopping.done():
                return
            if not moved.done():
                await authorize(request, Role.VIEWER)
                if connections.watcher.current is None:
                    return  # the database has gone: the reader learns it by the stream's end
                yield ":\n\n"
                continue
            until = moved.result().batch
            while changes := await _read(connections, after, until):
                for batch, data in changes:
                    yield f"event: change\nid: {batch}\ndata: {data}\n\n"
                    after = batch
            moved = asyncio.ensure_future(anext(batches))
    except (Problem, psycopg.Error):
        return  # the session or the database has gone; the reader asks again, after the last id it saw
    finally:
        for task in (moved, stopping):
            task.cancel()
        await asyncio.gather(moved, stopping, return_exceptions=True)


@updates.get(
    "/updates",
    response_class=EventStream,
    responses={
        200: {
            "description": "`event: change`, with the batch as `id` and a Change as `data`; a comment every 15 s.",
            "content": {"text/event-stream": {"schema": {"type": "string"}, "example": EXAMPLE}},
        },
        **problems(401, 403),
    },
)
@allow(Role.VIEWER)
async def follow_updates(
    request: Request,
    edge: TheEdge,
    after: Annotated[int | None, Query(ge=0, lt=10**18, description="The batch to begin after.")] = None,
    last_event_id: Annotated[str | None, Header(description="The last `id` seen; goes on after it.")] = None,
) -> StreamingResponse:
    """Follow what changes: from now on, from `after` on, or, coming back, after `Last-Event-ID`.

    What is older than an hour is not told again.
    """
    await edge.wait()
    current = await _current(edge.connections)
    token = edge.connections.tokens.sign(Token(current.incarnation, batch=current.batch))
    headers: dict[str, Any] = {"Cache-Control": "private, no-cache", "X-Accel-Buffering": "no", HEADER: token}
    return EventStream(events(request, edge.connections, _after(last_event_id, after, current)), headers=headers)
