"""Tokens name a change; a wait for one ends when the read models hold it, or says that they don't."""

import asyncio

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from db import consistency
from db.consistency import CHANNEL, STAFF_CHANNEL, Checkpoint, CheckpointWatcher, Token, TokenSigner
from infra.errors import Malformed, Unavailable
from infra.tasks import running
from tests.support import until

SIGNER = TokenSigner("a key for tests, and for nothing else")


@pytest.mark.parametrize("token", [Token("life1", xid=2**40), Token("life1", batch=7)])
def test_a_token_is_read_as_it_was_signed(token: Token) -> None:
    """A command's token names its transaction, a query's its batch."""
    assert SIGNER.read(SIGNER.sign(token)) == token


@given(st.text(max_size=80))
def test_anything_else_is_malformed(text: str) -> None:
    """Nobody makes up a token, and no text crashes its reader."""
    with pytest.raises(Malformed):
        SIGNER.read(text)


def test_another_keys_token_is_malformed() -> None:
    """A token of another installation means nothing here."""
    with pytest.raises(Malformed):
        SIGNER.read(TokenSigner("another key").sign(Token("life1", batch=7)))


def test_another_incarnation_is_malformed() -> None:
    """After a restore, transaction ids begin again and old tokens would lie."""
    with pytest.raises(Malformed):
        Token("life1", batch=1).held_by(Checkpoint("life2", 5, "10:10:"))


SNAPSHOTS = st.builds(
    lambda xmin, width, running: (
        f"{xmin}:{xmin + width}:{','.join(str(xmin + r) for r in sorted(running) if r < width)}"
    ),
    st.integers(3, 1000),
    st.integers(0, 20),
    st.sets(st.integers(0, 19)),
)


def test_visibility_is_what_postgresql_says(database: str) -> None:
    """The check in memory agrees with pg_visible_in_snapshot() for every id around the snapshot."""
    with psycopg.connect(database) as conn:

        @given(SNAPSHOTS)
        def agree(snapshot: str) -> None:
            row = conn.execute("SELECT %s::pg_snapshot::text", (snapshot,)).fetchone()
            assert row is not None
            checkpoint = Checkpoint("life1", 1, row[0])
            start = int(snapshot.split(":", maxsplit=1)[0])
            xids = list(range(max(1, start - 3), start + 25))
            told = conn.execute(
                "SELECT pg_visible_in_snapshot(x::text::xid8, %s::pg_snapshot) FROM unnest(%s::bigint[]) AS x",
                (snapshot, xids),
            ).fetchall()
            assert [checkpoint.shows(xid) for xid in xids] == [visible for (visible,) in told]

        agree()


@pytest.mark.anyio
async def test_a_wait_ends_with_the_batch(database: str) -> None:
    """The announcement after the projector's commit wakes whoever waits."""
    watcher = CheckpointWatcher(database)
    async with running(watcher.run()), await psycopg.AsyncConnection.connect(database, autocommit=True) as conn:
        row = await (await conn.execute("SELECT incarnation, batch FROM projection_checkpoint")).fetchone()
        assert row is not None
        incarnation, batch = row
        waiting = asyncio.create_task(watcher.wait_for(Token(incarnation, batch=batch + 1), 30))
        await watcher.wait_for(Token(incarnation, batch=batch), 30)
        assert not waiting.done()
        await conn.execute("UPDATE projection_checkpoint SET batch = batch + 1")
        await conn.execute("SELECT pg_notify(%s, '')", (CHANNEL,))
        await waiting


@pytest.mark.anyio
async def test_who_reads_nothing_is_woken_by_no_batch(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The write API looks at the checkpoint by poll alone, and still hears at once of a change of staff."""
    monkeypatch.setattr(consistency, "POLL", 30)
    watcher = CheckpointWatcher(database, hears_batches=False)
    async with running(watcher.run()), await psycopg.AsyncConnection.connect(database, autocommit=True) as conn:
        await until(lambda: watcher.is_hearing)
        looked_until, changes = watcher.heard_until, watcher.staff_changes
        await conn.execute("SELECT pg_notify(%s, '')", (CHANNEL,))
        await asyncio.sleep(0.3)
        assert watcher.heard_until == looked_until
        await conn.execute("SELECT pg_notify(%s, '')", (STAFF_CHANNEL,))
        await until(lambda: watcher.staff_changes > changes)


@pytest.mark.anyio
async def test_a_wait_in_vain_is_unavailable(database: str) -> None:
    """What can't be shown in time is said, never silently left out."""
    watcher = CheckpointWatcher(database)
    async with running(watcher.run()), await psycopg.AsyncConnection.connect(database, autocommit=True) as conn:
        row = await (await conn.execute("SELECT incarnation FROM projection_checkpoint")).fetchone()
        assert row is not None
        with pytest.raises(Unavailable):
            await watcher.wait_for(Token(row[0], batch=10**9), 0.2)


@pytest.mark.anyio
async def test_a_watcher_outlives_its_connection(database: str) -> None:
    """A listener that is cut off comes back by itself and sees what it missed."""
    watcher = CheckpointWatcher(database)
    async with running(watcher.run()), await psycopg.AsyncConnection.connect(database, autocommit=True) as conn:
        row = await (await conn.execute("SELECT incarnation, batch FROM projection_checkpoint")).fetchone()
        assert row is not None
        await watcher.wait_for(Token(row[0], batch=row[1]), 30)
        cut = await conn.execute(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
            " WHERE application_name = 'paqueteria checkpoint' AND datname = current_database()"
        )
        assert await cut.fetchone() == (1,)
        await conn.execute("UPDATE projection_checkpoint SET batch = batch + 1")
        await watcher.wait_for(Token(row[0], batch=row[1] + 1), 30)
