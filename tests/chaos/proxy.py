"""A TCP port before a server that can fall silent, no byte passes, no end passes, all stays open, or become slow."""

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from psycopg.conninfo import conninfo_to_dict, make_conninfo

Target = Path | tuple[str, int]
"""Where the server listens: a Unix socket, or a host and a port."""

RESET = struct.pack("ii", 1, 0)
"""Closed by a reset at once, as a firewall would that has forgotten the connection."""


class Proxy:
    """Forwards every connection, until it is told not to."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._speaking = threading.Event()
        self._speaking.set()
        self._silenced: list[threading.Event] = []
        self._delay = 0.0
        self._listener = self._listen(0)
        self.port: int = self._listener.getsockname()[1]
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._start(self._accept, self._listener)

    @classmethod
    @contextlib.contextmanager
    def before(cls, dsn: str) -> Iterator[tuple["Proxy", str]]:
        """Stand before a PostgreSQL server; with it goes the address of the same database by way of it."""
        given = conninfo_to_dict(dsn)
        host, port = str(given["host"]), int(given.get("port") or 5432)
        target = Path(host) / f".s.PGSQL.{port}" if host.startswith("/") else (host, port)
        with cls(target).open() as proxy:
            yield proxy, make_conninfo(dsn, host="127.0.0.1", port=proxy.port)

    @contextlib.contextmanager
    def open(self) -> Iterator["Proxy"]:
        """Serve while the block lasts."""
        try:
            yield self
        finally:
            self.refuse()
            for thread in self._threads:
                thread.join()

    def hush(self) -> None:
        """Fall silent: connections are still taken, and nothing passes."""
        self._speaking.clear()
        self._silenced.append(self._speaking)

    def slow_down(self, seconds: float) -> None:
        """Hold up whatever passes from now on, either way."""
        self._delay = seconds

    def serve_others(self) -> None:
        """Forward what is connected from now on, and leave what was connected before in its silence for good."""
        self._speaking = threading.Event()
        self._speaking.set()

    def speak(self) -> None:
        """Forward again, what was held up first."""
        for speaking in (*self._silenced, self._speaking):
            speaking.set()

    def refuse(self) -> None:
        """Reset all connections, and take no other."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        self._sockets.clear()
        self.speak()

    def accept_again(self) -> None:
        """Take connections on the same port as before."""
        self._listener = self._listen(self.port)
        self._start(self._accept, self._listener)

    @staticmethod
    def _listen(port: int) -> socket.socket:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen()
        return listener

    def _start(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                self._sockets.append(client)
                server = self._connected()
                self._sockets.append(server)
                self._start(self._forward, client, server, self._speaking)
                self._start(self._forward, server, client, self._speaking)

    def _connected(self) -> socket.socket:
        if isinstance(self._target, tuple):
            return socket.create_connection(self._target)
        server = socket.socket(socket.AF_UNIX)
        server.connect(str(self._target))
        return server

    def _forward(self, source: socket.socket, sink: socket.socket, speaking: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                time.sleep(self._delay)
                speaking.wait()
                sink.sendall(data)
            speaking.wait()
            sink.shutdown(socket.SHUT_WR)
