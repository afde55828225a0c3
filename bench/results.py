"""What a measurement finds, as values that are written down and read again."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Value(BaseModel):
    """Frozen, and strict about what it holds."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


class Figure(Value):
    """One number, the bar that it is held against, and the rounds of which it is the median."""

    name: str
    value: float
    unit: str = ""
    at_most: float | None = None
    at_least: float | None = None
    aim: float | None = None
    """Beyond the bar: what it would be at its best."""
    rounds: list[float] = Field(default=[])

    @property
    def bar(self) -> str:
        """The bar in words; empty where there is none."""
        if self.at_most is not None:
            return f"≤ {self._said(self.at_most)}"
        return "" if self.at_least is None else f"≥ {self._said(self.at_least)}"

    @property
    def aimed_at(self) -> str:
        """The aim in words; empty where there is none."""
        return "" if self.aim is None else self._said(self.aim)

    @property
    def measured(self) -> str:
        """The value in words."""
        return self._said(self.value)

    def _said(self, value: float) -> str:
        return f"{number(value)} {self.unit}".strip()

    @property
    def is_met(self) -> bool | None:
        """Tell whether the bar is met; None where there is none."""
        if self.at_most is not None:
            return self.value <= self.at_most
        if self.at_least is not None:
            return self.value >= self.at_least
        return None


class Series(Value):
    """One line of a plot."""

    label: str
    x: list[float]
    y: list[float]


class Plot(Value):
    """Lines over one pair of axes; `style` is how their points are drawn."""

    title: str
    x_label: str
    y_label: str
    series: list[Series]
    style: Literal["line", "dots"] = "line"
    x_scale: Literal["linear", "log"] = "linear"


class Findings(Value):
    """What a measurement's function gives back."""

    figures: list[Figure]
    plots: list[Plot] = Field(default=[])
    notes: list[str] = Field(default=[])


class Machine(Value):
    """Where it was measured: absolute figures mean nothing without it."""

    processor: str
    cores: int
    memory_gib: float
    kernel: str
    python: str
    postgresql: str
    valkey: str
    started_at: str
    busy_before: float
    """Percent of its processors that others used when the measurement began."""


class Result(Value):
    """All that is written down of one measurement."""

    name: str
    title: str
    what: str
    packages: int
    seconds: float
    rounds: int
    took_seconds: float
    machine: Machine
    findings: Findings


def number(value: float) -> str:
    """Write a figure with three digits that count; a whole number as it is."""
    if not math.isfinite(value):
        return f"{value:g}"
    if value == round(value):
        return f"{value:,.0f}"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{digits}f}"


def percentile(values: Sequence[float], percent: float) -> float:
    """Give the smallest value that so many percent of the values don't exceed; of none, not a number."""
    if not values:
        return math.nan
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def distribution(label: str, values: Sequence[float]) -> Series:
    """Draw the values' distribution: percent of them, over how much they don't exceed."""
    percents = [*range(1, 99), *(98 + tenth / 10 for tenth in range(21))]
    return Series(label=label, x=[percentile(values, percent) for percent in percents], y=[*map(float, percents)])


def by_round(label: str, values: Sequence[float]) -> Series:
    """Draw a value for each round."""
    return Series(label=label, x=[float(index) for index in range(1, len(values) + 1)], y=list(values))


def median(name: str, rounds: Sequence[float], unit: str, **bars: float | None) -> Figure:
    """Give the median of the rounds; `bars` are those of Figure."""
    return Figure(name=name, value=statistics.median(rounds), unit=unit, rounds=list(rounds), **bars)


def ratio(name: str, over: Sequence[float], under: Sequence[float], **bars: float | None) -> Figure:
    """Give the median ratio of what was measured in turn, round by round; `bars` are those of Figure."""
    return median(name, [one / other for one, other in zip(over, under, strict=True)], "times", **bars)


def rounds_plot(title: str, unit: str, measured: Mapping[str, Sequence[float]]) -> Plot:
    """Draw what was measured in turn, round by round."""
    series = [by_round(name, values) for name, values in measured.items()]
    return Plot(title=title, x_label="round", y_label=unit, series=series, style="dots")
