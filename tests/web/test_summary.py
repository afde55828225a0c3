"""The shop at a glance: what it says adds up, and each number leads to the parcels that it counts."""

import re
from datetime import datetime

from playwright.sync_api import expect

from infra.clock import BOGOTA
from tests.web.axe import violations
from tests.web.conftest import EVERYWHERE, Visitor
from tests.web.shop import Shop
from web.localization import pesos, translations
from web.pages.summary import PLACES


@EVERYWHERE
def test_counts_shelf_and_money(visitor: Visitor, shop: Shop, language: str, size: str) -> None:
    """The day's money by method, person and day; a place on the shelf leads to its parcel, a count to its listing."""
    parcel, paid = shop.receive(), shop.receive()
    due = {"payment_method": "DAVIPLATA", "amount": 1500}
    shop.send("POST", f"/packages/{paid['package_id']}/delivery", json=due)
    summary = shop.send("GET", "/summary")
    by_method = sum(row["amount"] for row in summary["income"] if row["method"] == "DAVIPLATA")
    taken_in = sum(row["amount"] for row in summary["income"])
    (ana,) = {row["staff_id"] for row in summary["income"] if row["method"] == "DAVIPLATA"}
    by_ana = sum(row["amount"] for row in summary["income"] if row["staff_id"] == ana)
    page = visitor.open("/resumen", who="vera", size=size, language=language)
    assert violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    expect(page.locator("tr", has_text="Daviplata")).to_contain_text(pesos(by_method))
    for amount, chart in (
        (taken_in, "siete días" if language == "es" else "seven days"),
        (by_ana, "por persona" if language == "es" else "by person"),
    ):
        expect(page.locator("table.chart", has_text=chart)).to_contain_text(pesos(amount))
    codes = [place["code"] for place in shop.send("GET", "/sites/PRINCIPAL/positions")["items"]]
    first = codes.index(parcel["position"]) // PLACES * PLACES
    page.goto(f"/resumen?puesto={first}")
    place = page.locator(f".shelf a[href='/paquetes/{parcel['package_id']}']")
    expect(place).to_contain_text(parcel["position"])
    page.get_by_role("link", name="Puestos siguientes" if language == "es" else "Places after").click()
    expect(page.locator(".shelf .place").first).to_contain_text(codes[first + PLACES])
    in_storage = page.locator(".tile[href*='status=RECEIVED']")
    count = in_storage.locator("b").inner_text()
    in_storage.click()
    expect(page.locator("#count")).to_have_text(re.compile(rf" (de|of) {re.escape(count)}$"))


@EVERYWHERE
def test_it_follows_the_shop(visitor: Visitor, shop: Shop, language: str, size: str) -> None:
    """What somebody receives is counted and on the shelf without the page being asked for, and the focus stays."""
    shop.package(shop.receive()["package_id"])
    page = visitor.open("/resumen", who="vera", size=size, language=language)
    expect(page.locator("#live")).to_have_class(re.compile("is-live"))
    tile = page.locator(".tile[href*='status=RECEIVED']")
    count = int(re.sub(r"\D", "", tile.locator("b").inner_text()))
    tile.focus()
    shop.receive()
    separator = "." if language == "es" else ","
    expect(tile.locator("b")).to_have_text(f"{count + 1:,}".replace(",", separator))
    expect(tile).to_be_focused()


@EVERYWHERE
def test_income_leads_to_its_parcels(visitor: Visitor, shop: Shop, language: str, size: str) -> None:
    """By day, method and person: its rows bring in the bar's amount, right after a delivery was taken back."""
    _ = translations(language).gettext
    paid, undone = shop.receive(), shop.receive()
    due = {"payment_method": "NEQUI", "amount": 1500}
    for parcel in (paid, undone):
        shop.send("POST", f"/packages/{parcel['package_id']}/delivery", json=due)
    shop.send("POST", f"/packages/{undone['package_id']}/delivery-reversal", json={"reason": "Vecino"})
    shop.package(undone["package_id"])
    page = visitor.open("/resumen", who="vera", size=size, language=language)
    for chart, row, filters in (
        (_("Income of the day by method"), "Nequi", 3),
        (_("Income of the day by person"), "Ana Restrepo", 3),
        (_("Income of seven days"), None, 2),
    ):
        lines = page.locator("table.chart", has_text=chart).locator("tbody tr")
        line = lines.filter(has_text=row) if row else lines.last
        amount = line.locator(".figure").inner_text().split()[0]
        line.get_by_role("link").last.click()
        expect(page.locator(".applied li:has(.unseen)")).to_have_count(filters)
        expect(page.locator("#rows")).to_contain_text(paid["guide_number"])
        expect(page.locator("#rows")).not_to_contain_text(undone["guide_number"])
        brought = page.locator(".cell-due b").all_inner_texts()
        assert pesos(sum(int(text.replace("$", "").replace(".", "")) for text in brought)) == amount
        assert violations(page) == []
        page.goto("/resumen")


@EVERYWHERE
def test_an_hour_and_a_stay_lead_to_their_parcels(visitor: Visitor, shop: Shop, language: str, size: str) -> None:
    """As many as the chart says, and the filters that lead there can be taken away one by one."""
    came, left = shop.receive(), shop.receive()
    due = {"payment_method": "CASH", "amount": 1500}
    shop.send("POST", f"/packages/{left['package_id']}/delivery", json=due)
    shop.package(left["package_id"])
    page = visitor.open("/resumen", who="vera", size=size, language=language)
    at = datetime.fromisoformat(came["received_at"]).astimezone(BOGOTA)
    for chart, row, filters in (
        ("por hora" if language == "es" else "by hour", f"{at.hour}:00", 4),
        ("se entrega" if language == "es" else "handed over", "24 h", 5),
    ):
        line = page.locator("table.chart", has_text=chart).locator("tr", has_text=row)
        count = line.locator(".figure").inner_text()
        line.get_by_role("link").click()
        expect(page.locator("#count")).to_have_text(re.compile(rf" (de|of) {re.escape(count)}$"))
        expect(page.locator(".applied li:has(.unseen)")).to_have_count(filters)
        expect(page.locator("#rows")).to_contain_text(left["guide_number"])
        page.locator(".applied li:has(.unseen) a").last.click()
        expect(page.locator(".applied li:has(.unseen)")).to_have_count(filters - 1)
        page.goto("/resumen")
