"""A slow client holds nothing for long, and a large one doesn't fill the memory."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator, Iterator

import pytest
from fastapi import FastAPI, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from infra import routing, serving
from infra.auth import PUBLIC, allow
from infra.http import create_app
from infra.routing import router
from tests.service import serving as serve

PATIENCE = 20.0
"""Seconds after which a connection counts as held for ever."""

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


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, int]]:
    monkeypatch.setattr(serving, "HEADERS_WITHIN", 0.3)
    monkeypatch.setattr(serving, "READ_WITHIN", 0.3)
    monkeypatch.setattr(routing, "BODY_WITHIN", 0.3)
    monkeypatch.setattr(routing, "ANSWERED_WITHIN", 0.3)

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


@pytest.mark.parametrize("said", [b"", b"GET /health/live HT", b"GET /health/live HTTP/1.1\r\nHost: here\r\n"])
def test_headers_that_do_not_come_are_not_waited_for(client: socket.socket, said: bytes) -> None:
    """A connection on which nothing, or half a request, is said is closed."""
    client.sendall(said)
    assert rest(client) == b""


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


def test_a_body_that_does_not_come_is_not_waited_for(client: socket.socket) -> None:
    """408, and the connection ends."""
    head = b"POST /api/v1/words HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n"
    client.sendall(head + b'{"text": ')
    answer = rest(client)
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"urn:paqueteria:problem:too-slow" in answer


def test_an_answer_is_not_worked_on_for_ever(client: socket.socket) -> None:
    """503 with Retry-After."""
    client.sendall(b"GET /api/v1/never HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")
    answer = rest(client)
    assert answer.startswith(b"HTTP/1.1 503")
    assert b"retry-after" in answer.lower()


def test_a_reader_who_does_not_read_is_let_go(client: socket.socket) -> None:
    """An answer that nobody takes is made no further."""
    client.sendall(b"GET /api/v1/much HTTP/1.1\r\nHost: here\r\n\r\n")
    assert client.recv(1000).startswith(b"HTTP/1.1 200")
    assert given_up.wait(PATIENCE)


def test_every_answer_has_the_security_headers(client: socket.socket) -> None:
    """A refusal too."""
    client.sendall(b"GET /nothing HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")
    answer = rest(client).lower()
    for header in (
        b"x-content-type-options: nosniff",
        b"x-frame-options: deny",
        b"content-security-policy: default-src",
    ):
        assert header in answer
