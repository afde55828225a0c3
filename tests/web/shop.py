"""The whole shop for the browser tests: one service on a real port, its projector, and what a test puts into it."""

import asyncio
import itertools
import threading
import time
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx2

from infra.settings import Settings

PASSWORD = "una-clave-de-prueba"
STAFF = {"ana": ("Ana Restrepo", "ADMIN"), "oscar": ("Óscar Díaz", "OPERATOR"), "vera": ("Vera Ruiz", "VIEWER")}


def run_apart(work: Coroutine[Any, Any, None]) -> None:
    """Run something asynchronous in a thread of its own, for the browser's driver has the loop of this one."""
    thread = threading.Thread(target=lambda: asyncio.run(work))
    thread.start()
    thread.join()


@dataclass
class Shop:
    """Where it runs, and a member of staff who writes by the API, as another person's browser would."""

    address: str
    settings: Settings
    client: httpx2.Client
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def send(self, method: str, path: str, **sent: Any) -> Any:  # noqa: ANN401
        """Send a request to the API, and give what it answers."""
        answer = self.client.request(method, f"/api/v1{path}", **sent)
        assert answer.is_success, answer.text
        if "Consistency-Token" in answer.headers:
            self.client.headers["Consistency-Token"] = answer.headers["Consistency-Token"]
        return answer.json()

    def guide(self) -> str:
        """Make up a guide that nobody has used."""
        return f"PRUEBA-{next(self.numbers):06}"

    def phone(self) -> str:
        """Make up a phone that nobody has used."""
        return f"300{next(self.numbers):07}"

    def receive(self, **fields: Any) -> Any:  # noqa: ANN401
        """Receive a parcel, on a customer of its own unless `fields` say whose."""
        return self.send("POST", "/receptions", json=self._parcel(fields))

    def receive_many(self, count: int, **fields: Any) -> list[Any]:  # noqa: ANN401
        """Receive as many parcels in one request."""
        parcels = [self._parcel(fields) for _ in range(count)]
        return [result["package"] for result in self.send("POST", "/receptions/batch", json=parcels)["results"]]

    def _parcel(self, fields: dict[str, Any]) -> dict[str, Any]:
        known = {"guide_number": self.guide(), "customer_name": "Íñigo Peña", "customer_phone": self.phone()}
        return known | {"package_type": "NORMAL", "condition": "GOOD"} | fields

    def announce(self, **fields: Any) -> Any:  # noqa: ANN401
        """Announce a parcel."""
        parcel = {"guide_number": self.guide(), "customer_name": "Zoë Núñez", "customer_phone": self.phone()}
        return self.send("POST", "/packages", json=parcel | {"data_consent": True} | fields)

    def becomes(self, guide: str, status: str) -> Any:  # noqa: ANN401
        """Wait until a parcel has this status, as a browser's write may be projected a moment later; gives it."""
        deadline = time.monotonic() + 20
        while True:
            items = self.send("GET", "/lookup", params={"q": guide})["items"]
            if [item["status"] for item in items] == [status]:
                return self.package(items[0]["package_id"])
            assert time.monotonic() < deadline, items
            time.sleep(0.05)

    def newest_tariff(self, valid_from: str) -> Any:  # noqa: ANN401
        """Wait until the last tariff is in force from this instant on; gives it."""
        deadline = time.monotonic() + 20
        while (tariff := self.send("GET", "/tariffs")["items"][-1])["valid_from"] != valid_from:
            assert time.monotonic() < deadline, tariff
            time.sleep(0.05)
        return tariff

    def package(self, package_id: str) -> Any:  # noqa: ANN401
        """Read a parcel, as it is now."""
        return self.send("GET", f"/packages/{package_id}")
