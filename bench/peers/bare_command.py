"""A reception's own statements, run by a bare ASGI application: nobody signs in, and nothing is checked or counted."""

import json
from collections.abc import AsyncGenerator
from typing import Any

from psycopg.types.json import Jsonb
from starlette.types import ASGIApp, Receive, Scope

from bench.peers.bare import Answer, application, open_pool
from commands.announce_package import MAIN_SITE
from commands.packages import DOCUMENTS
from commands.positions import LOWEST_FREE
from commands.prepared import BEGIN_FOR_ANYONE
from commands.receive_by_guide import FIND, STORE
from commands.tracking_codes import new_tracking_code
from db.pools import PLANNED_ONCE, Connection
from infra.clock import system_clock

CHANGES = ("PackageAnnounced", "PackageReceived")
NOTHING = Jsonb([])
NOBODY: dict[str, object] = {"consenting": [], "consented": [], "policy_version": None, "channel": None}


async def body_of(receive: Receive) -> dict[str, Any]:
    """Read the request's body."""
    content, message = b"", await receive()
    while True:
        content += message["body"]
        if not message.get("more_body"):
            break
        message = await receive()
    body: dict[str, Any] = json.loads(content)
    return body


async def receive_parcel(conn: Connection, body: dict[str, Any]) -> bytes:
    """Receive a parcel that nobody announced, of a customer who is known."""
    now = system_clock()
    await conn.execute(BEGIN_FOR_ANYONE, prepare=False)
    guide_keys, phones = [body["guide_number"].replace("-", "")], [body["customer_phone"]]
    asked = {"guide_keys": guide_keys, "sites": [MAIN_SITE], "phones": phones, "now": now}
    found = await (await conn.execute(FIND, asked, prepare=True)).fetchone() or ()
    _, package_id, site_id, customer_id, tariff_id, *_ = found
    wanted = {"site_id": site_id, "held": [], "count": 1}
    position_id, position = await (await conn.execute(LOWEST_FREE, wanted, prepare=True)).fetchone() or ()
    ids = {"package_id": package_id, "customer_id": customer_id}
    places = {"site_id": site_id, "position_id": position_id, "tariff_id": tariff_id}
    named = {name: str(id_) for name, id_ in (ids | places).items()}
    row = body | named | {"tracking_code": new_tracking_code()}
    log = {name: named[name] for name in ids} | {"version": 1, "at": now.isoformat()}
    after = {"status": "RECEIVED", "position": position, **body}
    stored = {
        "positions": [position_id],
        "packages": [package_id],
        "new": Jsonb([row]),
        "announced": NOTHING,
        "changes": Jsonb([log | {"type": type_, "data": {"after": after}} for type_ in CHANGES]),
        "now": now,
        **NOBODY,
    }
    await conn.execute(STORE, stored, prepare=True)
    shown = {"package_ids": [package_id], "now": now}
    document: str = (await (await conn.execute(DOCUMENTS, shown, prepare=True)).fetchone() or ("", ""))[1]
    await conn.execute("COMMIT")
    return document.encode()


def create_app() -> ASGIApp:
    """Receive whatever is posted."""

    async def answering() -> AsyncGenerator[Answer, None]:
        async with open_pool(PLANNED_ONCE) as pool:

            async def answer(_scope: Scope, receive: Receive) -> bytes:
                body = await body_of(receive)
                async with pool.connection() as conn:
                    return await receive_parcel(conn, body)

            yield answer

    return application(answering)
