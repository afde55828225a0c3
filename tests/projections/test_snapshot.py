"""The checkpoint's arithmetic: it never says more than is true, and never takes back what it said."""

from hypothesis import given
from hypothesis import strategies as st

from projections.snapshot import Snapshot


@st.composite
def successive(draw: st.DrawFn) -> tuple[Snapshot, Snapshot]:
    """Give two snapshots of which the second was taken later: what one shows, the other does too."""
    xmax = draw(st.integers(10, 40))
    old = Snapshot(xmax, frozenset(draw(st.sets(st.integers(3, xmax - 1)))))
    later = xmax + draw(st.integers(0, 20))
    running = {xid for xid in range(3, later) if not old.shows(xid)}
    hidden = draw(st.sets(st.sampled_from(sorted(running)))) if running else set()
    return old, Snapshot(later, frozenset(hidden))


@given(successive(), st.integers(3, 70))
def test_a_bounded_batch_shows_what_was_read_and_no_more(pair: tuple[Snapshot, Snapshot], end: int) -> None:
    """After reading up to `end`, exactly the old snapshot and the read part of the new one are shown."""
    old, current = pair
    end = min(end, current.xmax)
    advanced = old.advanced(current, end)
    for xid in range(3, current.xmax + 5):
        assert advanced.shows(xid) == (old.shows(xid) or (current.shows(xid) and xid < end))


@given(successive())
def test_a_whole_batch_shows_all_that_is_visible(pair: tuple[Snapshot, Snapshot]) -> None:
    """With nothing left out, the checkpoint is the snapshot that was read in."""
    old, current = pair
    assert old.advanced(current, None) == current


@given(successive())
def test_text_and_value_are_one(pair: tuple[Snapshot, Snapshot]) -> None:
    """What is stored as a pg_snapshot reads back the same."""
    for snapshot in pair:
        assert Snapshot.parse(str(snapshot)) == snapshot
