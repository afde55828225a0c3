"""What is counted of every request that an application answers itself."""

import functools
import time
from dataclasses import dataclass, field

from prometheus_client import Histogram
from starlette.types import Message, Receive, Send

from infra import metrics

METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""Whoever makes up methods of their own would make up time series."""


@dataclass(slots=True)
class Counted:
    """One request's time and bytes, counted as they go by."""

    receive: Receive
    send: Send
    started: float = field(default_factory=time.perf_counter)
    status: int = 0
    read: int = 0
    sent: int = 0

    async def receive_counted(self) -> Message:
        """Pass on a part of the request's body."""
        message = await self.receive()
        self.read += len(message.get("body", b""))
        return message

    async def send_counted(self, message: Message) -> None:
        """Pass on the answer's head, or a part of its body."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
        else:
            self.sent += len(message.get("body", b""))
        await self.send(message)

    def observe(self, method: str, route: str) -> float:
        """Add the request to the metrics, once it has been answered; gives the seconds that took."""
        took = time.perf_counter() - self.started
        seconds, read, sent = _histograms(method if method in METHODS else "other", route, self.status)
        seconds.observe(took)
        read.observe(self.read)
        sent.observe(self.sent)
        return took


@functools.cache
def _histograms(method: str, route: str, status: int) -> tuple[Histogram, ...]:
    return tuple(
        histogram.labels(method, route, status)
        for histogram in (metrics.REQUEST_SECONDS, metrics.REQUEST_BYTES, metrics.RESPONSE_BYTES)
    )
