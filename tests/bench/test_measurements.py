"""Each measurement that goes through HTTP works, at a size that says nothing of speed."""

import asyncio
import math
import shutil
import sys
from pathlib import Path

import pytest

from bench import run
from bench.load import NUMBER, drive, request
from bench.reading import LISTING, reading_shop
from bench.registry import ALL
from bench.run import Sizes
from bench.shops import Bench, Shops
from infra.errors import ConfigurationError

pytestmark = pytest.mark.xdist_group("bench")

BARS = {
    "hot-page": ["≥ 0.700 times", "≥ 60 times", "≥ 0.700 times"],
    "cold-page": ["≥ 0.600 times", "≥ 20 times"],
    "deep-page": ["≤ 1.50 times"],
    "lookup": ["≥ 0.600 times"] * 4,
    "sorts-and-filters": ["≤ 20 ms"] * 23,
    "text-search": ["≤ 50 ms"] * 17,
    "cost-by-size": ["≤ 1.50 times"],
    "workers": [],
    "memory": ["≤ 150 MiB"],
    "hits": ["≥ 0.950 times", "≤ 0"],
    "redis-faults": ["≤ 2 times"] * 6,
    "reads-beside-writes": ["≤ 2 times", "≥ 196 /s", "≤ 0"],
    "command": ["≥ 0.500 times"],
    "batch-reception": ["≥ 5 times"],
    "settings": [],
}
STAND_IN = Path(__file__).with_name("wrk.py")


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a program on the path that is used as wrk is, and is done at once."""
    program = tmp_path / "wrk"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S {STAND_IN} "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")


QUICK = ("command",)


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize("name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.long) for name in BARS])
def test_a_measurement_gives_its_figures(shops: Shops, name: str) -> None:
    """Every figure is a number, and those that are held against a bar say so."""
    result = asyncio.run(run.measure(shops, ALL[name], Sizes(packages=1000, seconds=1, rounds=1)))
    assert [figure.bar for figure in result.findings.figures if figure.bar] == BARS[name]
    assert all(math.isfinite(figure.value) for figure in result.findings.figures)
    assert [figure.value for figure in result.findings.figures if figure.at_most == 0] == [0] * BARS[name].count("≤ 0")


@pytest.mark.long
def test_an_answer_that_refuses_is_no_figure(shops: Shops, stand_in: None) -> None:
    """What answers with errors is quick at it."""
    assert stand_in is None

    async def ask() -> None:
        async with reading_shop(Bench(shops, 40, 1, 1, lambda *_: None)) as readers:
            await drive(readers.settings, [request(f"/api/v1{LISTING}")], 1)

    with pytest.raises(ConfigurationError, match="24 were refusals"):
        asyncio.run(ask())


def test_a_missing_load_generator_is_named(shops: Shops, monkeypatch: pytest.MonkeyPatch) -> None:
    """With how to get it."""
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(ConfigurationError, match="apt-get install wrk"):
        asyncio.run(drive(shops.settings("postgres"), [request("/")], 1))


def test_a_request_is_written_as_it_goes_over_the_wire() -> None:
    assert request("/a", headers={"X": "1"}) == b"GET /a HTTP/1.1\r\nHost: bench\r\nX: 1\r\n\r\n"
    written = request("/a", {"n": NUMBER})
    assert written.startswith(b"POST /a HTTP/1.1\r\n")
    assert written.endswith(b'Content-Length: 18\r\n\r\n{"n": "@@@@@@@@@"}')
