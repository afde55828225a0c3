"""Every route of the write API: who may, and that no input breaks it."""

import json
import re
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from commands.api import ROUTERS
from infra.auth import Role
from infra.routing import GuardedRoute
from tests.commands.conftest import Counter, Headers

ROUTES = [route for router in ROUTERS for route in router.routes if isinstance(route, GuardedRoute)]
PUBLIC_ROUTES = {"/api/v1/packages", "/api/v1/auth/token"}
"""What the public may post to."""

NASTY: list[Any] = [
    None,
    True,
    0,
    "text",
    [],
    [[]],
    [None],
    {"": ""},
    {"customer_name": "\0", "guide_number": "\0", "name": "\0", "position": "\0", "reason": "\0", "username": "\0"},
    {"customer_name": "\ud800", "other_codes": ["\ud800abc"], "name": "\udfff", "password": "\ud800" * 12},
    {"amount": 10**400, "first": 10**400, "last": -(10**400), "width": 2**64, "daily_storage": 2**63},
    {"amount": 1e308, "first": 0.5, "base_fees": [], "valid_from": "0000-00-00", "other_codes": {}},
    {"valid_from": "9999-12-31T23:59:59-23:59", "base_fees": {"NORMAL": 0, "EXTRA_SIZED": 0}, "daily_storage": 0},
    {"valid_from": "2026-02-30", "base_fees": {"NORMAL": 10**12 + 1, "EXTRA_SIZED": 0}, "daily_storage": 0},
    {"guide_number": "A" * 10**5, "customer_phone": "+" * 41, "site": "\u0130", "position": "\u0149" * 32},
    {"customer_phone": "\u0663\u0660\u0660", "guide_number": "\uff21\uff22\uff23\uff24\uff25", "carrier": "\u202e"},
]


def test_every_route_has_its_role(app: FastAPI) -> None:
    """A route without a mark would be refused to everybody: there is none, and what is public is written down."""
    assert len(ROUTES) == 18
    assert all(route.is_marked for route in ROUTES)
    assert {route.path for route in ROUTES if route.access is None} == PUBLIC_ROUTES
    admin_only = {route.path for route in ROUTES if route.access is Role.ADMIN}
    assert admin_only == {
        path for path in map(str, (r.path for r in ROUTES)) if re.match("/api/v1/(staff|sites|tariffs)", path)
    }
    assert {route.path for route in ROUTES} <= app.openapi()["paths"].keys()


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.name)
def test_who_is_let_in(route: GuardedRoute, client: TestClient, staff: dict[str, Headers], nobody: str) -> None:
    """Nobody without a sign-in, and no role that doesn't reach, before a word about the body."""
    if route.access is None:
        return
    path = re.sub(r"\{\w+\}", nobody, route.path)
    (method,) = route.methods or {""}
    assert client.request(method, path, content=b"{").status_code == 401
    for name, role in (("viewer", Role.VIEWER), ("operator", Role.OPERATOR), ("admin", Role.ADMIN)):
        answer = client.request(method, path, content=b"{", headers=staff[name] | {"Content-Type": "application/json"})
        malformed = 400 if route.media_type == "application/json" else 415
        assert answer.status_code == (malformed if role.reaches(route.access) else 403)


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.name)
def test_no_input_breaks_it(route: GuardedRoute, counter: Counter, admin: Headers, app: FastAPI) -> None:
    """Whatever is sent, on things that are there: a documented refusal as problem+json, never a 500."""
    package = counter.receive()
    (method,) = route.methods or {""}
    ids = {"site": "PRINCIPAL", "package_id": package["package_id"], "staff_id": package["package_id"]}
    path = route.path.format(**ids, customer_id=package["customer"]["customer_id"])
    documented = app.openapi()["paths"][route.path][method.lower()]["responses"].keys()
    is_form = route.media_type != "application/json"
    for nasty in NASTY:
        sent = {"data": {"username": "\0", "password": str(nasty)[:150]}} if is_form else {"content": json.dumps(nasty)}
        media = {} if is_form else {"Content-Type": "application/json"}
        answer = counter.client.request(method, path, headers=admin | media, **sent)
        assert str(answer.status_code) in documented, (nasty, answer.text)
        if answer.status_code >= 400:
            assert answer.headers["Content-Type"] == "application/problem+json"
            assert answer.json()["status"] == answer.status_code
    for content, status in ((b"{", 400), (b"[" * 10**5, 400), (b"\xff", 400), (b" " * 5_000_000, 413)):
        if not is_form:
            headers = admin | {"Content-Type": "application/json"}
            assert counter.client.request(method, path, content=content, headers=headers).status_code == status
    headers = admin | {"Content-Type": "text/plain"}
    assert counter.client.request(method, path, content=b"{}", headers=headers).status_code == 415


def test_deep_nesting_is_refused_with_a_key_too(counter: Counter) -> None:
    """A batch's items are parsed one by one, and its digest must not be what breaks."""
    deep = b"[" * 900 + b"]" * 900
    headers = counter.headers | {"Content-Type": "application/json", "Idempotency-Key": "a deep secret"}
    answer = counter.client.post("/api/v1/receptions/batch", content=deep, headers=headers)
    assert answer.status_code in {200, 400}
