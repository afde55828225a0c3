"""The observer tells what is visible, and the histogram is read as Prometheus reads it."""

from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Histogram, write_to_textfile

from bench.observer import Observer
from bench.visibility import HISTOGRAM, quantile, read_buckets, share_within
from db.consistency import Checkpoint


def test_a_change_is_visible_from_the_first_checkpoint_that_shows_it() -> None:
    """One that is still open in a checkpoint shows later than those that came after it."""
    observer = Observer(100)
    for at, snapshot in ((1.0, "100:100:"), (2.0, "101:104:101"), (3.0, "104:104:")):
        observer.seen.append((at, Checkpoint("life", int(at), snapshot)))
    assert [observer.visible_at(xid) for xid in (99, 100, 101, 102, 104)] == [1.0, 2.0, 3.0, 2.0, None]


def test_the_histogram_is_read_from_what_the_projector_wrote(tmp_path: Path) -> None:
    registry = CollectorRegistry()
    histogram = Histogram(HISTOGRAM, "Seconds", buckets=(0.01, 0.02, 0.05), registry=registry)
    for seconds in (0.005, 0.005, 0.015, 0.04):
        histogram.observe(seconds)
    write_to_textfile(str(tmp_path / "metrics"), registry)
    buckets = read_buckets(tmp_path / "metrics")
    assert buckets == [(0.01, 2), (0.02, 3), (0.05, 4), (float("inf"), 4)]
    assert share_within(buckets, 0.02) == 0.75
    assert quantile(buckets, 0.25) == pytest.approx(0.005)
    assert quantile(buckets, 0.75) == pytest.approx(0.02)
    assert quantile(buckets, 0.875) == pytest.approx(0.035)
