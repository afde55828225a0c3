"""A slow client holds nothing for long, and a large one doesn't fill the memory."""

import asyncio
import contextlib
import json
import logging
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from types import ModuleType

import pytest
from fastapi import FastAPI, Response
from fastapi.responses import StreamingResponse
from prometheus_client import REGISTRY
from pydantic import BaseModel
from starlette.types import Scope

from infra import routing, serving
from infra.auth import PUBLIC, allow
from infra.headers import Head
from infra.http import Whole, create_app
from infra.routing import router
from tests.service import serving as serve
from tests.support import wait_until

PATIENCE = 20.0
"""Seconds after which a connection counts as held for ever."""

A_MOMENT = 1.0
"""Seconds; even on a busy machine enough for all that comes before the wait."""

routes = router("test")


class Words(BaseModel):
    """Whatever."""

    text: str


@routes.post("/words")
@allow(PUBLIC)
async def take(words: Words) -> dict[str, int]:
    """Count them."""
    return {"length": len(words.text)}


@routes.get("/never")
@allow(PUBLIC)
async def never() -> None:
    """Take for ever."""
    await asyncio.Event().wait()


given_up = threading.Event()


@routes.get("/much")
@allow(PUBLIC)
async def much() -> Response:
    """More than any socket's buffers take."""

    async def parts() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"x" * 65536
                await asyncio.sleep(0)
        finally:
            given_up.set()

    return StreamingResponse(parts())


def hurried(module: ModuleType, limit: str) -> pytest.MarkDecorator:
    """Let the test's server wait for no more than a moment where the test makes it wait, and nowhere else."""
    return pytest.mark.parametrize("address", [(module, limit)], indirect=True, ids=[limit])


@pytest.fixture
def address(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, int]]:
    if hasattr(request, "param"):
        module, limit = request.param
        monkeypatch.setattr(module, limit, A_MOMENT)

    @contextlib.asynccontextmanager
    async def nothing(_: FastAPI) -> AsyncIterator[None]:
        yield

    with serve(create_app("Test", "", [routes], nothing)) as url:
        host, port = url.removeprefix("http://").split(":")
        yield host, int(port)


@pytest.fixture
def client(address: tuple[str, int]) -> Iterator[socket.socket]:
    with socket.create_connection(address, timeout=PATIENCE) as client:
        yield client


def rest(client: socket.socket) -> bytes:
    """Read to the end; a server that never ends it is a timeout."""
    return b"".join(iter(lambda: client.recv(65536), b""))


def drip(client: socket.socket) -> None:
    """Send a byte at a time, for as long as there is patience."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        client.sendall(b" ")
        time.sleep(0.05)


@hurried(serving, "HEADERS_WITHIN")
@pytest.mark.parametrize("said", [b"", b"GET /health/live HT", b"GET /health/live HTTP/1.1\r\nHost: here\r\n"])
def test_headers_that_do_not_come_are_not_waited_for(client: socket.socket, said: bytes) -> None:
    """A connection on which nothing, or half a request, is said is closed."""
    client.sendall(said)
    assert rest(client) == b""


@hurried(serving, "HEADERS_WITHIN")
def test_a_second_request_has_its_own_deadline(client: socket.socket) -> None:
    """One that was answered may take its time before the next, but not within it."""
    client.sendall(b"GET /health/live HTTP/1.1\r\nHost: here\r\n\r\n")
    assert client.recv(65536).startswith(b"HTTP/1.1 200")
    client.sendall(b"GET /health/li")
    assert rest(client) == b""


def test_headers_have_a_size(client: socket.socket) -> None:
    """What goes on for ever is refused before its end."""
    client.sendall(b"GET /health/live HTTP/1.1\r\n")
    with contextlib.suppress(ConnectionError):
        for _ in range(serving.MOST_HEADER_BYTES // 1000 + 2):
            client.sendall(b"X-More: " + b"x" * 990 + b"\r\n")
    with contextlib.suppress(ConnectionResetError):
        assert b"400" in rest(client)


@hurried(routing, "BODY_WITHIN")
def test_a_body_that_does_not_come_is_not_waited_for(client: socket.socket) -> None:
    """408, and the connection ends."""
    head = b"POST /api/v1/words HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n"
    client.sendall(head + b'{"text": ')
    answer = rest(client)
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"urn:paqueteria:problem:too-slow" in answer


@hurried(serving, "REST_WITHIN")
@pytest.mark.parametrize("path", [b"GET /health/live", b"POST /nowhere"], ids=["answered", "refused"])
def test_a_body_that_nobody_reads_is_not_waited_for(client: socket.socket, path: bytes) -> None:
    """Whoever has their answer, and goes on sending a byte at a time, is held to the same end as all others."""
    client.sendall(path + b" HTTP/1.1\r\nHost: here\r\nContent-Length: 1000000\r\n\r\n")
    assert client.recv(65536).startswith(b"HTTP/1.1")
    with pytest.raises(ConnectionError):
        drip(client)


@hurried(serving, "READ_WITHIN")
def test_who_says_something_still_has_to_read(client: socket.socket) -> None:
    """What comes in is no sign that what goes out is taken."""
    client.sendall(b"GET /api/v1/much HTTP/1.1\r\nHost: here\r\nContent-Length: 1000000\r\n\r\n")
    assert client.recv(1000).startswith(b"HTTP/1.1 200")
    given_up.clear()
    deadline = time.monotonic() + PATIENCE
    while not given_up.is_set() and time.monotonic() < deadline:
        with contextlib.suppress(ConnectionError):
            client.sendall(b" ")
        time.sleep(0.05)
    assert given_up.is_set()


@pytest.mark.parametrize("rest_of_it", [b"Content-Length: 100", b"Transfer-Encoding: chunked"], ids=["less", "chunks"])
def test_who_hangs_up_within_a_body_is_no_failure_of_ours(
    client: socket.socket, caplog: pytest.LogCaptureFixture, rest_of_it: bytes
) -> None:
    """It counts as 400: anybody could fire the alert on failures otherwise, and fill the log with exceptions."""
    counted = {"method": "POST", "route": "/api/v1/words", "status": "400"}

    def refusals() -> float:
        return REGISTRY.get_sample_value("paqueteria_http_request_duration_seconds_count", counted) or 0

    before = refusals()
    head = b"POST /api/v1/words HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\n"
    client.sendall(head + rest_of_it + b"\r\n\r\nno chunk, and no hundred bytes\r\n")
    client.shutdown(socket.SHUT_WR)
    rest(client)
    wait_until(lambda: refusals() > before)
    assert refusals() == before + 1
    assert "unhandled_exception" not in caplog.text


@hurried(routing, "ANSWERED_WITHIN")
def test_an_answer_is_not_worked_on_for_ever(client: socket.socket) -> None:
    """503 with Retry-After."""
    client.sendall(b"GET /api/v1/never HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")
    answer = rest(client)
    assert answer.startswith(b"HTTP/1.1 503")
    assert b"retry-after" in answer.lower()


@hurried(serving, "READ_WITHIN")
def test_a_reader_who_does_not_read_is_let_go(client: socket.socket) -> None:
    """An answer that nobody takes is made no further."""
    client.sendall(b"GET /api/v1/much HTTP/1.1\r\nHost: here\r\n\r\n")
    assert client.recv(1000).startswith(b"HTTP/1.1 200")
    assert given_up.wait(PATIENCE)


def test_head_is_answered_as_get_is_without_the_body(client: socket.socket) -> None:
    """The same status and headers, refusals too; what a reader would follow for ever is ended, and the next comes."""
    given_up.clear()
    asked = (b"HEAD /api/v1/much", b"HEAD /nothing", b"HEAD /api/v1/words", b"HEAD /health/live", b"GET /health/live")
    same = b" HTTP/1.1\r\nHost: here\r\nX-Request-Id: the-same\r\n"
    client.sendall((same + b"\r\n").join(asked) + same + b"Connection: close\r\n\r\n")
    *heads, body = rest(client).split(b"\r\n\r\n")
    statuses = [head.split(b" ")[1] for head in heads]
    assert (statuses, body) == ([b"200", b"404", b"405", b"200", b"200"], b'{"status":"live"}')
    without, having = ({line for line in head.split(b"\r\n") if b"date: " not in line} for head in heads[-2:])
    assert having - without == {b"connection: close"}
    assert b"content-length: 17" in without
    assert given_up.wait(PATIENCE)


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (b"GET /nothing HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n", b"404"),
        (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", b"400"),
        (b"POST /api/v1/words HTTP/1.1\r\nHost: here\r\nContent-Length: -1\r\n\r\n", b"400"),
    ],
    ids=["refused", "no HTTP", "no length"],
)
def test_every_answer_has_the_security_headers(client: socket.socket, said: bytes, status: bytes) -> None:
    """A refusal too, and one of what can't be read as a request: each is a problem document."""
    client.sendall(said)
    answer = rest(client).lower()
    assert answer.startswith(b"http/1.1 " + status)
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["status"] == int(status)
    for header in (
        b"content-type: application/problem+json",
        b"x-content-type-options: nosniff",
        b"x-frame-options: deny",
        b"content-security-policy: default-src",
    ):
        assert header in answer


def test_nobody_is_served_by_web_sockets(client: socket.socket, caplog: pytest.LogCaptureFixture) -> None:
    """What asks for one is answered as any request is, and no address with its query stands in the log."""
    with caplog.at_level(logging.INFO):
        client.sendall(
            b"GET /health/live?phone=3001234567 HTTP/1.1\r\nHost: here\r\nConnection: Upgrade, close\r\n"
            b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        assert rest(client).startswith(b"HTTP/1.1 422")
    assert "3001234567" not in caplog.text


@pytest.fixture
def asked() -> list[str]:
    """What the front was asked for."""
    return []


@pytest.fixture
def fronted(asked: list[str]) -> Iterator[socket.socket]:
    """A connection to an application whose front knows /known, and fails for /broken."""

    def front(scope: Scope) -> Whole | None:
        asked.append(scope["path"])
        if scope["path"] == "/broken":
            raise RuntimeError
        if scope["path"] != "/known":
            return None
        body = b"<" + scope["query_string"] + b">"
        head = Head([(b"content-length", b"%d" % len(body)), (b"x-known", b"yes")])
        return Whole(200, head, body, b"its-own-id")

    @contextlib.asynccontextmanager
    async def known(app: FastAPI) -> AsyncIterator[None]:
        app.state.front = front
        yield

    with serve(create_app("Test", "", [routes], known)) as url:
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=PATIENCE) as client:
            yield client


def answers(client: socket.socket, number: int) -> list[tuple[list[bytes], bytes]]:
    """Read so many answers of a known length: their lines, but for the date, and their bodies."""
    found = []
    with client.makefile("rb") as stream:
        for _ in range(number):
            lines = list(iter(lambda: stream.readline().rstrip(), b""))
            length = next(int(line.split(b" ")[1]) for line in lines if line.lower().startswith(b"content-length"))
            found.append(([line for line in lines if not line.startswith(b"date: ")], stream.read(length)))
    return found


def test_what_the_front_knows_is_answered_as_the_application_would(fronted: socket.socket, asked: list[str]) -> None:
    """The same lines and bytes; HTTP/1.0, and whoever ends the connection, are left to the application."""
    fronted.sendall(b"GET /known?1 HTTP/1.1\r\nHost: here\r\n\r\n")
    at_once = answers(fronted, 1)
    fronted.sendall(b"GET /known?1 HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")
    by_task = answers(fronted, 1)
    assert at_once == [
        ([b"HTTP/1.1 200 OK", b"content-length: 3", b"x-known: yes", b"x-request-id: its-own-id"], b"<1>")
    ]
    assert [([line for line in lines if line != b"connection: close"], body) for lines, body in by_task] == at_once
    assert asked == ["/known", "/known"]


def test_answers_keep_the_order_of_their_questions(fronted: socket.socket, asked: list[str]) -> None:
    """Many at once, of which some are known and some are for the application; a body is nobody's next question."""
    known = b"GET /known?%d HTTP/1.1\r\nHost: here\r\nContent-Length: 4\r\n\r\nGET "
    other = b"GET /health/live HTTP/1.1\r\nHost: here\r\n\r\n"
    fronted.sendall(b"".join(known % number + other for number in range(200)))
    bodies = [body for _, body in answers(fronted, 400)]
    assert bodies[::2] == [b"<%d>" % number for number in range(200)]
    assert set(bodies[1::2]) == {b'{"status":"live"}'}
    assert asked == ["/known", "/health/live"] * 200  # of nothing twice


def test_a_front_that_fails_is_a_failure_that_is_told(fronted: socket.socket, caplog: pytest.LogCaptureFixture) -> None:
    """The connection goes on, where the failure itself is answered for."""
    fronted.sendall(b"GET /broken HTTP/1.1\r\nHost: here\r\n\r\n")
    [(lines, _)] = answers(fronted, 1)
    assert lines[0] == b"HTTP/1.1 500 Internal Server Error"
    assert "RuntimeError" in caplog.text
