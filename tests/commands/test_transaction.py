"""What every command has: idempotency, preconditions, tokens, attempts, and all or nothing."""

import asyncio
import itertools
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from commands import prepared
from commands.api import create_app
from commands.transaction import IfMatch, forget_idempotency_keys
from db.consistency import TokenSigner
from db.pools import connect
from db.roles import urls_of
from infra.errors import Malformed, PreconditionFailed
from infra.settings import Settings
from tests.chaos.proxy import Proxy
from tests.commands.conftest import Counter, Headers, Serve, Sql, WaitingForLocks
from tests.support import Clock

KEY = {"Idempotency-Key": "a key of ours"}
SAME = ("ETag", "Location", "Consistency-Token", "Content-Type")


def test_a_replay_is_the_first_answer(counter: Counter, sql: Sql) -> None:
    """Same status, body, version, place and token, and no second effect; the body's layout is nothing."""
    body = counter.parcel()
    first = counter.post("/receptions", body, **KEY)
    again = counter.post("/receptions", dict(reversed(body.items())), **KEY)
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.content == again.content
    assert [first.headers[name] for name in SAME] == [again.headers[name] for name in SAME]
    assert "Idempotent-Replayed" not in first.headers
    assert again.headers["Idempotent-Replayed"] == "true"
    assert sql("SELECT count(*) AS n FROM packages")[0]["n"] == 1


def test_another_body_under_the_key_is_refused(counter: Counter) -> None:
    """409, which isn't kept: the first body still gets its answer."""
    body = counter.parcel()
    first = counter.post("/receptions", body, **KEY)
    assert counter.post("/receptions", body | {"condition": "OPENED"}, **KEY).status_code == 409
    assert counter.post("/receptions", body, **KEY).content == first.content


def test_a_conflict_is_kept(counter: Counter) -> None:
    """The answer is the same although the state would allow the command by now, and nothing was half-written."""
    body = counter.parcel()
    package = counter.receive(guide_number=body["guide_number"])
    first = counter.post("/receptions", body, **KEY)
    assert first.status_code == 409
    counter.post(f"/packages/{package['package_id']}/cancellation", {"reason": "OTHER"})
    again = counter.post("/receptions", body, **KEY)
    assert (again.status_code, again.content) == (409, first.content)
    assert again.headers["Content-Type"] == "application/problem+json"
    assert again.headers["Idempotent-Replayed"] == "true"


def test_other_refusals_are_not_kept(counter: Counter, sql: Sql, nobody: str) -> None:
    """422, 404 and 412 may come out better the next time."""
    assert counter.post("/receptions", counter.parcel(position="Z-9"), **KEY).status_code == 422
    assert counter.post(f"/packages/{nobody}/relocation", {"position": "01"}, **KEY).status_code == 404
    stale = KEY | {"If-Match": '"7"'}
    package = counter.receive()
    path = f"/packages/{package['package_id']}/relocation"
    assert counter.post(path, {"position": "01"}, **stale).status_code == 412
    assert sql("SELECT * FROM idempotency_keys") == []
    assert counter.post(path, {"position": "01"}, **KEY).status_code == 200


def test_a_key_is_of_one_actor_and_path(counter: Counter, staff: dict[str, Headers]) -> None:
    body = counter.parcel()
    assert counter.post("/receptions", body, **KEY).status_code == 201
    assert counter.post("/receptions", body, **KEY | staff["colleague"]).status_code == 409
    announcement = counter.announcement()
    assert counter.client.post("/api/v1/packages", json=announcement, headers=KEY).status_code == 201


def test_a_key_counts_for_a_day(counter: Counter, clock: Clock, sql: Sql, later: Callable[..., None]) -> None:
    body = counter.parcel()
    counter.post("/receptions", body, **KEY)
    later(hours=23, minutes=59)
    assert counter.post("/receptions", body, **KEY).headers["Idempotent-Replayed"] == "true"
    later(minutes=1)
    answer = counter.post("/receptions", body, **KEY)
    assert (answer.status_code, "Idempotent-Replayed" in answer.headers) == (409, False)
    (kept,) = sql("SELECT * FROM idempotency_keys")
    assert (kept["created_at"], kept["status"]) == (clock(), 409)


@pytest.mark.anyio
async def test_old_keys_are_forgotten(sql: Sql, database: str) -> None:
    now = datetime(2026, 11, 24, tzinfo=UTC)
    for name, age in (("old", timedelta(days=1)), ("young", timedelta(hours=23))):
        insert = "INSERT INTO idempotency_keys VALUES ('public', 'POST', '/', %s, '', 201, '{}', '', %s)"
        sql(insert, name, now - age)
    async with await connect(database, "test") as conn:
        assert await forget_idempotency_keys(conn, now) == 1
    assert [row["key"] for row in sql("SELECT key FROM idempotency_keys")] == ["young"]


@pytest.mark.parametrize("key", ["short", "x" * 129, "caf\N{LATIN SMALL LETTER E WITH ACUTE} caliente"])
def test_a_key_of_another_form_is_malformed(counter: Counter, key: str) -> None:
    headers = {b"Idempotency-Key": key.encode("latin-1"), b"Authorization": counter.headers["Authorization"].encode()}
    answer = counter.client.post("/api/v1/receptions", json=counter.parcel(), headers=headers)
    assert answer.status_code == 400


@pytest.mark.anyio
async def test_64_equal_requests_have_one_effect(
    app: FastAPI, serve: Serve, counter: Counter, sql: Sql, operator: Headers
) -> None:
    """One is done, 63 are replays with the same token."""
    body = counter.parcel()
    async with serve(app) as client:
        requests = (client.post("/api/v1/receptions", json=body, headers=operator | KEY) for _ in range(64))
        answers = await asyncio.gather(*requests)
    assert {answer.status_code for answer in answers} == {201}
    assert sum("Idempotent-Replayed" in answer.headers for answer in answers) == 63
    assert len({(answer.content, *(answer.headers[name] for name in SAME)) for answer in answers}) == 1
    assert sql("SELECT count(*) AS n FROM packages")[0]["n"] == 1


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ('"1"', 200),
        ('"1.7"', 200),
        ('"1.7-gzip"', 200),
        ('"5", "1"', 200),
        ("*", 200),
        ('"2"', 412),
        ('"x"', 412),
        ('""', 412),
        ('W/"1"', 412),
        ("1", 400),
        ('"1', 400),
        ("", 400),
        (",", 400),
    ],
)
def test_if_match(counter: Counter, header: str, status: int) -> None:
    """Only the named version; what stands before the dot counts, and a weak tag matches none."""
    package = counter.receive()
    path = f"/packages/{package['package_id']}/relocation"
    answer = counter.post(path, {"position": "50"}, **{"If-Match": header})
    assert answer.status_code == status
    if status == 200:
        assert answer.headers["ETag"] == '"2"'


def test_if_match_by_itself() -> None:
    """Without the header every version will do."""
    IfMatch.parse(None).check(7)
    with pytest.raises(PreconditionFailed):
        IfMatch.parse('"6"').check(7)
    with pytest.raises(Malformed):
        IfMatch.parse("six")


def test_the_token_names_the_transaction(counter: Counter, settings: Settings, sql: Sql) -> None:
    """What the log row carries is what a query waits for."""
    answer = counter.post("/receptions", counter.parcel())
    token = TokenSigner(settings.signing_key()).read(answer.headers["Consistency-Token"])
    rows = sql("SELECT DISTINCT xid::text::bigint AS xid FROM change_log")
    assert [row["xid"] for row in rows] == [token.xid]
    assert token.incarnation == sql("SELECT incarnation FROM projection_checkpoint")[0]["incarnation"]


@pytest.mark.anyio
async def test_a_connection_lost_before_the_commit_is_503(
    app: FastAPI, serve: Serve, operator: Headers, sql: Sql, database: str, waiting_for_locks: WaitingForLocks
) -> None:
    """Nothing of the command stays, and the next one has a connection again."""
    async with serve(app) as client:
        body = {"guide_number": "LOST-ONE", "customer_name": "Ana", "package_type": "NORMAL", "condition": "GOOD"}
        with psycopg.connect(database) as holder:
            holder.execute("SELECT FROM positions FOR UPDATE")
            task = asyncio.create_task(client.post("/api/v1/receptions", json=body, headers=operator))
            await waiting_for_locks(1)
            sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
            answer = await task
        assert (answer.status_code, "Retry-After" in answer.headers) == (503, True)
        assert sql("SELECT FROM packages") == []
        assert (await client.post("/api/v1/receptions", json=body, headers=operator)).status_code == 201


def test_with_the_database_away_a_command_is_503_and_goes_on_afterwards(
    settings: Settings, clock: Clock, operator: Headers, sql: Sql
) -> None:
    """For staff and for the public; what was refused is not there later."""
    with Proxy.before(settings.postgres_dsn) as (proxy, dsn):
        away = settings.model_copy(update={**urls_of(dsn), "pool_timeout": 1.0})
        with TestClient(create_app(away, clock), raise_server_exceptions=False) as client:
            counter = Counter(client, operator)
            counter.receive()
            proxy.refuse()
            for _ in range(2):
                answer = counter.post("/receptions", counter.parcel())
                assert (answer.status_code, "Retry-After" in answer.headers) == (503, True)
                answer = client.post("/api/v1/packages", json=counter.announcement())
                assert (answer.status_code, "Retry-After" in answer.headers) == (503, True)
            proxy.accept_again()
            deadline = time.monotonic() + 20
            while counter.post("/receptions", counter.parcel()).status_code != 201:
                assert time.monotonic() < deadline
    assert sql("SELECT count(*) AS n FROM packages")[0]["n"] == 2


@pytest.mark.anyio
async def test_a_deadlock_is_tried_again(
    app: FastAPI, serve: Serve, operator: Headers, database: str, waiting_for_locks: WaitingForLocks
) -> None:
    """Whoever PostgreSQL chooses to give way, the caller of a command doesn't notice."""
    async with serve(app) as client:
        body = {"guide_number": "ENTANGLED", "customer_name": "Ana", "package_type": "NORMAL", "condition": "GOOD"}
        package = (await client.post("/api/v1/receptions", json=body, headers=operator)).json()
        with psycopg.connect(database) as rival:
            # The rival finds its deadlock late, so that the command is the one to give way.
            rival.execute("SET deadlock_timeout = '20s'")
            rival.execute("SELECT FROM positions FOR UPDATE")
            path = f"/api/v1/packages/{package['package_id']}/relocation"
            task = asyncio.create_task(client.post(path, json={"position": "09"}, headers=operator))
            await waiting_for_locks(1)
            locking = "SELECT FROM packages WHERE package_id = %s FOR UPDATE"
            await asyncio.to_thread(rival.execute, locking, (package["package_id"],))
        answer = await task
    assert (answer.status_code, answer.json()["position"]) == (200, "09")


@pytest.mark.parametrize("key", [{}, KEY])
def test_a_failing_command_leaves_nothing(
    app: FastAPI, counter: Counter, sql: Sql, monkeypatch: pytest.MonkeyPatch, key: Headers
) -> None:
    """A failure after the writes, also in what goes along with the commit, undoes them all, the key too."""
    monkeypatch.setattr("commands.prepared.Shown.statement", lambda _: "SELECT 1 / 0")
    with TestClient(app, raise_server_exceptions=False) as client:
        answer = client.post("/api/v1/receptions", json=counter.parcel(), headers=counter.headers | key)
    assert answer.status_code == 500
    tables = ("packages", "customers", "change_log", "idempotency_keys")
    assert [sql(f"SELECT count(*) AS n FROM {table}")[0]["n"] for table in tables] == [0, 0, 0, 0]
    assert sql("SELECT FROM positions WHERE package_id IS NOT NULL") == []


@pytest.mark.anyio
@pytest.mark.parametrize("key", [{}, {"Idempotency-Key": "attempt {}"}])
async def test_what_was_rolled_back_is_prepared_again(
    app: FastAPI, serve: Serve, counter: Counter, operator: Headers, key: Headers
) -> None:
    """The driver drops a connection's statements at each rollback, of a savepoint too: the next commands don't fail."""
    keys = itertools.count()

    def headers() -> Headers:
        return operator | {name: value.format(next(keys)) for name, value in key.items()}

    async with serve(app) as client:
        answers = [
            (
                await client.post("/api/v1/receptions", json=counter.parcel(position=place), headers=headers())
            ).status_code
            for place in ["07", "07", None, "07", None, None]
        ]
    assert answers == [201, 409, 201, 409, 201, 201]


@pytest.mark.anyio
async def test_a_connection_with_half_of_its_statements_is_closed(database: str) -> None:
    """It can't come back to the pool, where each command on it would fail."""
    async with await connect(database, "test") as conn:
        await conn.execute("PREPARE stamp_for_key AS SELECT 1")
        with pytest.raises(psycopg.errors.DuplicatePreparedStatement):
            await prepared.prepare(conn)
        assert conn.closed
