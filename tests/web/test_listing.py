"""The listing: what it shows, how it is narrowed, and that it follows what others do."""

import re

from playwright.sync_api import FloatRect, Locator, expect

from tests.web.axe import violations
from tests.web.conftest import EVERYWHERE, Visitor
from tests.web.shop import Shop
from web import localization
from web.localization import translations


@EVERYWHERE
def test_one_parcel(visitor: Visitor, shop: Shop, size: str, language: str) -> None:
    """Status in words, code, guide, customer, position, and what is owed now; nobody is kept from reading it."""
    parcel = shop.receive(customer_name="Rocío Ñañez", package_type="EXTRA_SIZED")
    page = visitor.open(f"/paquetes?q={parcel['guide_number']}", size=size, language=language)
    row = page.locator(f"#p-{parcel['package_id']}")
    for text in (parcel["tracking_code"], parcel["guide_number"], "Rocío Ñañez", parcel["position"], "$2.000"):
        expect(row).to_contain_text(text)
    expect(row).to_contain_text("En bodega" if language == "es" else "In storage")
    expect(page.get_by_role("status").first).to_have_text("Mostrando 1 de 1" if language == "es" else "Showing 1 of 1")
    assert violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@EVERYWHERE
def test_search_narrows_as_one_types_and_the_address_holds_it(
    visitor: Visitor, shop: Shop, size: str, language: str
) -> None:
    """All the data is searched, accents and order ignored; the address leads here again; each filter can be removed."""
    _ = translations(language).gettext
    name = f"{language}{size}"
    one = _("Showing %(shown)s of %(count)s") % {"shown": 1, "count": 1}
    shop.receive(customer_name=f"Tomás Quiñónez {name}")
    page = visitor.open("/paquetes", size=size, language=language)
    page.locator("#q").press_sequentially(f"quinonez {name} tomas", delay=10)
    expect(page.locator("#count")).to_have_text(one)
    expect(page).to_have_url(re.compile(rf"/paquetes\?q=quinonez\+{name}\+tomas$"))
    expect(page.locator("#q")).to_be_focused()
    expect(page.locator("#chip-RECEIVED b")).to_have_text("1")
    page.locator("#chip-DELIVERED").click()
    nothing = page.get_by_role("heading", name=_("Nothing matches"))
    expect(nothing).to_be_visible()
    words = rf"q=quinonez\+{name}\+tomas"
    expect(page).to_have_url(re.compile(rf"{words}&status=DELIVERED|status=DELIVERED&{words}"))
    page.reload()
    expect(page.locator("#q")).to_have_value(f"quinonez {name} tomas")
    page.get_by_label(_("Filters in force")).get_by_role("link", name=_("Status")).click()
    expect(page.locator("#count")).to_have_text(one)
    page.go_back()
    expect(nothing).to_be_visible()


@EVERYWHERE
def test_how_long_ago_goes_on(visitor: Visitor, shop: Shop, size: str, language: str) -> None:
    """It is told as the service tells it, and is right without the page being asked for again."""
    parcel = shop.receive()
    shop.package(parcel["package_id"])
    page = visitor.open("/health/live", size=size)
    page.clock.install()
    page.goto(f"/paquetes?q={parcel['guide_number']}&lang={language}")
    received = page.locator(".cell-received")
    expect(received).to_contain_text("hace 1 minuto" if language == "es" else "1 minute ago")
    page.clock.fast_forward("02:00:30")
    expect(received).to_contain_text("hace 2 horas" if language == "es" else "2 hours ago")
    at = localization.instant(parcel["received_at"])
    later = page.evaluate("new Date().toISOString()")
    assert localization.ago(at, localization.instant(later), language) in received.inner_text()


@EVERYWHERE
def test_pages_follow_one_another_without_an_end(visitor: Visitor, shop: Shop, size: str, language: str) -> None:
    """Rows come as one scrolls, each once, and the count says how many there are."""
    said = translations(language).gettext("Showing %(shown)s of %(count)s")
    phone = shop.phone()
    customer = shop.receive_many(60, customer_name="Paula Páez", customer_phone=phone)[0]["customer"]
    page = visitor.open(f"/paquetes?customer_id={customer['customer_id']}", size=size, language=language)
    expect(page.locator("#count")).to_have_text(said % {"shown": 50, "count": 60})
    page.mouse.wheel(0, 20_000)
    expect(page.locator("#rows > tr")).to_have_count(60)
    expect(page.locator("#count")).to_have_text(said % {"shown": 60, "count": 60})
    assert len(set(page.locator("#rows .cell-code .code").all_inner_texts())) == 60


@EVERYWHERE
def test_it_follows_what_another_person_does(visitor: Visitor, shop: Shop, size: str, language: str) -> None:
    """A change shows by itself, and neither scroll nor focus nor selection nor what is being typed is lost."""
    phone = shop.phone()
    parcels = shop.receive_many(30, customer_name="Gil Robledo", customer_phone=phone)
    path = f"/paquetes?customer_id={parcels[0]['customer']['customer_id']}"
    page = visitor.open(path, size=size, language=language)
    expect(page.locator("#live")).to_have_class(re.compile("is-live"))
    ids = [str(row.get_attribute("id")) for row in page.locator("#rows > tr").all()]
    seen = page.locator(f"#{ids[22]}")
    seen.scroll_into_view_if_needed()
    page.evaluate("row => getSelection().selectAllChildren(row.cells[2])", seen.element_handle())
    page.locator("#chip-RECEIVED").evaluate("chip => chip.focus({preventScroll: true})")
    before = (page.evaluate("scrollY"), page.evaluate("String(getSelection())"), seen.bounding_box())
    other = visitor.open(path, who="vera", size=size, language=language)
    due = {"payment_method": "CASH", "amount": 1500}
    shop.send("POST", f"/packages/{ids[20][2:]}/delivery", json=due)
    for window in (page, other):
        expect(window.locator(f"#{ids[20]}")).to_contain_text(translations(language).gettext("Delivered"))
        expect(window.locator("#chip-DELIVERED b")).to_have_text("1")
        expect(window.locator("#chip-RECEIVED b")).to_have_text("29")
    assert before[0] > 0
    assert page.evaluate("String(getSelection())") == before[1]
    _is_where_it_was(seen, before[2])  # a row above it may be lower now: then the page was scrolled by as much
    expect(page.locator("#chip-RECEIVED")).to_be_focused()
    new = shop.receive(customer_name="Gil Robledo", customer_phone=phone)
    expect(page.locator(f"#p-{new['package_id']}")).to_be_attached()
    _is_where_it_was(seen, before[2])


def _is_where_it_was(seen: Locator, before: FloatRect | None) -> None:
    box = seen.bounding_box()
    assert box is not None
    assert before is not None
    assert abs(box["y"] - before["y"]) < 2, "what one looks at stays where it is"


AHEAD = """{
    const machines = Date.now;
    Date.now = () => machines() + 10 * 24 * 3600 * 1000;
}"""
"""A computer at the counter whose clock is ten days ahead: every fee's next step seems to be over."""


def test_a_clock_that_is_ahead_asks_again_now_and_then(visitor: Visitor, shop: Shop) -> None:
    """The fee's next step isn't there yet by the server's clock: one looks again, and not all the time."""
    parcel = shop.package(shop.receive()["package_id"])
    page = visitor.open("/health/live")
    page.add_init_script(AHEAD)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "rows=" in request.url else None)
    page.goto(f"/paquetes?q={parcel['guide_number']}")
    with page.expect_response(re.compile("rows=")):
        expect(page.locator("#live")).to_have_class(re.compile("is-live"))
    page.wait_for_timeout(1500)
    assert len(asked) <= 3, "asked again every few milliseconds"
