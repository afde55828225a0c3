"""What the leading projector announces to the page cache, as a reader hears it: by subscription, or not at all.

A reader that holds pages of its own must know at every moment that no announcement has passed it by. Two things prove
it, each good for a second: a heartbeat says that somebody still announces, and an answered ping on the same connection
says that everything announced before the ping has arrived.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from redis.asyncio import Redis
from redis.asyncio.client import PubSub

from db.breaker import PATIENCE
from db.page_cache import DISCARDED, EPOCH_LEASE, HEARTBEAT, channel_of
from db.redis_clients import REDIS_AWAY, subscribed
from infra import logs

log = logs.get("announcements")

MOST_SCOPES = 20_000
"""Scopes whose generation is remembered; before that, every page is forgotten that they could be on."""


@dataclass(slots=True, eq=False)
class View:
    """What one unbroken subscription has told under one epoch.

    A page whose own snapshot was taken while this view was being heard is current if none of its scopes has been raised
    above the batch that the snapshot saw. `version` moves with every announcement.
    """

    epoch: str
    version: int = 0
    _raised: dict[str, int] = field(default_factory=dict)
    _floor: int = 0

    def hear(self, batch: int, scopes: Sequence[str]) -> None:
        """Raise the scopes; never lower one."""
        if len(self._raised) + len(scopes) > MOST_SCOPES:
            self._floor = max(self._floor, *self._raised.values())
            self._raised.clear()
        for scope in scopes:
            self._raised[scope] = max(batch, self._raised.get(scope, 0))
        self.version += 1

    def holds(self, scopes: Sequence[str], batch: int) -> bool:
        """Tell whether a page of these scopes that shows this batch shows all that was announced for them."""
        return all(self._raised.get(scope, self._floor) <= batch for scope in scopes)


class Announcements:
    """Follows the announcements while it runs. `view` is to be believed until `trusted_until`, and no longer."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._answered_at = 0.0
        self._vouched_at = 0.0
        self.view: View | None = None
        self.trusted_until = 0.0

    @property
    def current(self) -> View | None:
        """What may be believed now; None without a subscription, or after a second of silence."""
        return self.view if time.monotonic() < self.trusted_until else None

    async def run(self) -> None:
        """Subscribe, listen, and subscribe anew after a failure, until cancelled."""
        while True:
            try:
                async with subscribed(self._redis, channel_of(self._redis)) as subscription:
                    await self._follow(subscription)
            except REDIS_AWAY as error:
                log.warning("subscription_lost", error=repr(error))
            finally:
                self.forget()
            await asyncio.sleep(HEARTBEAT)

    async def _follow(self, subscription: PubSub) -> None:
        pinged_at = 0.0
        while True:
            now = time.monotonic()
            if now - pinged_at >= HEARTBEAT:
                pinged_at = now
                await subscription.ping(str(now))
            message = await subscription.get_message(timeout=max(0.001, pinged_at + HEARTBEAT - now))
            if message is None:
                continue
            if message["type"] == "message":
                self.hear(message["data"].decode(), time.monotonic())
            elif message["type"] == "pong":
                self.answered(float(message["data"]), time.monotonic())
            else:  # subscribed, for the first time or again: what was told in between is not known
                self.forget()

    def answered(self, asked_at: float, now: float) -> None:
        """Note that a ping has come back; one that took long proves nothing."""
        if now - asked_at <= PATIENCE:
            self._answered_at = asked_at
            self._trust()

    def hear(self, text: str, now: float) -> None:
        """Take in a message: `epoch` is a heartbeat, `epoch batch scope…` an announcement."""
        epoch, *announced = text.split()
        if epoch == DISCARDED:
            self.view = None
            return
        if self.view is None or self.view.epoch != epoch:
            self.view = View(epoch)
        if announced:
            self.view.hear(int(announced[0]), announced[1:])
        else:
            self._vouched_at = now
            self._trust()

    def forget(self) -> None:
        """Believe nothing any more: an announcement may have been missed."""
        self.view = None
        self._answered_at = self._vouched_at = self.trusted_until = 0.0

    def _trust(self) -> None:
        self.trusted_until = min(self._answered_at, self._vouched_at) + EPOCH_LEASE
