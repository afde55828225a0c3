"""How HTTP is served: by uvicorn, with an end to what a slow client can hold on to, and at once where that can be.

uvicorn waits for ever for headers that don't come and for a reader who doesn't read, and takes headers of any size. A
proxy in front of it does no such thing, but a process must not need one to stay up.

It begins a task for every request, which costs more than to answer what is in memory: what an application's front knows
is written as soon as the request's headers are in.
"""

import asyncio
import contextlib
import json
import sys
from collections.abc import Callable
from typing import Any, cast

import uvicorn
from starlette.types import Scope
from uvicorn._types import ASGI3Application
from uvicorn.config import STARTUP_FAILURE
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.supervisors import Multiprocess

from infra.corking import CorkedTransport
from infra.errors import PROBLEM_TYPE, Malformed
from infra.headers import Headers, secured, written
from infra.http import ASKED_FRONT, front_of
from infra.memory import settle

HEADERS_WITHIN = 10.0
"""Seconds from a connection, or a request's first byte, to the end of its headers."""

MOST_HEADER_BYTES = 64 * 1024

REST_WITHIN = 40.0
"""Seconds from then to the end of the body, whether or not anybody reads it; who does is told so before, by 408."""

READ_WITHIN = 60.0
"""Seconds in which a reader must take in something of an answer that is ready."""

IDLE_FOR = 15
"""Seconds that a connection is kept for its next request; longer than a proxy in front keeps it (see nginx.conf)."""

DRAINED_WITHIN = 5
"""Seconds from SIGTERM in which what has been asked is answered."""

STARTED_WITHIN = 30
"""Seconds that a worker may take to begin, where processors are short."""


def _nothing() -> None:
    """Do nothing: what a cycle calls that has been answered."""


class PatientProtocol(HttpToolsProtocol):
    """uvicorn's own, which ends a connection whose client keeps it waiting, and answers at once what it can."""

    _is_in_headers = False
    _is_in_body = False
    _is_new = False
    _header_bytes = 0
    _said: Headers | None = None
    _said_lines = b""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        """Expect a request, and send each answer in one go."""
        self._corked = CorkedTransport(transport, self.loop)
        super().connection_made(self._corked)
        self._deadlines: dict[str, asyncio.TimerHandle] = {}
        self._expect("headers", HEADERS_WITHIN, self.transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        """Expect nothing any more."""
        for what in list(self._deadlines):
            self._is_met(what)
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """Expect the headers' end."""
        self._is_in_headers, self._header_bytes = True, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Have them, and expect the body's end."""
        self._is_in_headers, self._is_in_body = False, True
        self._is_new = True
        super().on_headers_complete()
        self._is_new = False

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        """Answer from the front at once, one request in each turn of the loop; else let the application do it."""
        if not (self._is_new and self._can_be_answered_at_once(cycle) and self._answer_at_once(cycle, app)):
            super()._start_asgi_task(cycle, app)

    def _can_be_answered_at_once(self, cycle: RequestResponseCycle) -> bool:
        is_plain = cycle.keep_alive and not cycle.waiting_for_100_continue
        return is_plain and not (self._corked.is_holding or self.flow.write_paused)

    def _answer_at_once(self, cycle: RequestResponseCycle, app: ASGI3Application) -> bool:
        front = front_of(app)
        if front is None:
            return False
        scope = cast("Scope", cycle.scope)
        try:
            answer = front(scope)
        except Exception:  # noqa: BLE001 (it is asked again where what goes wrong is told and answered for)
            return False
        if answer is None:
            scope[ASKED_FRONT] = True
            return False
        said = self.server_state.default_headers
        if said is not self._said:  # once in a second, as the date is another
            self._said, self._said_lines = said, written(said)
        head = answer.head.lines, b"x-request-id: ", answer.request_id, b"\r\n\r\n"
        self._corked.write(b"".join((STATUS_LINE[answer.status], self._said_lines, *head)))
        if answer.body:
            self._corked.write(answer.body)
        cycle.response_started = cycle.response_complete = True
        cycle.on_response = _nothing
        self.on_response_complete()
        return True

    def on_message_complete(self) -> None:
        """Have all of it."""
        self._is_in_body = False
        self._is_met("body")
        super().on_message_complete()

    def data_received(self, data: bytes) -> None:
        """Take in a part; a client has one deadline for all its headers and one for its body, not one for each byte."""
        super().data_received(data)
        if self._is_in_headers:
            self._header_bytes += len(data)
            if self._header_bytes > MOST_HEADER_BYTES:
                self.send_400_response("The headers are too large.")
            else:
                self._expect("headers", HEADERS_WITHIN, self.transport.close)
        else:
            self._is_met("headers")
        if self._is_in_body:
            self._expect("body", REST_WITHIN, self.transport.close)

    def send_400_response(self, msg: str) -> None:
        """Refuse what can't be read, and end the connection: the application never hears of it."""
        problem = Malformed(msg)
        body = json.dumps(problem.body("")).encode()
        headers = [
            (b"content-type", PROBLEM_TYPE.encode()),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        head = written(secured(headers))
        self.transport.write(b"HTTP/1.1 400 Bad Request\r\n%b\r\n%b" % (head, body))
        self.transport.close()

    def pause_writing(self) -> None:
        """Expect a reader who has fallen behind to go on."""
        super().pause_writing()
        self._expect("reader", READ_WITHIN, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on."""
        super().resume_writing()
        self._is_met("reader")

    def _expect(self, what: str, seconds: float, end: Callable[[], object]) -> None:
        """Set a deadline, where there is none of its kind yet."""
        if what not in self._deadlines:
            self._deadlines[what] = self.loop.call_later(seconds, end)

    def _is_met(self, what: str) -> None:
        deadline = self._deadlines.pop(what, None)
        if deadline is not None:
            deadline.cancel()


MANNERS: dict[str, Any] = {
    "http": PatientProtocol,
    "ws": "none",  # nothing of ours speaks by them, and uvicorn would log whole addresses, queries too, of who asks
    "log_config": None,
    "access_log": False,
    "server_header": False,
    "proxy_headers": False,  # who asks is decided by infra.addresses, from TRUSTED_PROXIES alone
}
"""How uvicorn serves whatever application it is."""


class Config(uvicorn.Config):
    """uvicorn's own; once the application is made, the process that serves it settles."""

    def load(self) -> None:
        """Make the application."""
        super().load()
        settle()


class Workers(Multiprocess):
    """uvicorn's own, but a worker is begun anew once it has ended, and not because it was silent for a while.

    Where processors are short uvicorn's five seconds are over before a worker has begun: it is killed and begun again,
    which takes time from all others, for ever. Meanwhile nobody would hear a SIGTERM.
    """

    def keep_subprocess_alive(self) -> None:
        """Replace those that have ended."""
        if not all(worker.process.is_alive() for worker in self.processes):
            super().keep_subprocess_alive()


def serve(application: str, folder: str, host: str, port: int, workers: int) -> None:
    """Serve an application, given as `module:factory` in the folder, until SIGTERM; then drain and end."""
    sys.path.insert(0, folder)
    config = Config(
        application,
        factory=True,
        host=host,
        port=port,
        workers=workers,
        **MANNERS,
        timeout_keep_alive=IDLE_FOR,
        timeout_graceful_shutdown=DRAINED_WITHIN,
        timeout_worker_healthcheck=STARTED_WITHIN,
    )
    if config.workers > 1:
        Workers(config, sockets=[config.bind_socket()]).run()
        return
    server = uvicorn.Server(config)
    with contextlib.suppress(KeyboardInterrupt):
        server.run()
    if not server.started:
        sys.exit(STARTUP_FAILURE)
