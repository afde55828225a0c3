"""All measurements there are, one file a theme."""

from bench import (
    backlogs,
    batches,
    command_cost,
    hits,
    latencies,
    leadership,
    lookups,
    notify,
    pages,
    rebuilds,
    redis_faults,
    refreshes,
    scale,
    server_settings,
    visibility,
)
from bench.measurement import Measurement
from infra.errors import ConfigurationError

THEMES = (
    pages,
    lookups,
    latencies,
    scale,
    hits,
    redis_faults,
    command_cost,
    visibility,
    notify,
    batches,
    backlogs,
    rebuilds,
    refreshes,
    leadership,
    server_settings,
)

ALL: dict[str, Measurement] = {each.name: each for theme in THEMES for each in theme.MEASUREMENTS}


def chosen(names: list[str]) -> list[Measurement]:
    """Find measurements by name, all of them where none is named. Raises ConfigurationError."""
    if unknown := [name for name in names if name not in ALL]:
        raise ConfigurationError(f"There is no measurement {', '.join(unknown)}: there are {', '.join(ALL)}")
    return [ALL[name] for name in names or ALL]
