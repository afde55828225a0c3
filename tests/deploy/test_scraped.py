"""A real Prometheus that scrapes the real service: every query of the dashboards has an answer there."""

import contextlib
import json
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.test_monitoring import DASHBOARDS, RULES, queries
from tests.support import PATIENCE, wait_until
from tests.test_manage import Shop

pytestmark = [pytest.mark.long, pytest.mark.xdist_group("manage")]

CONFIGURATION = """
global: {{ scrape_interval: 1s, evaluation_interval: 1s }}
rule_files: ["{rules}"]
scrape_configs:
  - job_name: paqueteria
    static_configs: [{{ targets: ["127.0.0.1:{port}"] }}]
"""


def ask(address: str, body: dict[str, Any] | None = None, headers: dict[str, str] | None = None) -> Any:  # noqa: ANN401
    data = None if body is None else json.dumps(body).encode()
    given = {"Content-Type": "application/json"} | (headers or {})
    with urllib.request.urlopen(urllib.request.Request(address, data, given), timeout=PATIENCE) as answer:  # noqa: S310
        return json.loads(answer.read())


def sign_in(address: str) -> dict[str, str]:
    form = urllib.parse.urlencode({"username": "admin", "password": "una-clave-de-prueba"}).encode()
    with urllib.request.urlopen(f"{address}/auth/token", form, timeout=PATIENCE) as answer:  # noqa: S310
        return {"Authorization": f"Bearer {json.loads(answer.read())['access_token']}"}


def trade(address: str, headers: dict[str, str], number: int) -> None:
    """One parcel's life, and the listing looked at before and after."""
    guide = {"guide_number": f"PROMETHEUS-{number}", "customer_name": "Ana Peña", "customer_phone": "3001234567"}
    parcel = ask(f"{address}/receptions", guide | {"package_type": "NORMAL", "condition": "GOOD"}, headers)
    for _ in range(2):
        ask(f"{address}/packages", headers=headers)
    payment = {"payment_method": "CASH", "amount": parcel["due"]}
    ask(f"{address}/packages/{parcel['package_id']}/delivery", payment, headers)


@contextlib.contextmanager
def scraping(prometheus: str, folder: Path, port: int) -> Iterator[str]:
    """Prometheus on that port's `/metrics`, while the block lasts; gives the address of its interface."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        listens = f"127.0.0.1:{probe.getsockname()[1]}"
    configuration = folder / "prometheus.yml"
    configuration.write_text(CONFIGURATION.format(rules=RULES / "alerts.yml", port=port))
    command = [prometheus, f"--config.file={configuration}", f"--storage.tsdb.path={folder / 'tsdb'}"]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen([*command, f"--web.listen-address={listens}"], stdout=log, stderr=log)
    try:
        yield f"http://{listens}/api/v1"
    finally:
        process.terminate()
        process.wait(PATIENCE)


def result(prometheus: str, query: str) -> list[Any]:
    try:
        told = ask(f"{prometheus}/query?{urllib.parse.urlencode({'query': query})}")
    except (ConnectionError, urllib.error.URLError):
        return []
    assert told["status"] == "success", told
    found: list[Any] = told["data"]["result"]
    return found


def test_every_query_is_answered_by_what_the_service_tells(tmp_path: Path, prometheus: str) -> None:
    """With two workers and some trade, no panel is empty, every rule can be evaluated, and no alert fires."""
    shop = Shop(tmp_path)
    shop.environment["PAQUETERIA_WORKERS"] = "2"
    asked = [query.replace("$__rate_interval", "20s") for board in DASHBOARDS for query in queries(board)]
    with shop.up("--demo", "200"), scraping(prometheus, tmp_path, shop.port) as address:
        api = f"http://127.0.0.1:{shop.port}/api/v1"
        headers = sign_in(api)
        wait_until(lambda: bool(result(address, "up == 1")))
        empty = asked
        deadline = time.monotonic() + PATIENCE
        number = 0
        while empty and time.monotonic() < deadline:
            trade(api, headers, number := number + 1)
            empty = [query for query in empty if not result(address, query)]
        assert empty == []
        rules = ask(f"{address}/rules")["data"]["groups"][0]["rules"]
        wait_until(
            lambda: all(rule["health"] == "ok" for rule in ask(f"{address}/rules")["data"]["groups"][0]["rules"])
        )
        assert [rule["name"] for rule in rules if rule["state"] == "firing"] == []
