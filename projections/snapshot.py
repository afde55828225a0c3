"""What PostgreSQL calls a snapshot, as a value: which transactions it shows."""

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Shows every transaction below `xmax` that is not in `hidden`; `xmin` is the first that it may not show."""

    xmax: int
    hidden: frozenset[int]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the text of a pg_snapshot, `xmin:xmax:xip,…`."""
        _, xmax, hidden = text.split(":")
        return cls(int(xmax), frozenset(int(xid) for xid in hidden.split(",") if xid))

    def __str__(self) -> str:
        return f"{self.first_hidden()}:{self.xmax}:{','.join(map(str, sorted(self.hidden)))}"

    def shows(self, xid: int) -> bool:
        """Tell whether the transaction is in it."""
        return xid < self.xmax and xid not in self.hidden

    def first_hidden(self, besides: AbstractSet[int] = frozenset()) -> int:
        """Give the lowest transaction that it doesn't show, those `besides` left out."""
        return min(self.hidden - besides, default=self.xmax)

    def advanced(self, current: "Snapshot", end: int | None, unfinished: AbstractSet[int] = frozenset()) -> "Snapshot":
        """Give the checkpoint's next snapshot, after all that `current` shows was read up to transaction `end`.

        With `end` None everything was read. Otherwise the transactions from `end` on stay hidden unless they were
        shown before, so that the checkpoint never says more than is true and never takes back what it said. What was
        read and is `unfinished` stays hidden as well.
        """
        if end is None:
            return Snapshot(current.xmax, current.hidden | unfinished)
        xmax = max(end, self.xmax)
        unread = {xid for xid in self.hidden if xid >= end}
        return Snapshot(xmax, frozenset(unread | {xid for xid in current.hidden if xid < xmax} | unfinished))
