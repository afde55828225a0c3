"""What everybody may do without signing in, and without any script."""

import re
from collections.abc import Iterator

import httpx2
import pytest
from fastapi.testclient import TestClient
from playwright.sync_api import expect

from infra.settings import Settings
from tests.support import Clock
from tests.web.axe import violations
from tests.web.conftest import EVERYWHERE, Visitor
from tests.web.shop import Shop
from web.api import create_app


@pytest.fixture
def public(shop: Shop) -> Iterator[httpx2.Client]:
    """A browser without scripts, as nobody."""
    headers = {"Sec-Fetch-Site": "same-origin", "Accept": "text/html"}
    with httpx2.Client(base_url=shop.address, headers=headers, timeout=30) as client:
        yield client


@EVERYWHERE
def test_announced_without_a_script_and_followed(visitor: Visitor, shop: Shop, size: str, language: str) -> None:
    """From the start to the parcel's own page, by nothing but forms and links; every page can be read by anybody."""
    page = visitor.open("/", who=None, size=size, language=language, script=False)
    page.get_by_role("link", name="Anunciar un paquete" if language == "es" else "Announce a parcel").click()
    guide, phone = shop.guide(), shop.phone()
    page.locator("#guide_number").fill(guide)
    page.locator("#customer_name").fill("Zoë Núñez Gil")
    page.locator("#customer_phone").fill(phone)
    page.get_by_role("checkbox").check()
    page.get_by_role("button", name="Anunciarlo" if language == "es" else "Announce it").click()
    expect(page).to_have_url(re.compile(r"/seguimiento/[2-9A-HJKMNP-Z]{4}-[2-9A-HJKMNP-Z]{4}$"))
    expect(page.get_by_role("main")).to_contain_text("Z*** N*** G***")
    expect(page.get_by_role("main")).not_to_contain_text(phone)
    seen = visitor.open("/", who=None, size=size, language=language)
    for path in ("/", "/anunciar", "/politica-de-datos", page.url, "/seguimiento/ZZZZ-ZZZZ"):
        seen.goto(path)
        assert violations(seen) == [], path
        assert seen.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
    visitor.faults.clear()  # the browser itself remarks on the 404


def test_what_is_wrong_is_said_beside_its_field_and_what_was_typed_stays(public: httpx2.Client) -> None:
    """Nothing is announced without a guide, a phone and the consent."""
    form = {"guide_number": "X", "customer_name": "Ana María", "customer_phone": "12"}
    answer = public.post("/anunciar", data=form)
    assert answer.status_code == 422
    for name in ("guide_number", "customer_phone", "data_consent"):
        assert f'id="{name}-error"' in answer.text
    assert 'value="Ana María"' in answer.text
    assert 'id="customer_name-error"' not in answer.text


def test_a_form_sent_twice_announces_once(public: httpx2.Client, shop: Shop) -> None:
    """The same form leads to the same parcel; another form of the same guide is refused."""
    key = re.findall(r'name="key" value="([^"]+)"', public.get("/anunciar").text)[0]
    form = {"customer_name": "Ana Gil", "customer_phone": shop.phone(), "data_consent": "true"}
    form |= {"key": key, "guide_number": shop.guide()}
    first, second = (public.post("/anunciar", data=form) for _ in range(2))
    assert (first.status_code, second.headers["Location"]) == (303, first.headers["Location"])
    again = public.post("/anunciar", data=form | {"key": "another-form"})
    assert again.status_code == 409
    assert 'id="guide_number-error"' in again.text
    assert "another-form" not in again.text  # its answer is kept under its key


def test_due_now_why_and_from_when_more(public: httpx2.Client, shop: Shop) -> None:
    """Each line of the fee, the instant until which it holds, and what it is after that; nothing tells whose it is."""
    parcel = shop.receive(customer_name="Rosa Luna", package_type="EXTRA_SIZED")
    shop.package(parcel["package_id"])  # by now everybody sees it
    page = public.get(f"/seguimiento/{parcel['tracking_code'].lower().replace('-', '')}").text
    for text in ("$2.000", "$3.000", "Tarifa base", "Horario", "R*** L***", 'class="qr"'):
        assert text in page
    for secret in ("Rosa", parcel["guide_number"], parcel["customer"]["phone"], parcel["package_id"]):
        assert secret not in page


def test_unknown_and_unreadable_codes_look_the_same(public: httpx2.Client) -> None:
    """Nobody learns from a refusal whether there is such a code."""
    pages = set()
    for code in ("ZZZZ-ZZZZ", "0000-0000", "x", "%00", "%ff"):
        answer = public.get(f"/seguimiento/{code}", params={"lang": "es"})
        assert answer.status_code == 404, code
        pages.add(re.sub(r'value="[^"]*"|href="[^"]*"', "", answer.text))
    assert len(pages) == 1


def test_guessing_by_the_page_is_throttled_as_by_the_api(settings: Settings, clock: Clock) -> None:
    """One count for both ways: who has used up the one can't go on by the other."""
    throttled = settings.model_copy(update={"throttle_track": "2/minute"})
    with TestClient(create_app(throttled, clock)) as client:
        assert client.get("/seguimiento/ZZZZ-ZZZZ").status_code == 404
        assert client.get("/api/v1/track/ZZZZ-ZZZZ").status_code == 404
        refused = client.get("/seguimiento/ZZZZ-ZZZZ")
        assert (refused.status_code, "Retry-After" in refused.headers) == (429, True)


def test_announcements_are_throttled_by_the_page_as_by_the_api(settings: Settings, clock: Clock) -> None:
    """One count for both ways here too; the page keeps what was typed."""
    throttled = settings.model_copy(update={"throttle_announce": "2/minute"})
    person = {"customer_name": "Ana Gil", "customer_phone": "3001234567", "data_consent": True}
    headers = {"Sec-Fetch-Site": "same-origin"}
    with TestClient(create_app(throttled, clock), follow_redirects=False, headers=headers) as client:
        page = [client.post("/anunciar", data=person | {"guide_number": f"GUIA-{n}"}) for n in (1, 2)]
        assert [answer.status_code for answer in page] == [303, 303]
        by_api = client.post("/api/v1/packages", json=person | {"guide_number": "GUIA-3"})
        assert by_api.status_code == 429
        client.cookies.clear()  # nobody projects here what the cookie waits for
        by_page = client.post("/anunciar", data=person | {"guide_number": "GUIA-3"})
        assert (by_page.status_code, 'value="Ana Gil"' in by_page.text) == (429, True)
