"""A shop's day in small: clerks who write at a steady rate, and readers who look at the same rate all the time."""

import asyncio
import contextlib
import itertools
import secrets
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from bench.http import Answer, Client
from commands.add_staff import add_staff_account
from commands.seed_sample import phone
from db.pools import connect
from infra.auth import Role, Session, encode_session
from infra.clock import system_clock
from infra.settings import Settings
from infra.tasks import running

CLERKS = 8

KNOWN_PHONES = 5000
"""Parcels are for customers of the sample, seldom for the same two at a time."""

Request = tuple[str, str, object]
"""Method, path and body."""


@dataclass(slots=True)
class Sent:
    """When each request was sent (seconds, of the monotonic clock), how long it took (ms), and what went wrong."""

    at: list[float] = field(default_factory=list)
    took: list[float] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def between(self, start: float, end: float) -> list[float]:
        """Give the times of what was sent in a span."""
        return [took for at, took in zip(self.at, self.took, strict=True) if start <= at < end]


class Pace:
    """Turns at a steady rate, whoever takes them: a slow answer doesn't make the rest any fewer."""

    def __init__(self, rate: float, count: int | None = None) -> None:
        self._interval = 1 / rate
        self._turns: Iterator[int] = itertools.count() if count is None else iter(range(count))
        self._start = time.monotonic()

    async def turn(self) -> bool:
        """Wait for the next turn; False when there is none."""
        number = next(self._turns, None)
        if number is None:
            return False
        await asyncio.sleep(max(0, self._start + number * self._interval - time.monotonic()))
        return True


async def sign_in(settings: Settings) -> str:
    """Make a member of staff, and give the token of their session."""
    async with await connect(settings.postgres_dsn, "bench") as conn, conn.transaction():
        name = f"bench-{secrets.token_hex(4)}"
        staff_id = await add_staff_account(conn, name, "Medición", Role.ADMIN, secrets.token_urlsafe(12))
    return encode_session(Session(staff_id, 1), settings.signing_key(), system_clock())


def parcel_life(guide_number: str, phone_number: str) -> Generator[Request, Any, None]:
    """Make the four commands of a parcel's life, each out of the answers before."""
    who = {"customer_name": "María Peña", "customer_phone": phone_number}
    announced = yield "POST", "/packages", who | {"guide_number": guide_number, "data_consent": True}
    path = f"/packages/{announced['package_id']}"
    kind = {"package_type": "NORMAL", "condition": "GOOD"}
    received = yield "POST", "/receptions", kind | {"guide_number": guide_number}
    yield "PATCH", path, {"observations": "Con cuidado"}
    yield "POST", f"{path}/delivery", {"payment_method": "CASH", "amount": received["due"]}


async def write(settings: Settings, token: str, rate: float, seconds: float | None, sent: Sent | None = None) -> Sent:
    """Have clerks send so many commands a second through the write API, for so long or until cancelled."""
    sent = Sent() if sent is None else sent
    pace = Pace(rate, None if seconds is None else round(rate * seconds))

    async def work() -> None:
        async with Client(settings, token) as client:
            while await _live_a_life(client, pace, sent):
                pass

    async with asyncio.TaskGroup() as clerks:
        for _ in range(CLERKS):
            clerks.create_task(work())
    return sent


async def _live_a_life(client: Client, pace: Pace, sent: Sent) -> bool:
    life = parcel_life(f"BENCH-{secrets.token_hex(8).upper()}", phone(secrets.randbelow(KNOWN_PHONES)))
    request = next(life)
    while await pace.turn():
        answer = await _send(client, request, sent)
        if not answer.is_good:
            return True
        try:
            request = life.send(answer.json())
        except StopIteration:
            return True
    return False


async def _send(client: Client, request: Request, sent: Sent, headers: Mapping[str, str] | None = None) -> Answer:
    started = time.monotonic()
    answer = await client.request(*request, headers=headers)
    sent.at.append(started)
    sent.took.append((time.monotonic() - started) * 1000)
    if not answer.is_good:
        sent.faults.append(f"{request[0]} {request[1]}: {answer.status} {answer.body.decode()[:200]}")
    return answer


async def read(
    settings: Settings,
    token: str,
    rate: float,
    path: Callable[[], str],
    check: Callable[[str, Answer], str | None],
    headers: Mapping[str, str] | None = None,
) -> AsyncIterator[Sent]:
    """Have readers look at pages until closed; `check` names what is wrong with a good answer."""
    sent, pace = Sent(), Pace(rate)

    async def work() -> None:
        async with Client(settings, token) as client:
            while await pace.turn():
                address = path()
                answer = await _send(client, ("GET", address, None), sent, headers)
                fault = check(address, answer) if answer.is_good else None
                if fault is not None:
                    sent.faults.append(fault)

    async with running(*(work() for _ in range(CLERKS))):
        yield sent


reading = contextlib.asynccontextmanager(read)
