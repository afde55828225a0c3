"""Where the processors' time goes while something is measured: what the floor of a latency is made of."""

import contextlib
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import psutil

from bench.results import Figure


@dataclass(slots=True)
class Usage:
    """The seconds that passed, and those of processor time that each party used meanwhile."""

    seconds: float = 0.0
    used: dict[str, float] = field(default_factory=dict)

    def figures(self, count: int, of: str) -> list[Figure]:
        """Give each party's milliseconds for one of `count`, and how much of all processors they used together."""
        busy = 100 * sum(self.used.values()) / (self.seconds * (psutil.cpu_count() or 1))
        return [
            Figure(name="the processors' time that they used together", value=busy, unit="%"),
            *(
                Figure(name=f"{party}'s processor time for {of}", value=1000 * used / count, unit="ms")
                for party, used in self.used.items()
            ),
        ]


@contextlib.contextmanager
def accounting(parties: Mapping[str, int]) -> Iterator[Usage]:
    """Account for processes by their numbers, with all that they have started, while the block lasts.

    This process itself is accounted for alone: the others are its children.
    """
    usage = Usage()
    before = {party: _used(number) for party, number in parties.items()}
    started = time.monotonic()
    yield usage
    usage.seconds = time.monotonic() - started
    usage.used = {party: _used(number) - before[party] for party, number in parties.items()}


def _used(number: int) -> float:
    """Give the seconds of processor time of a process and its children, those that have ended among them."""
    process = psutil.Process(number)
    if number == os.getpid():
        return process.cpu_times().user + process.cpu_times().system
    total = 0.0
    for one in (process, *process.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):  # it has ended meanwhile: its parent's times have it
            times = one.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total
