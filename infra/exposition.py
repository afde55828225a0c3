"""How figures get to whoever asks: of one process from its memory, of several workers as one service's sums.

With workers, prometheus_client keeps each process's figures in files of one folder, and whichever worker is asked adds
up all of them. A process that has ended stays in the counters, since a sum that falls looks like a restart, and leaves
the gauges: what it had open has gone with it.
"""

import contextlib
import fcntl
import os
import shutil
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import psutil
from prometheus_client import REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.mmap_dict import MmapedDict, mmap_key
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

SHARED = "PROMETHEUS_MULTIPROC_DIR"
"""The variable by which prometheus_client is told, before it is imported, to keep its figures in files."""

NOBODY = 0
"""What stands for a process's number in the files that hold the sums of those that have ended."""

Samples = Mapping[tuple[str, frozenset[tuple[str, str]]], float]
"""Values by their name and labels."""

Family = type[GaugeMetricFamily] | type[CounterMetricFamily]


class Measured(Collector):
    """What each process measures of the one state that they share: told from memory, and never added up.

    What isn't there any more is told no longer, for which prometheus_client's own gauges have no way among workers.
    """

    def __init__(
        self, name: str, documentation: str, labels: Sequence[str] = (), family: Family = GaugeMetricFamily
    ) -> None:
        self._name, self._documentation, self._labels, self._family = name, documentation, labels, family
        self._values: dict[tuple[str, ...], float] = {}
        REGISTRY.register(self)
        _measured.register(self)

    def set(self, value: float, *labels: str) -> None:
        """Tell this from now on."""
        self._values[labels] = value

    def clear(self) -> None:
        """Tell nothing any more."""
        self._values.clear()

    def describe(self) -> Iterable[Metric]:
        """Name it without measuring."""
        return [self._family(self._name, self._documentation, labels=self._labels)]

    def collect(self) -> Iterable[Metric]:
        """Tell what is known."""
        family = self._family(self._name, self._documentation, labels=self._labels)
        suffix = "_total" if self._family is CounterMetricFamily else ""
        for labels, value in list(self._values.items()):
            family.add_sample(self._name + suffix, dict(zip(self._labels, labels, strict=True)), value)
        return [family]


_measured = CollectorRegistry()


class _Sums(Collector):
    """All processes' figures."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterable[Metric]:
        """Add them up; whoever asks takes out, on the way, what the dead have left."""
        with _alone(self._folder):
            _tidy(self._folder)
            # A file that is being made is empty for a moment.
            written = [str(path) for path in self._folder.glob("*.db") if path.stat().st_size]
            return list(MultiProcessCollector.merge(written))


def is_shared() -> bool:
    """Tell whether several processes' figures are one service's."""
    return SHARED in os.environ


def share(folder: Path) -> None:
    """Let the processes that are started from now on keep their figures here, where nothing is left of before."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    os.environ[SHARED] = str(folder)


def _registry() -> CollectorRegistry:
    folder = os.environ.get(SHARED)
    if folder is None:
        return REGISTRY
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Sums(Path(folder)))
    registry.register(_measured)
    return registry


def expose() -> bytes:
    """Give everything in Prometheus's text format. Reads files: not for the event loop."""
    return generate_latest(_registry())


def samples() -> Samples:
    """Give every value. Reads files: not for the event loop."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in _registry().collect()
        for sample in family.samples
    }


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep others from reading what is half folded, and from folding it too."""
    with (folder / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _tidy(folder: Path) -> None:
    dead: dict[str, list[Path]] = defaultdict(list)
    for path in folder.glob("*.db"):
        kind, *_, number = path.stem.split("_")
        if int(number) == NOBODY or not _is_gone(int(number), path):
            continue
        if kind == "gauge":
            path.unlink()
        else:
            dead[kind].append(path)
    for kind, paths in dead.items():
        _fold(folder / f"{kind}_{NOBODY}.db", paths)


def _is_gone(number: int, path: Path) -> bool:
    """Tell whether the process that made the file has ended; another may have got its number since."""
    try:
        process = psutil.Process(number)
        return process.status() == psutil.STATUS_ZOMBIE or process.create_time() > path.stat().st_mtime + 1
    except psutil.NoSuchProcess:
        return True


def _fold(sums: Path, paths: Sequence[Path]) -> None:
    """Add what the dead have counted to the sums of those before them, so that their files needn't be kept."""
    draft = sums.with_suffix(".draft")
    draft.unlink(missing_ok=True)
    counted = [str(path) for path in (sums, *paths) if path.exists() and path.stat().st_size]
    folded = MmapedDict(str(draft))
    for metric in MultiProcessCollector.merge(counted, accumulate=False):
        for sample in metric.samples:
            key = mmap_key(
                metric.name, sample.name, list(sample.labels), list(sample.labels.values()), metric.documentation
            )
            folded.write_value(key, sample.value, 0.0)
    folded.close()
    draft.replace(sums)
    for path in paths:
        path.unlink()
