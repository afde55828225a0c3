"""Receiving: the life cycle's first step, and a place on the shelf."""

import asyncio
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from fastapi import FastAPI

from tests.commands.conftest import Counter, Headers, Serve, Sql, WaitingForLocks

BODY = {"package_type": "EXTRA_SIZED", "condition": "FAIR"}


def test_an_announced_parcel_is_received(counter: Counter, changes: Callable[..., list[dict[str, Any]]]) -> None:
    """It gets the lowest free position, its type sets the fee, and the actor is who is signed in."""
    announced = counter.announce()
    path = f"/packages/{announced['package_id']}/reception"
    answer = counter.post(path, BODY | {"observations": "mojado"})
    assert (answer.status_code, answer.headers["ETag"]) == (200, '"2"')
    package = answer.json()
    assert (package["status"], package["position"], package["due"]) == ("RECEIVED", "00", 2000)
    assert package["received_at"] == "2026-11-24T15:00:00.000000Z"
    assert package["next_fee_at"] == "2026-11-25T15:00:00.000000Z"
    assert package["tracking_code"] == announced["tracking_code"]
    _, change = changes(announced["package_id"])
    assert (change["type"], change["username"], change["version"]) == ("PackageReceived", "operator", 2)
    assert change["data"]["after"]["position"] == "00"


def test_a_position_asked_for(counter: Counter) -> None:
    """The asked one, in any case; a taken one shows who stands there; one that doesn't exist is a wrong field."""
    package_ids = [counter.announce()["package_id"] for _ in range(3)]
    first = counter.post(f"/packages/{package_ids[0]}/reception", BODY | {"position": " 42 "})
    assert first.json()["position"] == "42"
    taken = counter.post(f"/packages/{package_ids[1]}/reception", BODY | {"position": "42"})
    assert taken.status_code == 409
    assert taken.json()["package"]["package_id"] == package_ids[0]
    unknown = counter.post(f"/packages/{package_ids[1]}/reception", BODY | {"position": "Z-1"})
    assert unknown.status_code == 422
    assert list(unknown.json()["errors"]) == ["position"]
    assert counter.post(f"/packages/{package_ids[1]}/reception", BODY).json()["position"] == "00"


def test_a_full_shelf_says_so(counter: Counter, sql: Sql) -> None:
    """409, and the parcel stays announced."""
    sql("DELETE FROM positions WHERE ordinal > 0")
    counter.receive()
    package_id = counter.announce()["package_id"]
    answer = counter.post(f"/packages/{package_id}/reception", BODY)
    assert answer.status_code == 409
    assert "full" in answer.json()["detail"]
    assert answer.json()["package"]["status"] == "ANNOUNCED"


def test_a_lapsed_announcement_cannot_be_received(counter: Counter, later: Callable[..., None]) -> None:
    """At exactly 30 days it still can."""
    first, second = counter.announce(), counter.announce()
    later(days=30)
    assert counter.post(f"/packages/{first['package_id']}/reception", BODY).status_code == 200
    later(microseconds=1)
    answer = counter.post(f"/packages/{second['package_id']}/reception", BODY)
    assert answer.status_code == 409
    assert answer.json()["package"]["status"] == "ANNOUNCED"


@pytest.mark.parametrize("field", ["package_type", "condition"])
def test_type_and_condition_are_needed(counter: Counter, field: str) -> None:
    package_id = counter.announce()["package_id"]
    answer = counter.post(
        f"/packages/{package_id}/reception", {name: value for name, value in BODY.items() if name != field}
    )
    assert answer.status_code == 422
    assert list(answer.json()["errors"]) == [field]


def test_received_twice_is_refused(counter: Counter, changes: Callable[..., list[dict[str, Any]]]) -> None:
    """The second one sees the parcel as the first left it, and leaves no trace."""
    package = counter.receive()
    answer = counter.post(f"/packages/{package['package_id']}/reception", BODY)
    assert answer.status_code == 409
    assert answer.json()["package"] == package
    assert len(changes(package["package_id"])) == 2


def test_what_is_not_there_is_404(counter: Counter, nobody: str) -> None:
    for package_id in (nobody, "17", "%00", "no-uuid"):
        assert counter.post(f"/packages/{package_id}/reception", BODY).status_code == 404


@pytest.mark.anyio
async def test_receptions_at_once_get_places_of_their_own(
    app: FastAPI, serve: Serve, operator: Headers, sql: Sql
) -> None:
    """32 at once on a shelf of 32 places: each gets one, and the 33rd is told that it is full."""
    sql("DELETE FROM positions WHERE ordinal >= 32")
    async with serve(app) as client:

        async def receive(number: int) -> dict[str, Any]:
            body = BODY | {"guide_number": f"ATONCE{number}", "customer_name": "Ana"}
            answer = await client.post("/api/v1/receptions", json=body, headers=operator)
            return {"status": answer.status_code, **answer.json()}

        answers = await asyncio.gather(*(receive(number) for number in range(32)))
        assert {answer["status"] for answer in answers} == {"RECEIVED"}
        assert {answer["position"] for answer in answers} == {f"{number:02}" for number in range(32)}
        assert (await receive(33))["status"] == 409


@pytest.mark.anyio
async def test_of_two_people_on_one_parcel_one_wins(
    app: FastAPI, serve: Serve, operator: Headers, database: str, waiting_for_locks: WaitingForLocks
) -> None:
    """Both stand before the parcel's lock; one gets 200, the other 409 with the parcel, even for two legal moves."""
    async with serve(app) as client:
        body = BODY | {"guide_number": "FOUGHT-OVER", "customer_name": "Ana"}
        package = (await client.post("/api/v1/receptions", json=body, headers=operator)).json()
        with psycopg.connect(database) as lock:
            lock.execute("SELECT FROM packages WHERE package_id = %s FOR UPDATE", (package["package_id"],))
            path = f"/api/v1/packages/{package['package_id']}/relocation"
            moves = [
                asyncio.create_task(client.post(path, json={"position": position}, headers=operator))
                for position in ("10", "11")
            ]
            await waiting_for_locks(2)
        answers = sorted(await asyncio.gather(*moves), key=lambda answer: answer.status_code)
    assert [answer.status_code for answer in answers] == [200, 409]
    assert answers[1].json()["package"]["version"] == answers[0].json()["version"] == 2


@pytest.mark.anyio
async def test_a_place_held_by_a_running_command_is_waited_for(
    app: FastAPI, serve: Serve, operator: Headers, sql: Sql, database: str, waiting_for_locks: WaitingForLocks
) -> None:
    """The last free place is held by a command that then gives it back: the shelf was not full."""
    sql("DELETE FROM positions WHERE ordinal > 0")
    async with serve(app) as client:
        with psycopg.connect(database) as holder:
            holder.execute("SELECT FROM positions FOR UPDATE")
            body = BODY | {"guide_number": "LAST-PLACE", "customer_name": "Ana"}
            task = asyncio.create_task(client.post("/api/v1/receptions", json=body, headers=operator))
            await waiting_for_locks(1)
            holder.rollback()
        assert (await task).status_code == 201


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE packages SET position_id = NULL",
        "UPDATE packages SET status = 'DELIVERED'",
        "UPDATE packages SET received_at = NULL",
        "UPDATE packages SET package_type = NULL",
        "UPDATE packages SET announced_at = received_at + interval '1 s'",
        "UPDATE positions SET package_id = NULL WHERE code = '00'",
        "UPDATE positions SET package_id = (SELECT package_id FROM packages) WHERE code = '01'",
        "UPDATE packages SET position_id = (SELECT position_id FROM positions WHERE code = '01')",
        "UPDATE packages SET guide_number = '-----'",
        "DELETE FROM change_log",
        "UPDATE change_log SET type = 'Other'",
    ],
)
def test_a_wrong_state_is_impossible_in_the_database_too(counter: Counter, sql: Sql, statement: str) -> None:
    """Whatever the code above does."""
    counter.receive()
    with pytest.raises(psycopg.errors.IntegrityError):
        sql(statement)
