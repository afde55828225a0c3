"""A customer's own page: what the shop knows of them, put right by whoever stands before them."""

import uuid

import httpx2
from playwright.sync_api import expect

from tests.web.axe import violations
from tests.web.conftest import EVERYWHERE, Visitor
from tests.web.shop import PASSWORD, Shop
from web.localization import translations


@EVERYWHERE
def test_what_is_known_is_put_right(visitor: Visitor, shop: Shop, language: str, size: str) -> None:
    """From a parcel to its customer; a phone that is another's is said, and what was typed stays."""
    _ = translations(language).gettext
    taken = shop.receive(customer_name="Otra Persona")["customer"]["phone"]
    parcel = shop.receive(customer_name="Lucia Alzate")
    shop.package(parcel["package_id"])
    page = visitor.open(f"/paquetes/{parcel['package_id']}", size=size, language=language)
    page.get_by_role("link", name=_("The customer's details")).click()
    assert violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    for name, text in ((_("Name"), "Lucía Álzate"), (_("Building"), "Torre Azul"), (_("Phone"), taken)):
        page.get_by_label(name, exact=True).fill(text)
    page.get_by_role("button", name=_("Save")).click()
    expect(page.get_by_role("alert")).to_have_text(_("Another customer has this phone."))
    expect(page.get_by_label(_("Building"), exact=True)).to_have_value("Torre Azul")
    page.get_by_label(_("Phone"), exact=True).fill(parcel["customer"]["phone"])
    page.get_by_role("button", name=_("Save")).click()
    expect(page.get_by_role("heading", name="Lucía Álzate")).to_be_visible()
    page.get_by_role("link", name=_("All parcels of this customer")).click()
    expect(page.locator("#rows")).to_contain_text(parcel["guide_number"])
    customer = shop.send("GET", f"/customers/{parcel['customer']['customer_id']}")
    assert (customer["name"], customer["building"]) == ("Lucía Álzate", "Torre Azul")
    visitor.faults.clear()  # the browser itself remarks on the 409


def test_who_only_reads_changes_nobody(shop: Shop) -> None:
    """They see what is known and no form; one that is sent all the same is refused, and so is an older one."""
    customer_id = shop.receive()["customer"]["customer_id"]
    headers = {"Sec-Fetch-Site": "same-origin", "Accept": "text/html"}
    form = {"key": str(uuid.uuid4()), "version": "1", "name": "Otro Nombre"}
    for who, sent, status in (("vera", form, 403), ("oscar", form | {"version": "7"}, 412)):
        with httpx2.Client(base_url=shop.address, headers=headers, timeout=30) as browser:
            browser.post("/entrar", data={"username": who, "password": PASSWORD})
            assert ('name="notes"' in browser.get(f"/clientes/{customer_id}").text) == (who == "oscar")
            assert browser.post(f"/clientes/{customer_id}", data=sent).status_code == status
    assert shop.send("GET", f"/customers/{customer_id}")["name"] == "Íñigo Peña"
