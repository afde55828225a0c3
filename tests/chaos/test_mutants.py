"""Every guard holds, and is needed: without it the same scenario fails."""

import dataclasses
import secrets
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from psycopg import IsolationLevel

from db import consistency, page_cache
from db.consistency import Checkpoint
from db.page_cache import EpochKeeper, Page, PageCache, Place
from db.pools import Connection
from projections import process, projector
from projections.changes import LOG_ROW, Change, by_transaction
from tests.chaos import scenarios
from tests.chaos.scenarios import Scenario, Stage

pytestmark = [pytest.mark.chaos, pytest.mark.anyio]

SCENARIOS: list[Scenario] = [
    scenarios.a_slow_commit_is_not_lost,
    scenarios.nothing_is_taken_in_twice,
    scenarios.the_checkpoint_never_goes_back,
    scenarios.a_change_shows_without_a_signal,
    scenarios.what_is_announced_is_committed,
    scenarios.a_slow_reader_fills_in_vain,
    scenarios.an_emptied_redis_forgets,
    scenarios.a_late_announcement_lowers_nothing,
    scenarios.a_page_from_behind_is_not_believed,
    scenarios.a_token_waits_for_its_own_change,
    scenarios.a_silent_connection_is_given_up,
    scenarios.a_frozen_leader_is_replaced,
]

Mutation = Callable[[pytest.MonkeyPatch], None]


def position_cursor(patch: pytest.MonkeyPatch) -> None:
    """Read past the highest position that was seen, in place of what two snapshots differ by."""
    last = 0

    async def read(conn: Connection, _limit: int, _unfinished: object) -> tuple[list[Change], int | None]:
        nonlocal last
        statement = f"{LOG_ROW} change_log WHERE position > %s".encode()
        rows = await (await conn.execute(statement, (last,))).fetchall()
        (last,) = await (await conn.execute("SELECT coalesce(max(position), 0) FROM change_log")).fetchone() or (last,)
        return by_transaction(rows), None

    patch.setattr(projector, "read_changes", read)


def read_committed(patch: pytest.MonkeyPatch) -> None:
    """Let each statement of a batch see more than the one before."""
    patch.setattr(projector, "IsolationLevel", SimpleNamespace(REPEATABLE_READ=IsolationLevel.READ_COMMITTED))


def no_fence(patch: pytest.MonkeyPatch) -> None:
    """Move the checkpoint from wherever it is; one snapshot a batch would still keep it, so that goes too."""
    read_committed(patch)
    patch.setattr(projector, "MOVE_CHECKPOINT", projector.MOVE_CHECKPOINT.replace(" AND batch = %(old_batch)s", ""))


def no_polling(patch: pytest.MonkeyPatch) -> None:
    """Trust that every signal arrives."""
    patch.setattr(process, "POLL", 3600.0)


def announced_before_the_commit(patch: pytest.MonkeyPatch) -> None:
    """Tell the cache as soon as the batch is made."""
    project, pending = projector._project, projector.project_pending  # noqa: SLF001 (what is mutated)
    keepers: list[EpochKeeper] = []

    async def noting(conn: Connection, keeper: EpochKeeper, *rest: Any, **options: Any) -> int:  # noqa: ANN401
        keepers.append(keeper)
        return await pending(conn, keeper, *rest, **options)

    async def telling(*arguments: Any, **options: Any) -> projector.Batch:  # noqa: ANN401
        batch = await project(*arguments, **options)
        await keepers[-1].announce(batch.scopes, batch.number)
        return batch

    patch.setattr(projector, "project_pending", noting)
    patch.setattr(projector, "_project", telling)


def deleted_pages(patch: pytest.MonkeyPatch) -> None:
    """Keep one page for each question, and delete it upon a write."""
    patch.setattr(page_cache, "_page_key", lambda place, _generation: f"{page_cache.PREFIX}:page:{place.digest}")

    async def delete(keeper: EpochKeeper, scopes: Sequence[str], batch: int) -> None:
        redis = keeper._redis  # noqa: SLF001 (what is mutated)
        async for key in redis.scan_iter(f"{page_cache.PREFIX}:page:*"):
            await redis.delete(key)
        await page_cache.raise_generations(redis, str(keeper._epoch), dict.fromkeys(scopes, batch))  # noqa: SLF001

    patch.setattr(EpochKeeper, "announce", delete)


def one_epoch_for_ever(patch: pytest.MonkeyPatch) -> None:
    """Begin every epoch under the same name."""
    patch.setattr(page_cache, "secrets", SimpleNamespace(token_hex=lambda _: secrets.token_hex(0) + "ever"))


def lowering(patch: pytest.MonkeyPatch) -> None:
    """Set a copy to whatever is announced last."""
    mutant = page_cache.RAISE.replace("tonumber(at) < tonumber(batch)", "true")
    assert mutant != page_cache.RAISE
    patch.setattr(page_cache, "RAISE", mutant)


def generation_read_before(patch: pytest.MonkeyPatch) -> None:
    """Keep a page under the generation that Redis told before it was computed."""
    keep = PageCache.keep

    async def keep_there(cache: PageCache, place: Place, page: Page, generations: Sequence[int], *rest: Any) -> bool:  # noqa: ANN401
        told = generations if place.generation is None else [place.generation]
        return await keep(cache, dataclasses.replace(place), page, told, *rest)

    patch.setattr(PageCache, "keep", keep_there)


def token_by_own_snapshot(patch: pytest.MonkeyPatch) -> None:
    """Take what has committed for what is shown."""
    mutant = consistency.READ_CHECKPOINT.replace("snapshot::text", "pg_current_snapshot()::text")
    assert mutant != consistency.READ_CHECKPOINT
    patch.setattr(consistency, "READ_CHECKPOINT", mutant)


def token_by_highest_xid(patch: pytest.MonkeyPatch) -> None:
    """Take all transactions before the last one that shows for shown."""
    patch.setattr(Checkpoint, "shows", lambda checkpoint, xid: xid < int(checkpoint.snapshot.split(":")[1]))


def endless_patience(patch: pytest.MonkeyPatch) -> None:
    """Wait for an answer until the connection is closed."""
    patch.setattr(consistency, "SILENCE", 3600.0)


def no_lease(patch: pytest.MonkeyPatch) -> None:
    """Let a leader keep its lock for as long as its connection stands."""
    patch.setattr(process, "LEAD_LEASE", "SET idle_session_timeout = 0")


MUTANTS: dict[Mutation, tuple[Scenario, str]] = {
    position_cursor: (scenarios.a_slow_commit_is_not_lost, "the sides differ"),
    read_committed: (scenarios.nothing_is_taken_in_twice, "taken in twice"),
    no_fence: (scenarios.the_checkpoint_never_goes_back, "the checkpoint went back"),
    no_polling: (scenarios.a_change_shows_without_a_signal, "without a signal was not shown"),
    announced_before_the_commit: (scenarios.what_is_announced_is_committed, "never committed"),
    deleted_pages: (scenarios.a_slow_reader_fills_in_vain, "an old page was found"),
    one_epoch_for_ever: (scenarios.an_emptied_redis_forgets, "an old page was found"),
    lowering: (scenarios.a_late_announcement_lowers_nothing, "an old page was found"),
    generation_read_before: (scenarios.a_page_from_behind_is_not_believed, "an old page was found"),
    token_by_own_snapshot: (scenarios.a_token_waits_for_its_own_change, "a listing without its change"),
    token_by_highest_xid: (scenarios.a_token_waits_for_its_own_change, "a listing without its change"),
    endless_patience: (scenarios.a_silent_connection_is_given_up, "not given up"),
    no_lease: (scenarios.a_frozen_leader_is_replaced, "a frozen leader was not replaced"),
}
"""Each with the scenario that it fails, and why."""


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
async def test_as_it_is(stage: Stage, scenario: Scenario) -> None:
    """The product as it is passes each scenario."""
    await scenario(stage)


@pytest.mark.parametrize("mutate", MUTANTS, ids=lambda mutate: mutate.__name__)
async def test_broken(stage: Stage, monkeypatch: pytest.MonkeyPatch, mutate: Mutation) -> None:
    """With the one guard broken, its scenario fails, and for its own reason."""
    stage.hope = 4.0
    mutate(monkeypatch)
    scenario, reason = MUTANTS[mutate]
    with pytest.raises(AssertionError, match=reason):
        await scenario(stage)


async def test_a_cursor_loses_some_under_many_writers(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """What one slow commit shows by design, sixteen writers with random commits show by chance."""
    stage.hope = 4.0
    position_cursor(monkeypatch)
    with pytest.raises(AssertionError, match=r"not all was counted|what others announced was not shown"):
        await scenarios.many_writers(1600, 0.5)(stage)
