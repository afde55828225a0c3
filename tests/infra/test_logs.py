"""Log lines are JSON, say who did what for how long, and nothing about anybody."""

import io
import json
import logging
import sys
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pwdlib import PasswordHash

import commands.api
from infra import logs
from infra.auth import PUBLIC, allow
from infra.routing import router
from infra.settings import Settings
from tests.support import Clock

Lines = Callable[[], list[dict[str, Any]]]

PERSON = ("Ñáñez", "3001234567", "300 123 4567", "GUIDE-SECRET-1", "ana@example.com", "una-clave-larga", "testclient")


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Lines:
    """Gives what was logged, as it would stand on standard error."""
    written = io.StringIO()
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(sys, "stderr", written)
    logs.configure()
    return lambda: [json.loads(line) for line in written.getvalue().splitlines()]


def test_an_exception_is_told_without_its_words(lines: Lines) -> None:
    """The database quotes the row that it refuses, and validation what was sent."""
    try:
        try:
            raise psycopg.errors.UniqueViolation("Key (phone)=(+573001234567) already exists")
        except psycopg.Error as error:
            raise ValueError("Ana Ñáñez") from error
    except ValueError:
        logs.get("test").exception("failed")
    (line,) = lines()
    assert [link["kind"] for link in line["exception"]] == ["builtins.ValueError", "psycopg.errors.UniqueViolation"]
    assert "test_logs.py" in line["exception"][0]["at"][0]
    assert not any(word in json.dumps(line, ensure_ascii=False) for word in PERSON)


def test_a_lost_connection_is_told_in_its_words_and_a_refused_row_is_not() -> None:
    """Where nobody listens is for the person on duty; DETAIL, and values that can't be read, are about customers."""
    away = psycopg.OperationalError('connection to server at "10.0.0.1" failed: Connection refused\n\tIs it running?')
    assert logs.reason(away) == (
        'psycopg.OperationalError: connection to server at "10.0.0.1" failed: Connection refused'
    )
    refused = psycopg.errors.CheckViolation("new row violates a rule\nDETAIL:  Failing row contains (Ana Ñáñez).")
    assert logs.reason(refused) == "psycopg.errors.CheckViolation"
    assert logs.reason(psycopg.errors.InvalidTextRepresentation('invalid input: "300 123 4567"')).endswith("tion")
    assert logs.reason(TimeoutError()) == "builtins.TimeoutError"


broken = router("test")


@broken.get("/broken")
@allow(PUBLIC)
async def fail() -> None:
    """Fail with words about somebody."""
    raise ValueError("Ana Ñáñez, 300 123 4567")


@pytest.fixture
def app(settings: Settings, clock: Clock) -> FastAPI:
    app = commands.api.create_app(settings, clock)
    app.include_router(broken)
    return app


def test_a_request_is_told_by_its_command_and_actor(app: FastAPI, lines: Lines, database: str) -> None:
    """Commands, refusals and failures each have a line with the request's id; none says who the customer is."""
    with psycopg.connect(database, autocommit=True) as conn:
        insert = "INSERT INTO staff (username, full_name, role, password_hash) VALUES ('ana', 'Ana Ñáñez', 'ADMIN', %s)"
        conn.execute(insert, [PasswordHash.recommended().hash("another-password")])
    announcement = {
        "customer_name": "Ana Ñáñez",
        "customer_phone": "300 123 4567",
        "guide_number": "GUIDE-SECRET-1",
        "data_consent": True,
    }
    with TestClient(app, raise_server_exceptions=False) as client:
        said = {"X-Request-Id": "request-1"}
        assert client.post("/api/v1/packages", json=announcement, headers=said).status_code == 201
        assert client.post("/api/v1/packages?phone=3001234567", json=announcement).status_code == 422
        assert client.post("/api/v1/receptions", json=announcement).status_code == 401
        form = {"username": "ana", "password": "una-clave-larga"}
        assert client.post("/api/v1/auth/token", data=form).status_code == 401
        assert client.get("/api/v1/broken").status_code == 500
    told = [line for line in lines() if line["logger"] in ("http", "audit")]
    announced, invalid, refused, tried, denied, failure, failed = told
    assert announced["command"] == "announce_package"
    assert announced["request_id"] == "request-1"
    assert announced["duration_ms"] > 0
    assert (announced["status"], announced["actor"]) == (201, None)
    assert (invalid["event"], invalid["status"]) == ("request", 422)
    assert (refused["logger"], refused["event"], refused["command"]) == ("audit", "refused", "receive_by_guide")
    assert (tried["event"], tried["outcome"], len(tried["client"])) == ("sign_in", "refused", 16)
    assert tried["staff_id"] is not None
    assert (denied["logger"], denied["command"], denied["status"]) == ("audit", "sign_in", 401)
    assert (failure["event"], failed["status"]) == ("unhandled_exception", 500)
    assert failure["request_id"] == failed["request_id"]
    ours = [line for line in lines() if line["logger"] != "httpx2"]  # this test's own client, which logs what it asks
    everything = "\n".join(json.dumps(line, ensure_ascii=False) for line in ours)
    assert [word for word in PERSON if word in everything] == []
