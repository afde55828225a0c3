"""Machines sign in by keys: kept as digests, no mightier than whose they are, and ended at once everywhere."""

import asyncio
import uuid
from collections.abc import AsyncIterator

import pytest
from fastapi.testclient import TestClient

import commands.api
import queries.api
from commands.api_keys import add_api_key, list_api_keys, revoke_api_key
from commands.transaction import Context
from db.connections import Connections, open_connections
from db.pools import Connection, connect
from infra.auth import ApiKey, Role, api_key_digest
from infra.clock import system_clock
from infra.errors import Conflict, NotFound
from infra.settings import Settings

pytestmark = pytest.mark.anyio

ADD_STAFF = """
INSERT INTO staff (username, full_name, role, password_hash) VALUES ('scanner', 'Escáner', %s, '-') RETURNING staff_id
"""


@pytest.fixture
async def conn(database: str, anyio_backend: str) -> AsyncIterator[Connection]:
    assert anyio_backend == "asyncio"
    async with await connect(database, "test") as conn:
        await conn.execute(ADD_STAFF, ["OPERATOR"])
        yield conn


async def make(conn: Connection, role: Role) -> tuple[uuid.UUID, dict[str, str]]:
    key_id, key = await add_api_key(conn, Context(system_clock()), "Scanner", role)
    return key_id, {"Authorization": f"Bearer {key}"}


async def test_a_key_signs_in_on_both_apis(conn: Connection, settings: Settings) -> None:
    """It may read by a role that reads, and no more; a text that only looks like one is nobody's."""
    _, headers = await make(conn, Role.VIEWER)
    with (
        TestClient(queries.api.create_app(settings)) as reader,
        TestClient(commands.api.create_app(settings)) as writer,
    ):
        assert reader.get("/api/v1/packages", headers=headers).status_code == 200
        assert reader.get("/api/v1/staff", headers=headers).status_code == 403
        assert writer.post("/api/v1/receptions", json={}, headers=headers).status_code == 403
        _, mightier = await make(conn, Role.OPERATOR)
        parcel = {
            "guide_number": "KEY-00001",
            "customer_name": "Ana Ruiz",
            "package_type": "NORMAL",
            "condition": "GOOD",
        }
        assert writer.post("/api/v1/receptions", json=parcel, headers=mightier).status_code == 201
        await conn.execute("UPDATE api_keys SET revoked_at = now()")
        assert writer.post("/api/v1/receptions", json=parcel, headers=mightier).status_code == 401
        forged = {"Authorization": headers["Authorization"][:-1] + "~"}
        assert reader.get("/api/v1/packages", headers=forged).status_code == 401


async def test_a_key_is_kept_as_a_digest(conn: Connection) -> None:
    """Whoever reads the table, or the log, can't sign in by it."""
    _, headers = await make(conn, Role.VIEWER)
    secret = headers["Authorization"].removeprefix("Bearer ")
    dump = await (
        await conn.execute(
            "SELECT (SELECT json_agg(k) FROM api_keys k)::text, (SELECT json_agg(l) FROM change_log l)::text"
        )
    ).fetchone()
    assert dump is not None
    assert secret not in dump[0] + dump[1]
    assert api_key_digest(secret).hex() in dump[0]
    assert len(secret) > 43


@pytest.mark.parametrize(
    ("of_key", "of_person", "found"),
    [("ADMIN", "OPERATOR", "OPERATOR"), ("VIEWER", "ADMIN", "VIEWER"), ("OPERATOR", "VIEWER", "VIEWER")],
)
async def test_a_key_has_the_lesser_rights(
    conn: Connection, settings: Settings, of_key: str, of_person: str, found: str
) -> None:
    """The key's own role bounds it, and so does what its person is allowed now."""
    _, headers = await make(conn, Role(of_key))
    await conn.execute("UPDATE staff SET role = %s", [of_person])
    digest = api_key_digest(headers["Authorization"].removeprefix("Bearer "))
    async with open_connections(settings.for_queries(), system_clock) as connections:
        identity = await connections.sessions.recognise(ApiKey(digest))
    assert identity is not None
    assert identity.role == found


async def _until_unknown(connections: Connections, key: ApiKey) -> None:
    async with asyncio.timeout(10):
        while connections.sessions.remembers(key):  # noqa: ASYNC110 (the news comes from the database)
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("how", ["revoked", "dismissed"])
async def test_an_ended_key_is_forgotten_by_every_process(conn: Connection, settings: Settings, how: str) -> None:
    """Who remembered it hears of its end, with the commit, and asks again."""
    key_id, headers = await make(conn, Role.VIEWER)
    key = ApiKey(api_key_digest(headers["Authorization"].removeprefix("Bearer ")))
    async with (
        open_connections(settings.for_queries(), system_clock) as one,
        open_connections(settings.for_commands(), system_clock) as other,
    ):
        async with asyncio.timeout(10):
            while not (one.sessions.remembers(key) and other.sessions.remembers(key)):
                assert await one.sessions.recognise(key)
                assert await other.sessions.recognise(key)
                await asyncio.sleep(0.01)
        if how == "revoked":
            await revoke_api_key(conn, Context(system_clock()), key_id)
        else:
            await conn.execute("UPDATE staff SET active = false")
        for connections in (one, other):
            await _until_unknown(connections, key)
            assert await connections.sessions.recognise(key) is None


async def test_what_was_done_with_keys_is_on_record(conn: Connection) -> None:
    """Made and revoked once each; nobody's key isn't made."""
    key_id, _ = await make(conn, Role.VIEWER)
    await revoke_api_key(conn, Context(system_clock()), key_id)
    with pytest.raises(Conflict):
        await revoke_api_key(conn, Context(system_clock()), key_id)
    with pytest.raises(NotFound):
        await add_api_key(conn, Context(system_clock()), "nobody", Role.VIEWER)
    types = await (await conn.execute("SELECT type FROM change_log ORDER BY position")).fetchall()
    assert types == [("ApiKeyAdded",), ("ApiKeyRevoked",)]
    (record,) = await list_api_keys(conn)
    assert (record.username, record.role, record.revoked_at is not None) == ("scanner", "VIEWER", True)
