"""A TCP port before PostgreSQL's Unix socket that can fall silent: no byte passes, no end passes, all stays open."""

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from psycopg.conninfo import conninfo_to_dict

RESET = struct.pack("ii", 1, 0)
"""Closed by a reset at once, as a firewall would that has forgotten the connection."""


class Proxy:
    """Forwards every connection, until it is told not to."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self._speaking = threading.Event()
        self._speaking.set()
        self._silenced: list[threading.Event] = []
        self._listener = self._listen(0)
        self.port: int = self._listener.getsockname()[1]
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._start(self._accept, self._listener)

    @classmethod
    def before(cls, dsn: str) -> contextlib.AbstractContextManager["Proxy"]:
        """Stand before a server that listens on a Unix socket."""
        return cls(Path(str(conninfo_to_dict(dsn)["host"])) / ".s.PGSQL.5432").open()

    @contextlib.contextmanager
    def open(self) -> Iterator["Proxy"]:
        """Serve while the block lasts."""
        try:
            yield self
        finally:
            self.refuse()
            for thread in self._threads:
                thread.join()

    def dsn(self, database: str) -> str:
        """Tell the address of a database behind it."""
        return f"postgresql://paqueteria@127.0.0.1:{self.port}/{database}"

    def hush(self) -> None:
        """Fall silent: connections are still taken, and nothing passes."""
        self._speaking.clear()
        self._silenced.append(self._speaking)

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
                server = socket.socket(socket.AF_UNIX)
                self._sockets += [client, server]
                server.connect(str(self._target))
                self._start(self._forward, client, server, self._speaking)
                self._start(self._forward, server, client, self._speaking)

    @staticmethod
    def _forward(source: socket.socket, sink: socket.socket, speaking: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                speaking.wait()
                sink.sendall(data)
            speaking.wait()
            sink.shutdown(socket.SHUT_WR)
