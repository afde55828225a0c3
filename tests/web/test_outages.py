"""A server stops in the middle of a shift: the page says so, keeps what was typed, and goes on by itself."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from db.embedded import PostgresServer, ValkeyServer
from db.migrate import migrate
from queries import updates
from tests.web.conftest import EVERYWHERE, Visitor, open_shop
from tests.web.shop import Shop
from web.localization import translations

RECOVERY = 40_000
"""Milliseconds until everything has connected again, on a machine that is busy."""


@pytest.fixture(scope="module")
def servers(server_folder: Path) -> Iterator[tuple[PostgresServer, ValkeyServer]]:
    """A pair of servers that nobody else needs."""
    postgres = PostgresServer(server_folder / "frail", server_folder / "frail-run", {"fsync": "off"})
    valkey = ValkeyServer(server_folder / "frail-valkey", server_folder / "frail-run", {})
    postgres.start()
    valkey.start()
    migrate(postgres.dsn("postgres"))
    yield postgres, valkey
    valkey.stop()
    postgres.stop()


@pytest.fixture(scope="module")
def frail(servers: tuple[PostgresServer, ValkeyServer], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """A shop on servers that stop."""
    postgres, valkey = servers
    data_dir = tmp_path_factory.mktemp("frail")
    with open_shop(postgres.dsn("postgres"), valkey.url, data_dir, pool_timeout=1) as shop:
        yield shop


@pytest.fixture
def clerk(browser: Browser, frail: Shop) -> Iterator[Visitor]:
    """Somebody at work there; a browser's own remarks on failed requests are no fault here."""
    with contextlib.closing(Visitor(browser, frail)) as visitor:
        yield visitor


@EVERYWHERE
def test_the_database_stops(
    clerk: Visitor, frail: Shop, servers: tuple[PostgresServer, ValkeyServer], language: str, size: str
) -> None:
    """Scans wait, also over a reload, what is half typed stays, and each is one parcel once the database is back."""
    gettext = translations(language).gettext
    guides = [frail.announce()["guide_number"] for _ in range(4)]
    page = clerk.open("/mostrador", size=size, language=language)
    page.keyboard.type(guides[0])
    page.keyboard.press("Enter")
    expect(page.locator("#tally")).to_have_text("1")
    servers[0].stop()
    for guide in guides[1:]:
        page.keyboard.type(guide)
        page.keyboard.press("Enter")
    page.keyboard.type("A MEDIO ESCRIBIR")
    away = gettext("No connection with the service. What you scan is kept and goes out by itself; go on.")
    expect(page.locator("#away")).to_have_text(away, timeout=RECOVERY)
    expect(page.locator("#waiting")).to_have_text("3 " + gettext("waiting"))
    servers[0].start()
    expect(page.locator("#tally")).to_have_text("4", timeout=RECOVERY)
    expect(page.locator("#away")).to_be_hidden()
    expect(page.locator("#q")).to_have_value("A MEDIO ESCRIBIR")
    for guide in guides:
        frail.becomes(guide, "RECEIVED")


@pytest.mark.long
@pytest.mark.parametrize(("language", "said"), [("es", "se guarda"), ("en", "is kept")])
def test_a_form_goes_out_again_by_itself(
    clerk: Visitor, servers: tuple[PostgresServer, ValkeyServer], language: str, said: str
) -> None:
    """Whoever announces while the database is away is told, loses nothing, and arrives once it is back."""
    page = clerk.open("/anunciar", who=None, language=language)
    guide = f"CORTE-{language}-1".upper()
    for name, text in (("guide_number", guide), ("customer_name", "Ana Gil"), ("customer_phone", "3001234567")):
        page.locator(f"#{name}").fill(text)
    page.get_by_role("checkbox").check()
    servers[0].stop()
    page.locator("form.announce button").click()
    expect(page.locator(".empty")).to_contain_text(said, timeout=RECOVERY)
    servers[0].start()
    expect(page).to_have_url(re.compile("/seguimiento/"), timeout=RECOVERY)


@EVERYWHERE
def test_redis_stops(
    clerk: Visitor, frail: Shop, servers: tuple[PostgresServer, ValkeyServer], language: str, size: str
) -> None:
    """The counter and the listing go on without it, and the listing is live again afterwards."""
    gettext = translations(language).gettext
    guide, later = (frail.announce()["guide_number"] for _ in range(2))
    counter = clerk.open("/mostrador", size=size, language=language)
    listing = clerk.open(f"/paquetes?q={later}", size=size, language=language)
    servers[1].stop()
    counter.keyboard.type(guide)
    counter.keyboard.press("Enter")
    expect(counter.locator("#tally")).to_have_text("1", timeout=RECOVERY)
    listing.reload()
    expect(listing.locator("#count")).to_have_text(
        gettext("Showing %(shown)s of %(count)s") % {"shown": 1, "count": 1}, timeout=RECOVERY
    )
    servers[1].start()
    counter.keyboard.type(later)
    counter.keyboard.press("Enter")
    expect(listing.locator("#rows")).to_contain_text(gettext("In storage"), timeout=RECOVERY)


@EVERYWHERE
def test_the_listing_says_that_it_may_be_old(
    clerk: Visitor,
    frail: Shop,
    servers: tuple[PostgresServer, ValkeyServer],
    monkeypatch: pytest.MonkeyPatch,
    language: str,
    size: str,
) -> None:
    """While the database is away it says so and shows what it has; then it follows again, nothing missed."""
    monkeypatch.setattr(updates, "COMMENT_EVERY", 0.5)
    _ = translations(language).gettext
    live, away = _("Live: changes show by themselves"), _("No connection: this may be out of date. Trying again …")
    announced = frail.announce()
    page = clerk.open(f"/paquetes?q={announced['guide_number']}", size=size, language=language)
    expect(page.locator("#live")).to_have_text(live)
    servers[0].stop()
    expect(page.locator("#live")).to_have_text(away, timeout=RECOVERY)
    expect(page.locator("#rows")).to_contain_text(announced["guide_number"])
    servers[0].start()
    expect(page.locator("#live")).to_have_text(live, timeout=RECOVERY)
    frail.send("POST", f"/packages/{announced['package_id']}/cancellation", json={"reason": "OTHER"})
    expect(page.locator("#rows")).to_contain_text(_("Cancelled"), timeout=RECOVERY)
