"""Alerts fire when they should and are explained; dashboards ask for what there is."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # it comes with uvicorn
from prometheus_client import REGISTRY

import infra.metrics

ROOT = Path(__file__).parents[2]
RULES = ROOT / "infra/deploy/prometheus"
DASHBOARDS = sorted((ROOT / "infra/deploy/grafana/dashboards").glob("*.json"))
NAME = re.compile(r"\bpaqueteria_[a-z0-9_]+")

ALERTS: list[dict[str, Any]] = yaml.safe_load((RULES / "alerts.yml").read_text())["groups"][0]["rules"]
NAMED = {
    "SlowAnswers",
    "LowCacheHitRate",
    "ProjectionLag",
    "NoProjectionLeader",
    "StaleFees",
    "PoolExhausted",
    "ReplicaLag",
    "ErrorRate",
    "ShelfFull",
    "VerifyFailed",
    "NobodyMeasures",
    "ProcessAway",
}


def run(promtool: str, *arguments: str, folder: Path = RULES) -> subprocess.CompletedProcess[str]:
    return subprocess.run([promtool, *arguments], cwd=folder, capture_output=True, text=True, check=False)


def queries(dashboard: Path) -> list[str]:
    return [target["expr"] for panel in json.loads(dashboard.read_text())["panels"] for target in panel["targets"]]


def test_the_alerts_fire_when_they_should(promtool: str) -> None:
    """Each has its case, and what is near to it and isn't one, by Prometheus's own test of rules."""
    checked = run(promtool, "check", "config", "prometheus.yml")
    assert checked.returncode == 0, checked.stderr
    tested = run(promtool, "test", "rules", "alerts_test.yml")
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_mutant_an_alert_that_never_fires_fails_its_case(promtool: str, tmp_path: Path) -> None:
    """With all of them silenced every alert's case says so: none is there for show."""
    silenced = re.sub(
        r"(- alert: \w+\n +expr:).*?(?=\n +(?:for|labels):)",
        r"\1 vector(0) > 1",
        (RULES / "alerts.yml").read_text(),
        flags=re.DOTALL,
    )
    (tmp_path / "alerts.yml").write_text(silenced)
    (tmp_path / "alerts_test.yml").write_text((RULES / "alerts_test.yml").read_text())
    tested = run(promtool, "test", "rules", "alerts_test.yml", folder=tmp_path)
    assert tested.returncode != 0
    assert set(re.findall(r"alertname: ?(\w+)", tested.stderr + tested.stdout)) == NAMED


def test_every_alert_has_its_runbook() -> None:
    """Under its own name, and the alert names the place; nothing is alerted of that isn't explained."""
    assert {alert["alert"] for alert in ALERTS} == NAMED
    _, _, runbooks = (ROOT / "docs/operations.md").read_text().partition("\n## Alerts\n")
    headings = re.findall(r"^### (.+)$", runbooks.partition("\n## ")[0], re.MULTILINE)
    assert set(headings) == NAMED
    for alert in ALERTS:
        assert alert["annotations"]["runbook"] == f"docs/operations.md#{alert['alert'].lower()}"
        assert alert["labels"]["severity"] in {"page", "ticket"}


def test_what_alerts_and_dashboards_ask_for_is_there() -> None:
    """Every name is one that the service tells: a wrong one would be silence for ever."""
    told = set(REGISTRY._names_to_collectors)  # noqa: SLF001 (with the suffixes of each kind)
    assert len(told) > len(vars(infra.metrics)) / 2
    asked = {name for dashboard in DASHBOARDS for query in queries(dashboard) for name in NAME.findall(query)}
    asked |= {name for alert in ALERTS for name in NAME.findall(alert["expr"])}
    assert asked - told == set()


def test_the_dashboards_can_be_provisioned() -> None:
    """Four, each with a name of its own, on the source of data that is provisioned with them."""
    boards = [json.loads(path.read_text()) for path in DASHBOARDS]
    assert [path.stem for path in DASHBOARDS] == ["business", "health", "reads", "writes"]
    assert len({board["uid"] for board in boards}) == len(boards)
    source = yaml.safe_load((RULES.parent / "grafana/provisioning/datasources/prometheus.yml").read_text())
    (uid,) = {panel["datasource"]["uid"] for board in boards for panel in board["panels"]}
    assert uid == source["datasources"][0]["uid"]


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda path: path.stem)
def test_every_panel_says_what_it_shows(dashboard: Path) -> None:
    """A title, a unit, and a legend for each line."""
    for panel in json.loads(dashboard.read_text())["panels"]:
        assert panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert all(target["legendFormat"] for target in panel["targets"])
