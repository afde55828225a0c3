"""A projector that kills or stops itself at a named point: `python -m tests.chaos.doomed "after reading" 3 KILL`.

The product has no hooks for this. Each point is a function of its own, wrapped here by its name.
"""

import os
import signal
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import manage
from db import page_cache
from projections import projector

Work = Callable[..., Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Point:
    """Before or after which function, and which of its passes count: those that had something to do."""

    owner: Any
    name: str
    is_after: bool = True
    counts: Callable[[Any], bool] = bool


POINTS = {
    "after reading": Point(projector, "read_changes", counts=lambda read: bool(read[0])),
    "after the upsert": Point(projector, "_derive"),
    "before the commit": Point(projector, "_project", counts=lambda batch: batch.is_new),
    "after the commit": Point(projector, "project_batch", counts=lambda batch: batch.is_new),
    "before the cache bump": Point(page_cache.EpochKeeper, "announce", is_after=False),
    "after the cache bump": Point(page_cache.EpochKeeper, "announce", counts=lambda _: True),
}


def doom(point: Point, passes: int, fate: signal.Signals) -> None:
    """Make the function end this process, or freeze it, in its nth pass."""
    original: Work = getattr(point.owner, point.name)
    left = passes

    async def doomed(*arguments: object, **options: object) -> object:
        nonlocal left
        result = await original(*arguments, **options) if point.is_after else None
        left -= left > 0 and (not point.is_after or point.counts(result))
        if left == 0:
            left = -1
            os.kill(os.getpid(), fate)
        return result if point.is_after else await original(*arguments, **options)

    setattr(point.owner, point.name, doomed)


if __name__ == "__main__":
    doom(POINTS[sys.argv[1]], int(sys.argv[2]), signal.Signals[f"SIG{sys.argv[3]}"])
    sys.argv = ["manage.py", "project"]
    manage.main()
