"""Several workers' figures are one service's: summed, whoever is asked, and without what the dead had open."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from infra import exposition, metrics
from infra.exposition import SHARED, Measured, expose, samples, share

WORKER = """
import sys
from infra import metrics
replays, waits, pages = map(int, sys.argv[1:])
metrics.IDEMPOTENT_REPLAYS.inc(replays)
for _ in range(waits):
    metrics.CACHE_FILL_SECONDS.observe(0.3)
metrics.CACHE_PAGES.set(pages)
metrics.PROJECTION_LAG.set(pages)
print("counted", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(SHARED, "to be set back")
    share(tmp_path / "metrics")
    return tmp_path / "metrics"


@contextlib.contextmanager
def working(*counts: int) -> Iterator[subprocess.Popen[str]]:
    """A process that has counted, and lives while the block lasts."""
    command = [sys.executable, "-c", WORKER, *map(str, counts)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "counted\n"
        yield process


def told(name: str, **labels: str) -> float | None:
    return samples().get((f"paqueteria_{name}", frozenset(labels.items())))


def figures() -> tuple[float | None, ...]:
    filled = "page_cache_fill_duration_seconds"
    return (
        told("idempotent_replays_total"),
        told(f"{filled}_count"),
        told(f"{filled}_bucket", le="0.25"),
        told(f"{filled}_bucket", le="0.5"),
        told("page_cache_l1_pages"),
    )


def test_what_the_dead_counted_stays_and_what_they_had_open_goes(folder: Path) -> None:
    """A counter that falls looks like a restart; pages of a process that has gone are nobody's. No file is left."""
    with working(1, 2, 30) as killed, working(10, 20, 400):
        assert figures() == (11, 22, 0, 22, 430)
        killed.kill()
        killed.wait()
        assert figures() == (11, 22, 0, 22, 400)
        with working(100, 0, 5):
            assert figures() == (111, 22, 0, 22, 405)
    assert figures() == (111, 22, 0, 22, None)
    assert sorted(path.name for path in folder.iterdir()) == ["counter_0.db", "histogram_0.db", "lock"]


def test_mutant_deleting_what_the_dead_counted_lets_the_sum_fall(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has to be folded into what was counted before."""
    monkeypatch.setattr(exposition, "_fold", lambda _sums, paths: [path.unlink() for path in paths])
    with working(1, 2, 30):
        assert told("idempotent_replays_total") == 1
    assert folder.exists()
    assert told("idempotent_replays_total") is None


def test_a_number_that_another_process_has_got_is_no_life(folder: Path) -> None:
    """Who made a file was there before the file was."""
    with working(1, 2, 30):
        (path,) = folder.glob("gauge_livesum_*.db")
        path.rename(path.with_name("gauge_livesum_1.db"))  # a process that is there, and older than the file
        assert told("page_cache_l1_pages") == 30
    with working(1, 2, 30) as young:
        (path,) = folder.glob(f"gauge_livesum_{young.pid}.db")
        stat = path.stat()

        os.utime(path, (stat.st_atime - 3600, stat.st_mtime - 3600))
        assert told("page_cache_l1_pages") == 30, "that of the older one alone"


def test_sharing_begins_anew(folder: Path) -> None:
    """What a service of before has left is not this one's."""
    with working(1, 2, 30):
        pass
    share(folder)
    assert told("idempotent_replays_total") is None


@pytest.mark.usefixtures("folder")
def test_what_is_shared_is_told_by_whoever_is_asked_and_never_added_up() -> None:
    """Each process measures the same database: two that tell of one lag are one lag."""
    metrics.PROJECTION_LAG.clear()  # what other tests have measured in this process
    lag = Measured("paqueteria_lag_for_a_test", "A lag", ["view"])
    try:
        with working(0, 0, 7), working(0, 0, 8):
            assert told("projection_lag_changes") is None, "this process hasn't measured it"
            lag.set(3.0, "fees")
            assert b'paqueteria_lag_for_a_test{view="fees"} 3.0' in expose()
            lag.clear()
            assert b"paqueteria_lag_for_a_test{" not in expose()
    finally:
        REGISTRY.unregister(lag)
        exposition._measured.unregister(lag)  # noqa: SLF001 (nobody takes one away but a test)
