"""The benchmark's own servers, for all that is measured in small."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.shops import Shops, open_shops


@pytest.fixture(scope="session")
def shops(server_folder: Path) -> Iterator[Shops]:
    """The benchmark's own servers, in a folder that is kept."""
    with open_shops(server_folder / "bench") as opened:
        yield opened
