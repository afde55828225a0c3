"""With a token nobody is shown a page from before: it is the change, or a refusal that says when to ask again."""

import http.client
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psutil
import pytest

from db.consistency import HEADER, Token, TokenSigner
from tests.chaos.clerks import Answer, Clerk, Parcel
from tests.chaos.conftest import Rounds
from tests.chaos.house import House
from tests.support import wait_until

pytestmark = [pytest.mark.chaos, pytest.mark.xdist_group("chaos")]

CLIENTS = 8


class Client:
    """Writes, and reads at once what it wrote, by the same pages again and again."""

    def __init__(self, house: House, number: int) -> None:
        gate = threading.Event()  # this clerk does nothing by itself
        self.clerk = Clerk(900 + number, house.shop.port, house.authorization, gate)
        self.seen: Counter[str] = Counter()
        self.stale: list[str] = []

    def work(self, pairs: int) -> None:
        """Take parcels through their lives, one after the other."""
        parcel = self.clerk.announce()
        for number in range(pairs):
            if parcel.status == "DELIVERED":
                parcel = self.clerk.announce()
            if parcel.status == "ANNOUNCED":
                written = self.clerk.receive(parcel)
            elif number % 8:
                written = self.clerk.correct(parcel)
            else:
                written = self.clerk.deliver(parcel)
            self.read(parcel, written.headers[HEADER.lower()], number)
        self.clerk.api.close()

    def read(self, parcel: Parcel, token: str, number: int = 0) -> None:
        """Ask for a page that the parcel is on, and again, when it may come from the cache and is no older."""
        other = (f"/packages/{parcel.package_id}", f"/packages?status={parcel.status}", "/packages")[number % 3]
        for address in (*[f"/packages?customer_id={parcel.customer_id}"] * 2, *[other] * (number % 2)):
            answer = self.clerk.api.get(address, {HEADER: token})
            assert answer.status == http.client.OK, answer
            self.seen[answer.headers["x-cache"]] += 1
            if not _shows(answer, parcel):
                self.stale.append(address)


def _shows(answer: Answer, parcel: Parcel) -> bool:
    items: list[dict[str, Any]] = answer.body.get("items", [answer.body])
    return any(item["package_id"] == parcel.package_id and item["version"] == parcel.version for item in items)


def test_every_read_with_a_token_shows_the_write(house: House, rounds: Rounds) -> None:
    """Eight clients write and read at once, through the cached pages too: none is ever shown less than it wrote."""
    clients = [Client(house, number) for number in range(CLIENTS)]
    with ThreadPoolExecutor(CLIENTS) as threads:
        each = rounds(200, 10_000) // CLIENTS
        for done in [threads.submit(client.work, each) for client in clients]:
            done.result()
    seen = sum((client.seen for client in clients), Counter[str]())
    print(f"{each * CLIENTS} pairs, {seen.total()} reads: {dict(seen)}")  # noqa: T201 (shown by `make chaos`)
    assert [address for client in clients for address in client.stale] == []
    assert seen["L1"] + seen["L2"] > each, "the caches were not in the way"


def projectors(house: House) -> list[psutil.Process]:
    """The leader and the standby."""
    return [process for process in (house.child("project"), house.standby.running()) if process is not None]


def test_a_token_that_cannot_be_met(house: House) -> None:
    """While nobody projects, a reader with a token is told to come again, and is not shown the page from before."""
    client = Client(house, CLIENTS)
    parcel = client.clerk.announce()
    token = client.clerk.receive(parcel).headers[HEADER.lower()]
    client.read(parcel, token)
    address = f"/packages?customer_id={parcel.customer_id}"
    wait_until(lambda: len(projectors(house)) == house.candidates() == 2)
    stopped = projectors(house)
    for process in stopped:
        process.suspend()
    try:
        token = client.clerk.correct(parcel).headers[HEADER.lower()]
        refused = client.clerk.api.send("GET", address, None, {HEADER: token})
        assert refused.status == http.client.SERVICE_UNAVAILABLE
        assert int(refused.headers["retry-after"]) > 0
        assert client.clerk.api.send("GET", address).status == http.client.OK, "who has no token is served"
    finally:
        for process in stopped:
            process.resume()
    client.read(parcel, token)
    assert client.stale == []
    client.clerk.api.close()


def test_a_token_that_is_none_of_ours(house: House) -> None:
    """Malformed, signed by another, or of another life of the database: 400, from the cache as from PostgreSQL."""
    api = house.api
    good = api.get("/packages").headers[HEADER.lower()]
    signer = TokenSigner(house.settings.signing_key())
    incarnation = signer.read(good).incarnation
    foreign = TokenSigner("another shop's key").sign(Token(incarnation, batch=1))
    lives = [signer.sign(Token("another-life", batch=1)), signer.sign(Token("another-life", xid=1000))]
    for token in ("x", "", good[:-1], good + "x", good.replace(".", "", 1), foreign, *lives):
        for cache_control in ("max-age=0", "no-store"):
            answer = api.get("/packages", {HEADER: token, "Cache-Control": cache_control})
            assert answer.status == http.client.BAD_REQUEST, (token, answer.status)
    assert api.get("/packages", {HEADER: good}).status == http.client.OK
