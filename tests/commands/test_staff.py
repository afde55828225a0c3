"""Who may sign in, and how that begins and ends."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from commands.add_staff import add_staff_account
from commands.api import create_app
from db.pools import connect
from infra.auth import Identity, Role, Session
from infra.errors import Conflict, Invalid
from infra.settings import Settings
from tests.commands.conftest import Counter, Headers, Serve, Sql
from tests.support import Clock

Changes = Callable[..., list[dict[str, Any]]]
PERSON = {"username": "Camila.Rojas", "full_name": "Camila Rojas", "role": "OPERATOR", "password": " una clave larga "}


@pytest.fixture
def office(client: TestClient, admin: Headers) -> Counter:
    return Counter(client, admin)


def sign_in(client: TestClient, username: str = "camila.rojas", password: str = PERSON["password"]) -> Headers | None:
    answer = client.post("/api/v1/auth/token", data={"username": username, "password": password})
    assert answer.status_code in {200, 401}
    return {"Authorization": f"Bearer {answer.json()['access_token']}"} if answer.is_success else None


def test_a_person_is_added_and_signs_in(office: Counter, sql: Sql, changes: Changes) -> None:
    """The name in lower case, the password as it was given, spaces too; no log row knows either of them."""
    answer = office.post("/staff", PERSON)
    assert answer.status_code == 201
    member = answer.json()
    assert answer.headers["Location"] == f"/api/v1/staff/{member['staff_id']}"
    assert (member["username"], member["role"], member["active"], member["version"]) == (
        "camila.rojas",
        "OPERATOR",
        True,
        1,
    )
    assert "password" not in answer.text
    assert office.post("/staff", PERSON | {"username": "camila.rojas"}).status_code == 409
    assert sign_in(office.client, " CAMILA.Rojas ") is not None
    headers = sign_in(office.client)
    assert Counter(office.client, headers or {}).receive()["status"] == "RECEIVED"
    (change,) = changes(type_="StaffAdded")
    assert change["data"]["person"]["after"] == {"username": "camila.rojas", "full_name": "Camila Rojas"}
    assert PERSON["password"] not in str(sql("SELECT * FROM change_log")) + str(sql("SELECT * FROM idempotency_keys"))
    assert "argon2" not in str(changes())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("username", "ab"),
        ("username", "con espacio"),
        ("username", "x" * 51),
        ("password", "123456789"),
        ("password", "x" * 201),
        ("role", "BOSS"),
        ("full_name", ""),
        ("active", True),
    ],
)
def test_a_person_that_cannot_be(office: Counter, field: str, value: object) -> None:
    answer = office.post("/staff", PERSON | {field: value})
    assert (answer.status_code, list(answer.json()["errors"])) == (422, [field])


def test_what_ends_the_sessions(office: Counter, changes: Changes) -> None:
    """A new password, another role and a dismissal; a new name doesn't."""
    path = f"/staff/{office.post('/staff', PERSON).json()['staff_id']}"
    for body, holds in (
        ({"full_name": "Camila R."}, True),
        ({"role": "ADMIN"}, False),
        ({"password": "otra clave larga"}, False),
        ({"password": PERSON["password"]}, False),
        ({"active": False}, False),
    ):
        session = sign_in(office.client) or sign_in(office.client, password="otra clave larga")
        assert session is not None
        assert office.patch(path, body).status_code == 200
        answer = office.client.post("/api/v1/receptions", json=office.parcel(), headers=session)
        assert answer.status_code == (201 if holds else 401)
    assert sign_in(office.client) is None
    assert office.patch(path, {"active": True}).json()["version"] == 7
    assert sign_in(office.client) is not None
    rows = changes(type_="StaffChanged")
    assert rows[1]["data"]["before"] == {"role": "OPERATOR"}
    assert rows[2]["data"]["password_changed"] is True
    assert "clave" not in str(rows)


@pytest.mark.parametrize("change", ["active = false", "role = 'VIEWER'", "session_generation = 2"])
def test_a_command_looks_its_caller_up_again(
    app: FastAPI, counter: Counter, sql: Sql, changes: Changes, change: str
) -> None:
    """Whoever let them in may not have heard yet of what happened to them a moment ago."""
    counter.receive()
    remembered, written = _identity_of(sql, "operator"), len(changes())

    async def recognise(_session: Session) -> Identity:
        return remembered

    app.state.recognise = recognise
    sql(f"UPDATE staff SET {change} WHERE username = 'operator'")
    assert counter.post("/receptions", counter.parcel()).status_code == 401
    assert len(changes()) == written


def _identity_of(sql: Sql, username: str) -> Identity:
    (row,) = sql("SELECT staff_id, username, full_name, role FROM staff WHERE username = %s", username)
    return Identity(row["staff_id"], row["username"], row["full_name"], Role(row["role"]))


def test_what_of_a_person_cannot_change(office: Counter, nobody: str) -> None:
    path = f"/staff/{office.post('/staff', PERSON).json()['staff_id']}"
    for body in ({}, {"username": "other"}, {"role": None}, {"active": None}, {"active": "yes"}, {"password": "short"}):
        assert office.patch(path, body).status_code == 422
    assert office.patch(path, {"active": False}, **{"If-Match": '"9"'}).status_code == 412
    for staff_id in (nobody, "17"):
        assert office.patch(f"/staff/{staff_id}", {"active": False}).status_code == 404


@pytest.mark.parametrize("body", [{"active": False}, {"role": "VIEWER"}])
def test_the_last_admin_stays(office: Counter, sql: Sql, body: object) -> None:
    """One who may not sign in doesn't count."""
    sql(
        "INSERT INTO staff (username, full_name, role, password_hash, active) VALUES ('old', 'Old', 'ADMIN', '', false)"
    )
    (row,) = sql("SELECT staff_id FROM staff WHERE username = 'admin'")
    assert office.patch(f"/staff/{row['staff_id']}", body).status_code == 409
    assert office.patch(f"/staff/{row['staff_id']}", {"full_name": "Jefa"}).status_code == 200


@pytest.mark.anyio
async def test_admins_who_dismiss_each_other(app: FastAPI, serve: Serve, admin: Headers, sql: Sql) -> None:
    """All at once: one is left."""
    for number in range(3):
        insert = "INSERT INTO staff (username, full_name, role, password_hash) VALUES (%s, 'Jefe', 'ADMIN', '')"
        sql(insert, f"admin{number}")
    ids = [row["staff_id"] for row in sql("SELECT staff_id FROM staff WHERE role = 'ADMIN'")]
    async with serve(app) as client:
        bodies = [{"role": "OPERATOR"}, {"active": False}] * 2
        requests = (
            client.patch(f"/api/v1/staff/{staff_id}", json=body, headers=admin)
            for staff_id, body in zip(ids, bodies, strict=True)
        )
        codes = [answer.status_code for answer in await asyncio.gather(*requests)]
    assert set(codes) <= {200, 401, 403, 409}
    assert sql("SELECT count(*) AS n FROM staff WHERE role = 'ADMIN' AND active")[0]["n"] >= 1


def test_a_wrong_sign_in_tells_nothing(office: Counter) -> None:
    """An unknown name, a wrong password, a dismissed person and a name that can't be: one answer."""
    member = office.post("/staff", PERSON).json()
    office.patch(f"/staff/{member['staff_id']}", {"active": False})
    answers = [
        office.client.post("/api/v1/auth/token", data={"username": username, "password": password})
        for username, password in (
            ("camila.rojas", PERSON["password"]),
            ("camila.rojas", "wrong"),
            ("nobody", "wrong"),
            ("\0", "\0"),
            ("ñ", "x"),
        )
    ]
    assert {(answer.status_code, answer.text) for answer in answers} == {(401, answers[0].text)}
    assert answers[0].headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize(
    ("content", "media", "status"),
    [
        ("username=a", "application/x-www-form-urlencoded", 422),
        ("", "application/x-www-form-urlencoded", 422),
        ("username=a&password=b&more=c", "application/x-www-form-urlencoded", 422),
        ("username=a&password=b&grant_type=refresh_token", "application/x-www-form-urlencoded", 422),
        (f"username=a&password={'x' * 300}", "application/x-www-form-urlencoded", 422),
        ('{"username": "a", "password": "b"}', "application/json", 415),
    ],
)
def test_a_form_that_cannot_be_accepted(client: TestClient, content: str, media: str, status: int) -> None:
    answer = client.post("/api/v1/auth/token", content=content, headers={"Content-Type": media})
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"


def test_guessing_is_throttled(settings: Settings, clock: Clock, office: Counter) -> None:
    """By address and name; where the throttle can't count, nobody signs in."""
    office.post("/staff", PERSON)
    with TestClient(create_app(settings.model_copy(update={"throttle_sign_in": "2/minute"}), clock)) as client:
        assert sign_in(client, password="wrong") is None
        assert sign_in(client) is not None
        form = {"username": "camila.rojas", "password": PERSON["password"]}
        answer = client.post("/api/v1/auth/token", data=form)
        assert (answer.status_code, "Retry-After" in answer.headers) == (429, True)
        assert sign_in(client, "somebody.else") is None
    away = settings.model_copy(update={"throttle_sign_in": "2/minute", "redis_url": "unix:///nowhere/valkey.sock"})
    with TestClient(create_app(away, clock)) as client:
        assert client.post("/api/v1/auth/token", data=form).status_code == 503


@pytest.mark.anyio
async def test_the_command_line_adds_staff(database: str, sql: Sql) -> None:
    """By the same rules, without an actor, in the caller's transaction."""
    async with await connect(database, "test") as conn:
        await add_staff_account(conn, "Admin", "Administración", Role.ADMIN, "una clave larga")
        with pytest.raises(Conflict):
            await add_staff_account(conn, "admin", "Otra", Role.ADMIN, "una clave larga")
        with pytest.raises(Invalid) as refusal:
            await add_staff_account(conn, "x", "Otra", Role.ADMIN, "corta")
    assert refusal.value.members["errors"].keys() == {"username", "password"}
    assert sql("SELECT username, role FROM staff") == [{"username": "admin", "role": "ADMIN"}]
    assert sql("SELECT type, actor FROM change_log") == [{"type": "StaffAdded", "actor": None}]
