"""The counter, as a clerk uses it: the scanner types, Enter follows, and the field has the focus again."""

import re
import time

import pytest
from playwright.sync_api import Page, Route, expect

from tests.pictures import taken
from tests.web.axe import violations
from tests.web.conftest import Visitor, chosen
from tests.web.shop import Shop


def scan(page: Page, text: str) -> None:
    """Type as a scanner does: as fast as it goes, then Enter."""
    page.keyboard.type(text)
    page.keyboard.press("Enter")


@pytest.mark.parametrize("size", ["wide", "narrow"])
@pytest.mark.parametrize("language", ["es", "en"])
def test_an_announced_parcel_is_one_scan(visitor: Visitor, shop: Shop, size: str, language: str) -> None:
    """It is received, its position stands large, the message for its customer is ready, and the field waits."""
    announced = shop.announce(customer_name="Zoë Núñez")
    page = visitor.open("/mostrador", size=size, language=language)
    page.keyboard.press("F3")
    scan(page, announced["guide_number"].lower())
    card = page.locator(".outcome-good")
    expect(card).to_contain_text("Zoë Núñez")
    expect(card).to_contain_text("Extragrande" if language == "es" else "Extra-sized")
    package = shop.becomes(announced["guide_number"], "RECEIVED")
    assert package["package_type"] == "EXTRA_SIZED"
    expect(card.locator(".huge")).to_have_text(package["position"])
    link = card.get_by_role("link", name="WhatsApp").get_attribute("href") or ""
    assert link.startswith(f"https://wa.me/{package['customer']['phone'][1:]}?text=Hola")
    assert f"seguimiento/{package['tracking_code']}" in link
    expect(page.locator("#q")).to_be_focused()
    assert violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_photo_after_the_reception(visitor: Visitor, shop: Shop) -> None:
    """It is taken on the card, goes out beside the scans, and the field has the focus; a refusal is said."""
    announced, other = shop.announce(), shop.announce()
    page = visitor.open("/mostrador")
    scan(page, announced["guide_number"])
    page.get_by_label("Foto").set_input_files([chosen(taken())])
    expect(page.get_by_role("img", name="Foto 1")).to_be_visible()
    expect(page.locator("#q")).to_be_focused()
    page.get_by_label("Foto").set_input_files([chosen(b"no picture")])
    expect(page.locator("#log .log-bad")).to_contain_text("JPEG, PNG o WebP")
    scan(page, other["guide_number"])
    expect(page.locator(".outcome-good .code").first).to_have_text(other["guide_number"])
    assert page.get_by_role("img", name="Foto 1").count() == 0
    assert len(shop.package(announced["package_id"])["photos"]) == 1
    visitor.faults.clear()  # the browser itself remarks on the 415


def test_a_known_customers_parcel_is_two_scans_and_enter(visitor: Visitor, shop: Shop) -> None:
    """The new guide, the customer's phone, Enter; the carrier is known by the shape of its code."""
    phone = shop.phone()
    shop.receive(customer_name="Lucía Álzate", customer_phone=phone)
    guide = f"1Z999AA1{int(time.time()) % 10**10:010}"
    page = visitor.open("/mostrador")
    scan(page, guide)
    scan(page, phone)
    expect(page.locator("#prompt")).to_have_text("Enter lo recibe para Lucía Álzate")
    page.wait_for_timeout(300)  # a person's Enter, not the second line end of a scanner
    page.keyboard.press("Enter")
    expect(page.locator(".outcome-good")).to_contain_text("Lucía Álzate")
    assert shop.becomes(guide, "RECEIVED")["carrier"] == "UPS"


def test_a_new_customer_is_asked_for_in_place(visitor: Visitor, shop: Shop) -> None:
    """Phone, then name, in the same field; what is typed meanwhile is suggested from those who are known."""
    shop.receive(customer_name="Wenceslao Zuluaga")
    guide, phone = shop.guide(), shop.phone()
    page = visitor.open("/mostrador")
    scan(page, guide)
    scan(page, phone)
    expect(page.locator("#prompt")).to_have_text("Nombre del cliente nuevo")
    scan(page, "Inés Ñustes")
    expect(page.locator("#prompt")).to_have_text("Enter lo recibe para Inés Ñustes")
    page.wait_for_timeout(300)
    page.keyboard.press("Enter")
    expect(page.locator(".outcome-good")).to_contain_text("Inés Ñustes")
    other = shop.guide()
    scan(page, other)
    expect(page.locator("#work")).to_have_attribute("data-step", "customer")
    page.keyboard.type("wences")
    expect(page.get_by_role("option")).to_have_count(1)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(page.locator("#prompt")).to_have_text("Enter lo recibe para Wenceslao Zuluaga")


def test_parcels_are_handed_over_together(visitor: Visitor, shop: Shop) -> None:
    """Each is scanned, one total, one method, change on the total; one that is refused is named and stays."""
    phone = shop.phone()
    first, second, third = shop.receive_many(3, customer_name="Gil Robledo", customer_phone=phone)
    page = visitor.open("/mostrador")
    scan(page, phone)
    expect(page.locator(".found .lines li")).to_have_count(3)
    for parcel in (first, second, third):
        scan(page, parcel["tracking_code"])
    expect(page.locator("#total")).to_have_text("$4.500")
    scan(page, "$4000")
    expect(page.locator("#change")).to_have_text("faltan $500")
    page.get_by_role("button", name="Entregar").click()
    expect(page.locator(".work > .notice-bad")).to_contain_text("menos que el total")
    scan(page, "$20.000")
    expect(page.locator("#change")).to_have_text("$15.500")
    assert violations(page) == []
    other = shop.send("GET", f"/packages/{second['package_id']}")
    shop.send("POST", f"/packages/{other['package_id']}/delivery", json={"payment_method": "NEQUI", "amount": 1500})
    page.wait_for_timeout(300)
    page.keyboard.press("Enter")
    expect(page.locator(".outcome-good .huge")).to_have_text("$17.000")
    expect(page.locator(".work > .notice-bad")).to_contain_text(second["guide_number"])
    for parcel in (first, third):
        package = shop.becomes(parcel["guide_number"], "DELIVERED")
        assert package["paid"] == 1500
        assert [payment["method"] for payment in package["payments"]] == ["CASH"]


def test_another_amount_needs_its_reason(visitor: Visitor, shop: Shop) -> None:
    """The server says what is due; who charges less says why, and who collects is noted."""
    parcel = shop.receive()
    page = visitor.open("/mostrador")
    scan(page, parcel["guide_number"])
    page.get_by_text("Otro valor, u otra persona recoge").click()
    page.get_by_label("Cobrar en total").fill("1.000")
    page.get_by_role("button", name="Entregar").click()
    expect(page.locator(".notice-bad").last).to_contain_text("Otro valor necesita su motivo.")
    page.get_by_label("Motivo").fill("Cliente frecuente")
    page.get_by_label("Quién recoge").fill("Su hermana")
    page.keyboard.press("F4")
    page.get_by_role("button", name="Entregar").click()
    expect(page.locator(".outcome-good .huge")).to_have_text("$1.000")
    (payment,) = shop.becomes(parcel["guide_number"], "DELIVERED")["payments"]
    assert (payment["amount"], payment["amount_reason"]) == (1000, "Cliente frecuente")
    assert (payment["method"], payment["collected_by"]) == ("NEQUI", "Su hermana")


def test_nothing_scanned_is_lost(visitor: Visitor, shop: Shop) -> None:
    """A new guide waits while others are scanned, and over a reload; a scanner's second Enter confirms nothing."""
    waiting, later = shop.guide(), shop.guide()
    stored = shop.receive()
    page = visitor.open("/mostrador")
    for guide in (waiting, later, stored["guide_number"]):
        scan(page, guide)
    page.keyboard.press("Enter")
    expect(page.locator(".pending .chip")).to_have_text([waiting, later])
    page.reload()
    expect(page.locator(".pending .chip")).to_have_text([waiting, later])
    assert shop.package(stored["package_id"])["status"] == "RECEIVED", "the second line end of a scanner"
    page.keyboard.press("Escape")
    expect(page.locator("#prompt")).to_contain_text(waiting)


def test_a_lost_answer_is_asked_for_again_and_nothing_is_done_twice(visitor: Visitor, shop: Shop) -> None:
    """The same step under the same key: received once, and shown as received, not as something to hand over."""
    announced = shop.announce()
    page = visitor.open("/mostrador")
    lost: list[Route] = []

    def lose(route: Route) -> None:
        if lost:
            route.continue_()
        else:
            route.fetch()
            lost.append(route)
            route.abort()

    page.route("**/mostrador", lose)
    scan(page, announced["guide_number"])
    expect(page.locator(".outcome-good")).to_contain_text("Recibido")
    assert lost
    assert page.locator(".hand-over").count() == 0
    shop.becomes(announced["guide_number"], "RECEIVED")
    assert len(shop.send("GET", f"/packages/{announced['package_id']}/history")["items"]) == 2
    visitor.faults.clear()  # the browser itself remarks on the lost request


@pytest.mark.chaos
def test_scans_at_five_a_second(visitor: Visitor, shop: Shop, request: pytest.FixtureRequest) -> None:
    """As many scans, as many parcels: announced ones, and new ones for a customer who is kept."""
    pairs = 100 if request.config.getoption("--chaos", "short") == "long" else 10
    phone = shop.phone()
    shop.receive(customer_name="Edificio Prado", customer_phone=phone)
    announced = [shop.announce()["guide_number"] for _ in range(pairs)]
    new = [shop.guide() for _ in range(pairs)]
    page = visitor.open("/mostrador")
    scan(page, shop.guide())
    scan(page, phone)
    expect(page.locator("#work")).to_have_attribute("data-step", "confirm")
    page.keyboard.press("F9")
    expect(page.locator(".pinned")).to_contain_text("Edificio Prado")
    began = time.monotonic()
    for number, guide in enumerate(guide for pair in zip(announced, new, strict=True) for guide in pair):
        scan(page, guide)
        page.wait_for_timeout(max(0.0, (began + (number + 1) / 5 - time.monotonic()) * 1000))
    expect(page.locator("#tally")).to_have_text(str(2 * pairs + 1), timeout=60_000)
    expect(page.locator("#q")).to_have_value("")
    for guide in announced + new:
        shop.becomes(guide, "RECEIVED")


def test_the_listing_leads_to_the_next_step(visitor: Visitor, shop: Shop) -> None:
    """By a link of ours a parcel is scanned; one from elsewhere only fills it in, for that must write nothing."""
    announced = shop.announce()
    page = visitor.open(f"/mostrador?q={announced['guide_number']}")
    expect(page.locator("#q")).to_have_value(announced["guide_number"])
    assert shop.package(announced["package_id"])["status"] == "ANNOUNCED"
    page.goto(f"/paquetes?q={announced['guide_number']}")
    page.get_by_role("link", name=f"Recibir {announced['guide_number']}").click()
    expect(page.locator(".outcome-good")).to_contain_text("Recibido")
    shop.becomes(announced["guide_number"], "RECEIVED")


def test_keys_are_shown_and_work(visitor: Visitor) -> None:
    """`?` shows them; whatever key is pressed where nothing is typed goes to the field."""
    page = visitor.open("/mostrador")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_be_visible()
    assert violations(page) == []
    page.keyboard.press("Escape")
    expect(page.locator("#q")).to_be_focused()
    page.locator("#sound").focus()
    page.keyboard.type("abc")
    expect(page.locator("#q")).to_have_value("abc")
    expect(page.locator("#sound")).to_have_attribute("aria-pressed", re.compile("true"))


def test_who_only_reads_has_no_counter(visitor: Visitor) -> None:
    """The page is refused, and the bar doesn't offer it."""
    page = visitor.open("/mostrador", who="vera")
    expect(page.get_by_role("heading", name="Esto no te corresponde")).to_be_visible()
    page.goto("/paquetes")
    expect(page.get_by_role("link", name="Mostrador")).to_have_count(0)
    visitor.faults.clear()  # the browser itself remarks on the 403
