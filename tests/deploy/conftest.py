"""What needs the machine's own programs, Prometheus or nginx, is left out where they are missing, and said to be."""

import pytest

from tests.deploy import nginx
from tests.promtool import IS_LEFT_OUT, PROMETHEUS, PROMTOOL

collect_ignore = ["test_rollout.py"] if nginx.IS_LEFT_OUT else []


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if IS_LEFT_OUT:
        needed = {"promtool", "prometheus"}
        left_out = [item for item in items if needed & set(getattr(item, "fixturenames", ()))]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.fixture
def promtool() -> str:
    assert PROMTOOL, "promtool is missing (Debian: apt-get install prometheus)"
    return PROMTOOL


@pytest.fixture
def prometheus() -> str:
    assert PROMETHEUS, "prometheus is missing (Debian: apt-get install prometheus)"
    return PROMETHEUS
