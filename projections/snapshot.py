"""What PostgreSQL calls a snapshot, as a value: which transactions it shows."""

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
        return f"{min(self.hidden, default=self.xmax)}:{self.xmax}:{','.join(map(str, sorted(self.hidden)))}"

    def shows(self, xid: int) -> bool:
        """Tell whether the transaction is in it."""
        return xid < self.xmax and xid not in self.hidden

    def advanced(self, current: "Snapshot", end: int | None) -> "Snapshot":
        """Give the checkpoint's next snapshot, after all that `current` shows was read up to transaction `end`.

        With `end` None everything was read. Otherwise the transactions from `end` on stay hidden unless they were
        shown before, so that the checkpoint never says more than is true and never takes back what it said.
        """
        if end is None:
            return current
        xmax = max(end, self.xmax)
        unread = {xid for xid in self.hidden if xid >= end}
        return Snapshot(xmax, frozenset(unread | {xid for xid in current.hidden if xid < xmax}))
