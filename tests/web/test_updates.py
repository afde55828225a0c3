"""Pages that follow the shop: nothing is missed between a page's answer and the beginning of its updates."""

import re

import pytest
from playwright.sync_api import Route, expect

from tests.web.conftest import Visitor
from tests.web.shop import Shop


@pytest.mark.parametrize("address", ["/paquetes?q={guide_number}", "/paquetes/{package_id}"])
def test_what_changes_before_the_stream_begins_shows(visitor: Visitor, shop: Shop, address: str) -> None:
    """Another person delivers the parcel after the page was read and before its stream is open."""
    parcel = shop.package(shop.receive()["package_id"])
    page = visitor.open("/health/live")

    def deliver_first(route: Route) -> None:
        due = {"payment_method": "CASH", "amount": parcel["due"]}
        shop.send("POST", f"/packages/{parcel['package_id']}/delivery", json=due)
        shop.becomes(parcel["guide_number"], "DELIVERED")
        route.continue_()

    page.route("**/api/v1/updates**", deliver_first, times=1)
    page.goto(address.format(**parcel))
    expect(page.locator("#live")).to_have_class(re.compile("is-live"))
    expect(page.locator(".status").first).to_have_text("Entregado")
