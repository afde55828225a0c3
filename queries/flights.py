"""One computation of a page at a time in a process, shared by all who wait for it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

Result = TypeVar("Result")


class Flights(Generic[Result]):
    """What is being made, by name.

    A flight that began before a caller came may show less than the caller must see: it is shared only if the caller
    finds its result good. One that began later shows at least as much as one of the caller's own would.
    """

    def __init__(self) -> None:
        self._flights: dict[str, asyncio.Task[Result]] = {}

    async def share(
        self, name: str, make: Callable[[], Awaitable[Result]], is_good: Callable[[Result], bool]
    ) -> Result:
        """Give what is being made under this name, or make it; nobody's cancellation is another's."""
        under_way = self._flights.get(name)
        if under_way is not None:
            await asyncio.wait({under_way})
            if not under_way.cancelled() and under_way.exception() is None and is_good(under_way.result()):
                return under_way.result()
        return await asyncio.shield(self._flights.get(name) or self._begin(name, make))

    def _begin(self, name: str, make: Callable[[], Awaitable[Result]]) -> asyncio.Task[Result]:
        async def fly() -> Result:
            try:
                return await make()
            finally:
                del self._flights[name]

        flight = self._flights[name] = asyncio.create_task(fly())
        return flight
