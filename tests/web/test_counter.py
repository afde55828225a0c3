"""The counter, as a clerk uses it: the scanner types, Enter follows, and the field has the focus again."""

import re
import time
from typing import Any

import pytest
from playwright.sync_api import Page, Route, expect

from tests.pictures import taken
from tests.web.axe import violations
from tests.web.conftest import EVERYWHERE, Visitor, chosen
from tests.web.shop import Shop
from web.localization import translations
from web.pages.counter.codes import COMMANDS

WAITING = """() => new Promise((resolve) => {
    const opening = indexedDB.open("paqueteria", 1);
    opening.onsuccess = () => {
        const counting = opening.result.transaction("photos").objectStore("photos").count();
        counting.onsuccess = () => { opening.result.close(); resolve(counting.result); };
    };
})"""
"""Counts the photos that this browser keeps."""


def scan(page: Page, text: str) -> None:
    """Type as a scanner does: as fast as it goes, then Enter."""
    page.keyboard.type(text)
    page.keyboard.press("Enter")


@EVERYWHERE
def test_an_announced_parcel_is_one_scan(visitor: Visitor, shop: Shop, language: str, size: str) -> None:
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


@EVERYWHERE
def test_a_photo_after_the_reception(visitor: Visitor, shop: Shop, language: str, size: str) -> None:
    """It is taken on the card, goes out beside the scans, and the field has the focus; a refusal is said."""
    _ = translations(language).gettext
    announced, other = shop.announce(), shop.announce()
    page = visitor.open("/mostrador", size=size, language=language)
    scan(page, announced["guide_number"])
    page.get_by_label(_("Photo")).set_input_files([chosen(taken())])
    expect(page.get_by_role("img", name=_("Photo") + " 1")).to_be_visible()
    expect(page.locator("#q")).to_be_focused()
    page.get_by_label(_("Photo")).set_input_files([chosen(b"no picture")])
    expect(page.locator("#log .log-bad")).to_contain_text("JPEG, PNG")
    scan(page, other["guide_number"])
    expect(page.locator(".outcome-good .code").first).to_have_text(other["guide_number"])
    assert page.get_by_role("img", name=_("Photo") + " 1").count() == 0
    assert len(shop.package(announced["package_id"])["photos"]) == 1
    visitor.faults.clear()  # the browser itself remarks on the 415


def photographed_offline(visitor: Visitor, announced: Any) -> Page:  # noqa: ANN401
    """Receive a parcel, and take a photo that the service can't be given."""
    page = visitor.open("/mostrador")
    scan(page, announced["guide_number"])
    expect(page.locator(".outcome-good")).to_be_visible()
    page.route("**/photos", lambda route: route.abort())
    page.get_by_label("Foto").set_input_files([chosen(taken())])
    expect(page.locator("#away")).to_be_visible()
    return page


def test_a_photo_that_waits_survives_a_reload(visitor: Visitor, shop: Shop) -> None:
    """It goes out once the service can be reached, once, and is then kept nowhere else."""
    announced = shop.announce()
    page = photographed_offline(visitor, announced)
    assert page.evaluate(WAITING) == 1
    page.unroute("**/photos")
    page.reload()
    kept = f"{announced['guide_number']}: La foto quedó guardada."
    expect(page.locator("#said")).to_have_text(kept)
    page.wait_for_function(f"async () => await ({WAITING})() === 0")
    page.reload()
    expect(page.locator("#work")).to_have_attribute("data-step", "idle")
    assert len(shop.package(announced["package_id"])["photos"]) == 1
    visitor.faults.clear()  # the browser itself remarks on the lost request


def test_signing_out_leaves_nothing_behind(visitor: Visitor, shop: Shop) -> None:
    """Neither photo nor scan nor name; while something waits, only once a person has agreed to lose it."""
    page = photographed_offline(visitor, shop.announce())
    page.once("dialog", lambda dialog: dialog.dismiss())
    page.get_by_role("button", name="Salir").click()
    assert page.evaluate(WAITING) == 1
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Salir").click()
    expect(page.get_by_role("button", name="Entrar")).to_be_visible()
    assert page.evaluate(WAITING) == 0
    assert page.evaluate("sessionStorage.length") == 0
    visitor.faults.clear()  # the browser itself remarks on the lost request


@EVERYWHERE
def test_a_known_customers_parcel_is_two_scans_and_enter(
    visitor: Visitor, shop: Shop, language: str, size: str
) -> None:
    """The new guide, the customer's phone, Enter; the carrier is known by the shape of its code."""
    _ = translations(language).gettext
    phone = shop.phone()
    shop.receive(customer_name="Lucía Álzate", customer_phone=phone)
    guide = f"1Z999AA1{int(time.time()) % 10**10:010}"
    page = visitor.open("/mostrador", size=size, language=language)
    scan(page, guide)
    scan(page, phone)
    expect(page.locator("#prompt")).to_have_text(_("Enter receives it for %(name)s") % {"name": "Lucía Álzate"})
    page.wait_for_timeout(300)  # a person's Enter, not the second line end of a scanner
    page.keyboard.press("Enter")
    expect(page.locator(".outcome-good")).to_contain_text("Lucía Álzate")
    assert shop.becomes(guide, "RECEIVED")["carrier"] == "UPS"


@EVERYWHERE
def test_a_new_customer_is_asked_for_in_place(visitor: Visitor, shop: Shop, language: str, size: str) -> None:
    """Phone, then name, in the same field; what is typed meanwhile is suggested from those who are known."""
    _ = translations(language).gettext
    known = f"Wenceslao {language} {size}"
    shop.receive(customer_name=known)
    guide, phone = shop.guide(), shop.phone()
    page = visitor.open("/mostrador", size=size, language=language)
    scan(page, guide)
    scan(page, phone)
    expect(page.locator("#prompt")).to_have_text(_("Name of the new customer"))
    scan(page, "Inés Ñustes")
    expect(page.locator("#prompt")).to_have_text(_("Enter receives it for %(name)s") % {"name": "Inés Ñustes"})
    page.get_by_label(_("Observations")).focus()
    page.keyboard.press("Control+Enter")
    expect(page.locator(".outcome-good")).to_contain_text("Inés Ñustes")
    other = shop.guide()
    scan(page, other)
    expect(page.locator("#work")).to_have_attribute("data-step", "customer")
    page.keyboard.type(known.lower().replace("lao", ""))
    expect(page.locator("#suggestions").get_by_role("option")).to_have_count(1)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(page.locator("#prompt")).to_have_text(_("Enter receives it for %(name)s") % {"name": known})


@EVERYWHERE
def test_parcels_are_handed_over_together(visitor: Visitor, shop: Shop, language: str, size: str) -> None:
    """Each is scanned, one total, one method, change on the total; one that is refused is named and stays."""
    _ = translations(language).gettext
    phone = shop.phone()
    first, second, third = shop.receive_many(3, customer_name="Gil Robledo", customer_phone=phone)
    page = visitor.open("/mostrador", size=size, language=language)
    scan(page, phone)
    expect(page.locator(".found .lines li")).to_have_count(3)
    for parcel in (first, second, third):
        scan(page, parcel["tracking_code"])
    expect(page.locator("#total")).to_have_text("$4.500")
    scan(page, "$4000")
    expect(page.locator("#change")).to_have_text(_("short of") + " $500")
    page.get_by_role("button", name=_("Hand over")).click()
    expect(page.locator(".work > .notice-bad")).to_contain_text(_("The cash given is less than the total."))
    scan(page, "$20.000")
    expect(page.locator("#change")).to_have_text("$15.500")
    assert violations(page) == []
    other = shop.send("GET", f"/packages/{second['package_id']}")
    shop.send("POST", f"/packages/{other['package_id']}/delivery", json={"payment_method": "NEQUI", "amount": 1500})
    page.wait_for_timeout(300)
    page.keyboard.press("Enter")
    expect(page.locator(".outcome-good .huge")).to_have_text("$17.000")
    expect(page.locator(".work > .notice-bad")).to_contain_text(second["guide_number"])
    for number, parcel in enumerate((first, third)):
        link = page.locator(".outcome-good a.code").nth(number)
        expect(link).to_have_attribute("href", f"/paquetes/{parcel['package_id']}")
        package = shop.becomes(parcel["guide_number"], "DELIVERED")
        assert package["paid"] == 1500
        assert [payment["method"] for payment in package["payments"]] == ["CASH"]


def test_a_key_is_shown_where_it_works(visitor: Visitor, shop: Shop) -> None:
    """The same key chooses the type of the next parcel, and how one that is handed over is paid."""
    parcel = shop.receive()
    page = visitor.open("/mostrador")
    shown = page.locator("kbd:visible", has_text="F2")
    of_type, of_method = page.locator("#settings kbd:visible", has_text="F2"), page.locator("#work kbd:visible")
    expect(of_type).to_have_count(1)
    scan(page, parcel["guide_number"])
    expect(of_method.filter(has_text="F2")).to_have_count(1)
    expect(shown).to_have_count(1)
    page.keyboard.press("Escape")
    expect(of_type).to_have_count(1)


@EVERYWHERE
def test_another_amount_needs_its_reason(visitor: Visitor, shop: Shop, language: str, size: str) -> None:
    """The server says what is due; who charges less says why, and who collects is noted."""
    _ = translations(language).gettext
    parcel = shop.receive()
    page = visitor.open("/mostrador", size=size, language=language)
    scan(page, parcel["guide_number"])
    page.get_by_text(_("Another amount, or somebody else collects")).click()
    page.get_by_label(_("Charge in all")).fill("1.000")
    page.get_by_role("button", name=_("Hand over")).click()
    expect(page.locator(".notice-bad").last).to_contain_text(_("Another amount needs its reason."))
    page.get_by_label(_("Reason")).fill("Cliente frecuente")
    page.get_by_label(_("Who collects")).fill("Su hermana")
    page.keyboard.press("F4")
    page.get_by_role("button", name=_("Hand over")).click()
    expect(page.locator(".outcome-good .huge")).to_have_text("$1.000")
    (payment,) = shop.becomes(parcel["guide_number"], "DELIVERED")["payments"]
    assert (payment["amount"], payment["amount_reason"]) == (1000, "Cliente frecuente")
    assert (payment["method"], payment["collected_by"]) == ("NEQUI", "Su hermana")


@EVERYWHERE
def test_a_label_with_a_name_alone(visitor: Visitor, shop: Shop, language: str, size: str) -> None:
    """Somebody whom the shop doesn't know is received for by name; a phone, where it is known, goes with it."""
    _ = translations(language).gettext
    name, phone = f"Perengana {language} {size}", shop.phone()
    first, second = shop.guide(), shop.guide()
    page = visitor.open("/mostrador", size=size, language=language)
    scan(page, first)
    scan(page, name)
    expect(page.locator(".stages")).to_contain_text(_("without a phone"))
    expect(page.locator("#prompt")).to_have_text(_("Enter receives it for %(name)s") % {"name": name})
    scan(page, "CMDRECIBIR")
    scan(page, second)
    scan(page, f"{name} Dos")
    scan(page, phone)
    expect(page.locator(".stages")).to_contain_text(phone[3:])
    scan(page, "CMDRECIBIR")
    received = shop.becomes(first, "RECEIVED")
    assert (received["recipient_name"], received["customer"]["phone"]) == (name, None)
    received = shop.becomes(second, "RECEIVED")
    assert (received["recipient_name"], received["customer"]["phone"]) == (f"{name} Dos", f"+57{phone}")


@EVERYWHERE
def test_what_is_shown_is_chosen_by_its_number(visitor: Visitor, shop: Shop, language: str, size: str) -> None:
    """Of several who match one is chosen without leaving the field, and all of a customer's parcels are added."""
    _ = translations(language).gettext
    name, phone = f"Zutano {language} {size}", shop.phone()
    shop.receive_many(3, customer_name=name, customer_phone=phone)
    shop.receive(customer_name=name)
    guide = shop.guide()
    page = visitor.open("/mostrador", size=size, language=language)
    scan(page, guide)
    scan(page, name)
    expect(page.locator(".work > .notice-info")).to_contain_text(
        _("Several match: type the number beside one, more of the name, or the phone.")
    )
    numbers = page.locator(".choice", has_text=phone[3:]).locator("kbd")
    scan(page, numbers.inner_text())
    expect(page.locator("#prompt")).to_have_text(_("Enter receives it for %(name)s") % {"name": name})
    page.wait_for_timeout(300)
    page.keyboard.press("Enter")
    expect(page.locator(".outcome-good")).to_contain_text(name)
    assert shop.becomes(guide, "RECEIVED")["customer"]["phone"] == f"+57{phone}"
    scan(page, phone)
    expect(page.locator(".found .lines li")).to_have_count(4)
    scan(page, "0")
    expect(page.locator("#total")).to_have_text("$6.000")


@EVERYWHERE
def test_who_brought_it_is_remembered(visitor: Visitor, shop: Shop, language: str, size: str) -> None:
    """A carrier that is set once is that of each new guide whose code doesn't tell; who was announced stays."""
    _ = translations(language).gettext
    phone = shop.phone()
    shop.receive(customer_name="Lucía Álzate", customer_phone=phone)
    announced = shop.announce(carrier="Deprisa")["guide_number"]
    first, second = shop.guide(), f"JD{next(shop.numbers):012}"
    page = visitor.open("/mostrador", size=size, language=language)
    scan(page, "&Envía")
    expect(page.get_by_label(_("Carrier"))).to_have_value("Envía")
    for guide in (first, second):
        scan(page, guide)
        scan(page, phone)
        scan(page, "CMDRECIBIR")
    scan(page, announced)
    for guide, carrier in ((first, "Envía"), (second, "DHL"), (announced, "Deprisa")):
        assert shop.becomes(guide, "RECEIVED")["carrier"] == carrier


@EVERYWHERE
def test_a_counter_at_another_site(visitor: Visitor, shop: Shop, language: str, size: str) -> None:
    """Where there are several sites the clerk says once at which they are: and its shelf is meant."""
    _ = translations(language).gettext
    site = f"{language}-{size}".upper()
    shop.send("POST", "/sites", json={"site": site, "name": f"Sede {site}"})
    guide = shop.guide()
    here = shop.announce()["guide_number"]
    page = visitor.open("/mostrador", size=size, language=language)
    page.get_by_label(_("Site")).select_option(site)
    scan(page, here)
    place = page.locator(".outcome-good .huge").inner_text()
    assert shop.becomes(here, "RECEIVED")["site"] == site
    page.reload()
    expect(page.get_by_label(_("Site"))).to_have_value(site)
    scan(page, place)
    expect(page.locator(".hand-over .code")).to_have_text(here)
    scan(page, guide)
    expect(page.locator(".pending .chip")).to_have_text(guide)


@EVERYWHERE
def test_nothing_scanned_is_lost(visitor: Visitor, shop: Shop, language: str, size: str) -> None:
    """A new guide waits while others are scanned, and over a reload; a scanner's second Enter confirms nothing."""
    waiting, later = shop.guide(), shop.guide()
    stored = shop.receive()
    page = visitor.open("/mostrador", size=size, language=language)
    for guide in (waiting, later, "CMDAPARTE", stored["guide_number"]):
        scan(page, guide)
    page.keyboard.press("Enter")
    expect(page.locator(".pending .chip")).to_have_text([waiting, later])
    page.reload()
    expect(page.locator(".pending .chip")).to_have_text([waiting, later])
    assert shop.package(stored["package_id"])["status"] == "RECEIVED", "the second line end of a scanner"
    page.keyboard.press("Escape")
    expect(page.locator("#prompt")).to_contain_text(waiting)


@EVERYWHERE
def test_every_barcode_of_a_label_is_kept(visitor: Visitor, shop: Shop, language: str, size: str) -> None:
    """A second one while receiving is another code of that parcel, unless it is said to be another's."""
    phone = shop.phone()
    shop.receive(customer_name="Lucía Álzate", customer_phone=phone)
    guide, code, other = shop.guide(), shop.guide(), shop.guide()
    page = visitor.open("/mostrador", size=size, language=language)
    for scanned in (guide, code.lower(), guide, other):
        scan(page, scanned)
    expect(page.locator(".stages .code")).to_have_text([code, other])
    page.keyboard.press("F10")
    expect(page.locator(".receiving h2 .code")).to_have_text(other)
    expect(page.locator(".pending .chip")).to_have_text(f"{guide} +1")
    assert violations(page) == []
    page.locator(".pending .chip").click()
    expect(page.locator(".stages .code")).to_have_text(code)
    for again in (other, guide):  # what waits is at hand when it is scanned again
        scan(page, again)
        expect(page.locator(".receiving h2 .code")).to_have_text(again)
    between = shop.announce()["guide_number"]
    scan(page, between)
    assert shop.becomes(between, "RECEIVED")["other_codes"] == []
    scan(page, phone)
    scan(page, "CMDRECIBIR")
    expect(page.locator(".outcome-good")).to_contain_text(code)
    assert shop.becomes(guide, "RECEIVED")["other_codes"] == [code]
    assert shop.becomes(code, "RECEIVED")["guide_number"] == guide
    expect(page.locator(".receiving h2 .code")).to_have_text(other)  # it waited, and its turn has come


@EVERYWHERE
def test_the_second_barcode_of_an_announced_parcel(visitor: Visitor, shop: Shop, language: str, size: str) -> None:
    """It was received by the first one already; one key makes the second another code of it."""
    _ = translations(language).gettext
    announced, code = shop.announce(), shop.guide()
    page = visitor.open("/mostrador", size=size, language=language)
    scan(page, announced["guide_number"])
    scan(page, code)
    expect(page.locator(".receiving h2 .code")).to_have_text(code)
    scan(page, "cmdaparte")
    expect(page.locator(".work > .notice-good")).to_contain_text(announced["guide_number"])
    expect(page.locator(".receiving")).to_have_count(0)
    assert shop.becomes(code, "RECEIVED")["package_id"] == announced["package_id"]
    scan(page, "CMDAPARTE")
    expect(page.locator(".notice-bad").last).to_contain_text(_("There is no code to sort out."))


@EVERYWHERE
def test_position_and_observations_by_hand(visitor: Visitor, shop: Shop, language: str, size: str) -> None:
    """Typed in their fields or behind a mark, for one parcel; a place that is taken or unknown is said."""
    _ = translations(language).gettext
    place = f"A-{870 + 2 * (language == 'es') + (size == 'wide')}"
    first, second, third = (shop.announce()["guide_number"] for _ in range(3))
    page = visitor.open("/mostrador", size=size, language=language)
    page.get_by_label(_("Position"), exact=True).fill(place.lower())
    page.get_by_label(_("Position"), exact=True).press("Enter")
    expect(page.locator("#q")).to_be_focused()
    scan(page, "#Mojado")
    scan(page, first)
    expect(page.locator(".outcome-good .huge")).to_have_text(place)
    expect(page.get_by_label(_("Position"), exact=True)).to_have_value("")
    package = shop.becomes(first, "RECEIVED")
    assert (package["position"], package["observations"]) == (place, "Mojado")
    for position, said in (
        (f"@{place}", _("Position %(position)s is taken.") % {"position": place}),
        ("@ZZZ", _("There is no such position at this site.")),
    ):
        scan(page, position)
        scan(page, second)
        expect(page.locator(".work > .notice-bad")).to_contain_text(said)
    page.reload()
    expect(page.get_by_label(_("Position"), exact=True)).to_have_value("ZZZ")
    scan(page, "@")
    scan(page, second)
    assert shop.becomes(second, "RECEIVED")["observations"] is None
    scan(page, third)
    shop.becomes(third, "RECEIVED")


@EVERYWHERE
def test_the_scanner_alone(visitor: Visitor, shop: Shop, language: str, size: str) -> None:
    """Every step by a printed code: type, condition, reception, method, delivery; each does nothing out of place."""
    announced = shop.announce()
    page = visitor.open("/mostrador", size=size, language=language)
    for code in ("CMDENTREGAR", "CMDRECIBIR"):
        scan(page, code)
        expect(page.locator(".notice-bad").last).to_be_visible()
    for code in ("CMDEXTRASIZED", "CMDOPENED", f"]C1{announced['guide_number']}"):
        scan(page, code)
    package = shop.becomes(announced["guide_number"], "RECEIVED")
    assert (package["package_type"], package["condition"]) == ("EXTRA_SIZED", "OPENED")
    for code in (announced["guide_number"], "CMDCANCELAR"):
        scan(page, code)
    expect(page.locator("#work")).to_have_attribute("data-step", "idle")
    for code in (announced["guide_number"], "CMDNEQUI", "CMDRECIBIR", "CMDENTREGAR", "CMDENTREGAR"):
        scan(page, code)
    package = shop.becomes(announced["guide_number"], "DELIVERED")
    assert [payment["method"] for payment in package["payments"]] == ["NEQUI"]


@EVERYWHERE
def test_the_sheet_of_codes(visitor: Visitor, language: str, size: str) -> None:
    """Each step that the counter knows, under what it does, to be printed."""
    page = visitor.open("/mostrador/codigos", size=size, language=language)
    expect(page.locator(".code-list svg.bars")).to_have_count(len(COMMANDS))
    assert all(re.fullmatch("CMD[A-Z]+", code) for code in COMMANDS)
    assert violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@EVERYWHERE
def test_a_lost_answer_is_asked_for_again_and_nothing_is_done_twice(
    visitor: Visitor, shop: Shop, language: str, size: str
) -> None:
    """The same step under the same key: received once, and shown as received, not as something to hand over."""
    _ = translations(language).gettext
    announced = shop.announce()
    page = visitor.open("/mostrador", size=size, language=language)
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
    expect(page.locator(".outcome-good")).to_contain_text(_("Received"))
    assert lost
    assert page.locator(".hand-over").count() == 0
    shop.becomes(announced["guide_number"], "RECEIVED")
    assert len(shop.send("GET", f"/packages/{announced['package_id']}/history")["items"]) == 2
    visitor.faults.clear()  # the browser itself remarks on the lost request


@pytest.mark.chaos
@EVERYWHERE
def test_scans_at_five_a_second(
    visitor: Visitor, shop: Shop, request: pytest.FixtureRequest, language: str, size: str
) -> None:
    """As many scans, as many parcels: announced ones, and new ones for a customer who is kept."""
    pairs = 100 if request.config.getoption("--chaos", "short") == "long" else 10
    phone = shop.phone()
    shop.receive(customer_name="Edificio Prado", customer_phone=phone)
    announced = [shop.announce()["guide_number"] for _ in range(pairs)]
    new = [shop.guide() for _ in range(pairs)]
    page = visitor.open("/mostrador", size=size, language=language)
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
    for package in [shop.becomes(guide, "RECEIVED") for guide in announced + new]:  # the shelf is the other tests' too
        shop.send("POST", f"/packages/{package['package_id']}/cancellation", json={"reason": "STAFF_ERROR"})


@EVERYWHERE
def test_the_listing_leads_to_the_next_step(visitor: Visitor, shop: Shop, language: str, size: str) -> None:
    """By a link of ours a parcel is scanned; one from elsewhere only fills it in, for that must write nothing."""
    _ = translations(language).gettext
    announced = shop.announce()
    page = visitor.open(f"/mostrador?q={announced['guide_number']}", size=size, language=language)
    expect(page.locator("#q")).to_have_value(announced["guide_number"])
    assert shop.package(announced["package_id"])["status"] == "ANNOUNCED"
    page.goto(f"/paquetes?q={announced['guide_number']}")
    page.get_by_role("link", name=f"{_('Receive')} {announced['guide_number']}").click()
    expect(page.locator(".outcome-good")).to_contain_text(_("Received"))
    shop.becomes(announced["guide_number"], "RECEIVED")


@EVERYWHERE
def test_what_is_over_leads_to_its_page(visitor: Visitor, shop: Shop, language: str, size: str) -> None:
    """A parcel that was handed over already is said to be, and its page takes the delivery back."""
    parcel = shop.receive()
    due = {"payment_method": "CASH", "amount": 1500}
    shop.send("POST", f"/packages/{parcel['package_id']}/delivery", json=due)
    shop.becomes(parcel["guide_number"], "DELIVERED")
    page = visitor.open("/mostrador", who="ana", size=size, language=language)
    scan(page, parcel["guide_number"])
    page.locator(".outcome-bad").get_by_role("link", name=parcel["guide_number"]).click()
    expect(page.get_by_text(translations(language).gettext("Take the delivery back")).first).to_be_visible()


@EVERYWHERE
def test_keys_are_shown_and_work(visitor: Visitor, language: str, size: str) -> None:
    """`?` shows them; whatever key is pressed where nothing is typed goes to the field."""
    page = visitor.open("/mostrador", size=size, language=language)
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_be_visible()
    assert violations(page) == []
    page.keyboard.press("Escape")
    expect(page.locator("#q")).to_be_focused()
    page.locator("#sound").focus()
    page.keyboard.type("abc")
    expect(page.locator("#q")).to_have_value("abc")
    page.locator("#sound").focus()
    page.keyboard.press("Control+/")
    expect(page.locator("#q")).to_be_focused()
    expect(page.locator("#sound")).to_have_attribute("aria-pressed", re.compile("true"))


@EVERYWHERE
def test_who_only_reads_has_no_counter(visitor: Visitor, language: str, size: str) -> None:
    """The page is refused, and the bar doesn't offer it."""
    _ = translations(language).gettext
    page = visitor.open("/mostrador", who="vera", size=size, language=language)
    expect(page.get_by_role("heading", name=_("This isn't yours to do"))).to_be_visible()
    page.goto("/paquetes")
    expect(page.get_by_role("link", name=_("Counter"))).to_have_count(0)
    visitor.faults.clear()  # the browser itself remarks on the 403
