"""Connections to PostgreSQL: by pool for requests, one by one for what must never wait for a request."""

import contextlib
import os
import select
import socket
import weakref

from psycopg import AsyncConnection, OperationalError
from psycopg.conninfo import make_conninfo
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool

from infra.settings import Settings

Connection = AsyncConnection[TupleRow]
Pool = AsyncConnectionPool[Connection]

KEEPALIVE: dict[str, int] = {
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
"""Seconds (and milliseconds): a peer that vanished without a word is noticed within 15 s."""

# An idle open transaction holds back what the projector must read again, so ours can't stay open.
SESSION_OPTIONS = (
    "-c statement_timeout=30s -c lock_timeout=5s -c idle_in_transaction_session_timeout=10s -c timezone=UTC -c jit=off"
)


PLANNED_ONCE = f"{SESSION_OPTIONS} -c plan_cache_mode=force_generic_plan"
"""For commands, which find what they need by keys: left to itself the server plans most statements each time."""


async def refuse_broken(conn: Connection) -> None:
    """Close an idle connection on which something has come (the server's farewell, or its end); OperationalError.

    A look at the socket finds what asking the server would, without the way there and back for each request.
    """
    line = select.poll()
    line.register(conn.fileno(), select.POLLIN)
    if line.poll(0):
        await conn.close()
        raise OperationalError("the server has hung up")


def make_pool(dsn: str, settings: Settings, name: str, options: str = SESSION_OPTIONS) -> Pool:
    """Make a pool, not yet open; its connections commit each statement unless a transaction is begun."""
    return AsyncConnectionPool(
        dsn,
        connection_class=AsyncConnection[TupleRow],
        min_size=settings.pool_min,
        max_size=settings.pool_max,
        timeout=settings.pool_timeout,
        max_lifetime=1800,
        kwargs={
            "autocommit": True,
            "connect_timeout": 5,
            "application_name": f"paqueteria {name}",
            "options": options,
            **KEEPALIVE,
        },
        check=refuse_broken,
        name=name,
        open=False,
    )


_single: weakref.WeakSet[Connection] = weakref.WeakSet()


async def connect(dsn: str, name: str) -> Connection:
    """Open one connection outside every pool, for listening, leading and long work."""
    conninfo = make_conninfo(
        dsn, connect_timeout=5, application_name=f"paqueteria {name}", options="-c timezone=UTC -c jit=off", **KEEPALIVE
    )
    conn = await AsyncConnection.connect(conninfo, autocommit=True)
    _single.add(conn)
    return conn


def cut_off() -> None:
    """Shut the lines of all that `connect` has opened: whoever waits for an answer that never comes is told at once."""
    for conn in list(_single):
        if not conn.closed:
            with socket.socket(fileno=os.dup(conn.fileno())) as line, contextlib.suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)
