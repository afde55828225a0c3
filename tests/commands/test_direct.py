"""What goes past FastAPI's routing is answered as by the long way, or isn't let past."""

import contextlib
import itertools
import json
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from starlette.types import Scope

from commands import sign_in
from commands.direct import direct
from infra.errors import ConfigurationError
from tests.commands.conftest import Counter, Headers

Way = Callable[[], contextlib.AbstractContextManager[None]]

OWN = {"package_id", "tracking_code", "guide_number", "customer", "position"}
"""What differs from one parcel to the next."""


@pytest.fixture
def ways(app: FastAPI) -> list[Way]:
    """The short way, and then the long one."""

    @contextlib.contextmanager
    def the_long_way() -> Iterator[None]:
        bypass, app.state.bypass = app.state.bypass, None
        yield
        app.state.bypass = bypass

    return [contextlib.nullcontext, the_long_way]


@pytest.fixture
def let_past(app: FastAPI, counter: Counter) -> list[str]:
    """Notes which requests were let past the routing."""
    assert counter.client is not None  # the application has started
    bypass, noted = app.state.bypass, []

    def noting(scope: Scope) -> Any:  # noqa: ANN401
        found = bypass(scope)
        if found is not None:
            noted.append(scope["path"])
        return found

    app.state.bypass = noting
    return noted


def live_a_life(counter: Counter) -> Iterator[httpx2.Response]:
    announced = counter.post("/packages", counter.announcement(customer_phone=None), **{"X-Request-Id": "the-same"})
    yield announced
    announced = counter.client.post("/api/v1/packages", json=counter.announcement())
    path = f"/packages/{announced.json()['package_id']}"
    kind = {"package_type": "NORMAL", "condition": "GOOD"}
    yield announced
    yield counter.post(f"{path}/reception", kind | {"position": "03"}, **{"If-Match": '"1"'})
    yield counter.post(f"{path}/relocation", {"position": "05"}, **{"If-Match": '"1"'})
    yield counter.post(f"{path}/relocation", {"position": "05"}, **{"If-Match": '"2"', "Idempotency-Key": "relocate"})
    yield counter.post(f"{path}/relocation", {"position": "05"}, **{"If-Match": '"2"', "Idempotency-Key": "relocate"})
    yield counter.patch(path, {"observations": "Con cuidado"})
    yield counter.post(f"{path}/delivery", {"payment_method": "CASH", "amount": 1})
    yield counter.post(f"{path}/delivery", {"payment_method": "CASH", "amount": 1500})
    yield counter.post(f"{path}/delivery-reversal", {"reason": "Era otro"})
    yield counter.post(f"{path}/cancellation", {"reason": "OTHER"})
    yield counter.post("/receptions", counter.parcel())


def common(answer: httpx2.Response) -> tuple[int, list[str], Any]:
    """Tell what two parcels' answers have in common."""
    document = answer.json()
    for whole in (document, document.get("package", {})):
        for name in [name for name in whole if name in OWN or name.endswith("_at")]:
            whole[name] = type(whole[name]).__name__
    document.pop("instance", None)
    return answer.status_code, sorted(answer.headers), document


def test_a_direct_command_is_the_slow_command(counter: Counter, ways: list[Way], let_past: list[str]) -> None:
    """All of a parcel's life, refusals of the state, conditions and replays in it; the short way takes all of it."""
    lives = []
    for way in ways:
        with way():
            lives.append([common(answer) for answer in live_a_life(counter)])
    short, slow = lives
    assert short == slow
    assert [status for status, *_ in short] == [422, 201, 200, 412, 200, 200, 200, 409, 200, 200, 200, 201]
    assert len(let_past) == len(short)


PARCEL = {"guide_number": "ODD-1", "customer_name": "Ana", "package_type": "NORMAL", "condition": "GOOD"}
JSON = {"Content-Type": "application/json"}
BODIES = [
    b"",
    b"null",
    b"[]",
    b'"x"',
    b"{",
    b"\xff",
    b"NaN",
    b"[" * 100_000,
    b'{"guide_number": "A", "guide_number": "B"}',
    b"{}",
    json.dumps(PARCEL | {"more": 1}).encode(),
    json.dumps(PARCEL | {"guide_number": "!"}).encode(),
    json.dumps(PARCEL | {"customer_name": "\0"}).encode(),
    json.dumps(PARCEL | {"position": "Z-9"}).encode(),
    json.dumps(PARCEL | {"observations": "x" * 5_000_000}).encode(),
]
ODD: list[dict[str, str]] = [
    {"Content-Type": "text/plain"},
    {"Content-Type": "application/json; charset=latin-1"},
    {"Idempotency-Key": "short"},
    {"If-Match": "none"},
    {"Authorization": "Bearer nobody's"},
    {"Authorization": "Basic x"},
]


@pytest.mark.parametrize("role", [None, "viewer", "operator"])
def test_a_direct_refusal_is_the_slow_refusal(
    counter: Counter,
    staff: dict[str, Headers],
    nobody: str,
    role: str | None,
    ways: list[Way],
) -> None:
    """Byte by byte and header by header, in the same order: who asks, then what was sent, then what is there."""
    paths = ["/receptions", "/packages", "/packages/7/delivery", f"/packages/{nobody}/relocation"]
    paths += [f"/packages/{nobody}/delivery", f"/packages/{nobody.upper()}/delivery", "/packages/{}/delivery"]
    asked = [*itertools.product(paths, BODIES, [{}]), *itertools.product(paths, [b'{"position": "01"}', b"{}"], ODD)]
    asked += [(f"{path}?more=1", b"{}", {}) for path in paths]
    seen = set()
    for path, body, odd in asked:
        sent = {"X-Request-Id": "the-same"} | JSON | (staff[role] if role else {}) | odd
        answers = []
        for way in ways:
            with way():
                answers.append(counter.client.post(f"/api/v1{path}", content=body, headers=sent))
        short, slow = ((a.status_code, a.content, sorted(a.headers.multi_items())) for a in answers)
        assert short == slow, (path, body[:50], odd)
        seen.add(short[0])
    kinds = {400, 401, 413, 415, 422}
    assert seen >= (kinds if role is None else kinds | {403} if role == "viewer" else kinds | {404})


@pytest.mark.usefixtures("staff")
def test_a_body_of_unknown_length_goes_the_long_way(counter: Counter, let_past: list[str]) -> None:
    """So does one that isn't plain JSON by its headers; one with a charset is accepted there all the same."""
    content = json.dumps(counter.parcel()).encode()
    headers = counter.headers | JSON
    assert counter.client.post("/api/v1/receptions", content=iter([content]), headers=headers).status_code == 201
    headers |= {"Content-Type": "application/json; charset=utf-8"}
    content = json.dumps(counter.parcel()).encode()
    assert counter.client.post("/api/v1/receptions", content=content, headers=headers).status_code == 201
    assert let_past == []
    counter.receive()
    assert let_past == ["/api/v1/receptions"]


def test_another_lifespan_finds_what_was_there(app: FastAPI, counter: Counter) -> None:
    """An application that is started again has one way past its routing, not one more."""
    assert app.state.bypass is not None
    counter.client.__exit__(None, None, None)
    assert app.state.bypass is None
    counter.client.__enter__()


def test_only_plain_commands_are_passed_by() -> None:
    """An endpoint that takes more than an id, a body and its transaction is refused when the application is made."""
    with pytest.raises(ConfigurationError):
        direct(sign_in.routes)


def test_an_id_is_the_one_of_the_path(counter: Counter) -> None:
    """No other parcel is touched than the one that is named."""
    first, second = counter.receive(), counter.receive()
    counter.post(f"/packages/{second['package_id']}/cancellation", {"reason": "OTHER"})
    answer = counter.post(f"/packages/{first['package_id']}/relocation", {"position": "09"})
    assert uuid.UUID(answer.json()["package_id"]) == uuid.UUID(first["package_id"])
    assert (answer.status_code, answer.json()["position"]) == (200, "09")
