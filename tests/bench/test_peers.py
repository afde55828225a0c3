"""Peers are asked for the same as the product, and answer the same."""

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from starlette.types import ASGIApp

from bench.peers import constant, one_get, one_statement, present_design
from bench.peers.bare import GIVEN
from bench.programs import environment
from bench.traffic import sign_in
from commands.seed import seed
from infra.settings import Settings
from projections.rebuild import rebuild
from queries.api import create_app

LISTING = "/api/v1/packages"
FILTERS = ["", "?status=RECEIVED", "?status=RECEIVED&sort=owed&limit=5", "?q=garcia", "?status=DELIVERED&limit=3"]

Ask = Callable[..., Any]


@pytest.fixture
def seeded(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A small shop, and the environment that says where it is."""
    asyncio.run(seed(settings, 400, lambda *_: None))
    asyncio.run(rebuild(settings))
    for name, value in environment(settings).items():
        monkeypatch.setenv(name, value)
    return settings


@pytest.fixture
def product(seeded: Settings) -> Iterator[Ask]:
    """Asks the product."""
    headers = {"Authorization": f"Bearer {asyncio.run(sign_in(seeded))}"}
    with TestClient(create_app(seeded)) as client:
        yield lambda address: client.get(address, headers=headers).content


@pytest.fixture
def peer(seeded: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ask]:
    """Asks a peer, which is given what it needs."""
    assert seeded.database_url
    with ExitStack() as stack:

        def start(create: Callable[[], ASGIApp], **given: object) -> Ask:
            monkeypatch.setenv(GIVEN, json.dumps(given))
            client = stack.enter_context(TestClient(create()))
            return lambda address, **headers: client.get(address, headers=headers).content

        yield start


def test_bytes_of_the_page_are_the_products(product: Ask, peer: Ask, tmp_path: Path) -> None:
    """From memory, and through Redis."""
    page = tmp_path / "page"
    page.write_bytes(product(LISTING))
    assert b'"items": [{' in page.read_bytes()
    for create in (constant.create_app, one_get.create_app):
        assert peer(create, page=str(page))(LISTING) == page.read_bytes()


def test_the_bare_statement_gives_the_products_page(product: Ask, peer: Ask) -> None:
    """All members alike; only a cursor isn't signed, and is there for the same pages."""
    ask = peer(one_statement.create_app, addresses=[LISTING + filters for filters in FILTERS])
    for filters in FILTERS:
        ours, theirs = json.loads(product(LISTING + filters)), json.loads(ask(LISTING + filters))
        assert ours["items"]
        cursors = ours.pop("next_cursor"), theirs.pop("next_cursor")
        assert (cursors[0] is None) == (cursors[1] is None)
        assert ours == theirs


def test_the_bare_statement_finds_what_the_product_finds(product: Ask, peer: Ask) -> None:
    """By code, guide, phone and position."""
    shown = next(row for row in json.loads(product(f"{LISTING}?status=RECEIVED"))["items"] if row["customer"]["phone"])
    codes = [shown["tracking_code"], shown["guide_number"], shown["position"], shown["customer"]["phone"][3:]]
    addresses = [f"/api/v1/lookup?q={code}" for code in codes]
    ask = peer(one_statement.create_app, addresses=addresses)
    for address in addresses:
        assert shown["package_id"] in product(address).decode()
        assert ask(address) == product(address)


def test_the_design_of_today_gives_the_products_rows(product: Ask, peer: Ask) -> None:
    """Every field of every row: from the database, from its cache, and by loading all there is."""
    ask = peer(present_design.create_app)
    for filters in ("", "?status=RECEIVED", "?status=DELIVERED&status=CANCELLED", "?limit=7"):
        ours = json.loads(product(LISTING + filters))
        for path, headers in ((LISTING, {"Cache-Control": "no-store"}), (LISTING, {}), ("/api/v1/every-package", {})):
            theirs = json.loads(ask(path + filters, **headers))
            assert theirs["items"] == ours["items"]
            assert theirs["count"] == ours["count"]


def test_the_design_of_today_keeps_its_page_whatever_is_written(peer: Ask, seeded: Settings) -> None:
    """That is what its speed from the cache is the speed of."""
    ask = peer(present_design.create_app)
    before = ask(f"{LISTING}?limit=1")
    asyncio.run(seed(seeded, 10, lambda *_: None))
    assert ask(f"{LISTING}?limit=1") == before
