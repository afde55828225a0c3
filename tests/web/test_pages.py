"""What holds for every page: languages, weight, and that nothing comes from elsewhere."""

import re
from pathlib import Path
from typing import Any

import pytest
from babel.messages.extract import DEFAULT_KEYWORDS, extract_from_dir
from babel.messages.pofile import read_po
from fastapi.testclient import TestClient
from playwright.sync_api import expect

from infra.auth import Role
from infra.settings import Settings
from queries import list_sites
from tests.support import Clock
from tests.web.conftest import Visitor
from tests.web.shop import Shop
from web import localization
from web.api import PAGES, create_app
from web.routing import PageRoute

SHIFT = 0.01
"""Of the window; a tenth of what is called good. Below it are counts that grow while the page is looked at."""

LARGEST = 100_000
"""Bytes of a first page with all that belongs to it."""


def test_every_sentence_is_translated() -> None:
    """The catalogue has a Spanish sentence, with the same places to fill in, for all that the pages say."""
    with Path("web/locale/es/LC_MESSAGES/messages.po").open("rb") as file:
        catalogue = read_po(file, locale="es")
    methods = [("**.py", "python"), ("templates/**.html", "jinja2")]
    said = extract_from_dir("web", methods, keywords=DEFAULT_KEYWORDS | {"N_": None})
    assert {message for _, _, message, _, _ in said} == {message.id for message in catalogue if message.id}
    for message in catalogue:
        if message.id:
            strings = message.string if isinstance(message.string, tuple) else (message.string,)
            assert all(strings), f"{message.id} has no translation"
            assert not list(message.check(catalogue)), message.id


def places_of(parcel: dict[str, Any]) -> list[str]:
    """Name the pages of a parcel and of whose it is."""
    return [f"/paquetes/{parcel['package_id']}", f"/clientes/{parcel['customer']['customer_id']}"]


@pytest.mark.parametrize("size", ["wide", pytest.param("narrow", marks=pytest.mark.long)])
def test_a_first_page_is_light_and_comes_from_us_alone(visitor: Visitor, shop: Shop, size: str) -> None:
    """Under 100 KB in all, nothing from another host, nothing that moves while it comes."""
    received = shop.receive_many(50)[0]
    parcel = shop.package(received["package_id"])  # projected: no row comes while the page is looked at
    public = ["/", "/anunciar", f"/seguimiento/{parcel['tracking_code']}", "/entrar"]
    staff = ["/paquetes", "/mostrador", *places_of(parcel), "/resumen", "/administracion"]
    sizes: dict[str, int] = {}
    for path in public + staff:
        visitor.open("/health/live", who=None if path in public else "ana", size=size)
        page = visitor.contexts[-1].new_page()
        sizes.clear()
        page.on("requestfinished", lambda request: sizes.update({request.url: request.sizes()["responseBodySize"]}))
        page.goto(path, wait_until="load")
        if page.locator("#live").count():
            expect(page.locator("#live")).to_have_class(re.compile("is-live"))
        assert all(url.startswith(shop.address) for url in sizes)
        assert 0 < sum(sizes.values()) < LARGEST, sizes
        assert sum(page.evaluate(SHIFTS)) < SHIFT, path
        page.context.close()


SHIFTS = """() => new Promise((done) => {
    const told = (list) => done(list.getEntries().map((entry) => entry.value));
    new PerformanceObserver(told).observe({ type: "layout-shift", buffered: true });
    setTimeout(done, 200, []);
})"""
"""Gives how far what was shown has moved by itself since the page began."""


HIDDEN = """() => {
    const at = document.activeElement.closest("label") ?? document.activeElement;
    const box = at.getBoundingClientRect();
    const top = document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2);
    return at === document.body || at.contains(top) || top?.contains(at) ? null : at.outerHTML.slice(0, 100);
}"""
"""Names what has the focus while something else lies over it."""


@pytest.mark.parametrize("size", [(320, 256), (640, 400)])
def test_every_page_magnified(visitor: Visitor, shop: Shop, size: tuple[int, int]) -> None:
    """At 400 % and 200 % of a desk's window nothing goes past its edge, and what is tabbed to isn't covered."""
    long = {"customer_name": "María Fernanda Castañeda", "guide_number": "X" * 36 + shop.guide()}
    shop.receive_many(30)
    parcel = shop.package(shop.receive(**long)["package_id"])
    paths = ["/", "/anunciar", f"/seguimiento/{parcel['tracking_code']}", "/mostrador", "/paquetes?sort=owed"]
    page = visitor.open("/entrar", who="ana")
    page.set_viewport_size({"width": size[0], "height": size[1]})
    for path in [*paths, *places_of(parcel), "/resumen", "/administracion"]:
        page.goto(path)
        assert page.evaluate("document.documentElement.scrollWidth") <= size[0], path
        page.evaluate("[...document.querySelectorAll('main :is(a, button, summary)')].pop().focus()")
        for _ in range(20):
            page.keyboard.press("Shift+Tab")
            assert page.evaluate(HIDDEN) is None, path


def test_every_page_has_its_role() -> None:
    """A page that nobody gave a role to would be refused to everybody: there is none."""
    routes = [route for router in PAGES for route in router.routes if isinstance(route, PageRoute)]
    assert routes
    assert all(route.is_marked for route in routes)
    public = {route.path for route in routes if route.access is None}
    assert public == {
        "/",
        "/anunciar",
        "/politica-de-datos",
        "/seguimiento",
        "/seguimiento/{code}",
        "/entrar",
        "/salir",
    }
    assert all(route.access in (None, *Role) for route in routes)


def test_what_is_wrong_is_a_page_to_people_and_a_problem_to_programs(settings: Settings, clock: Clock) -> None:
    """Under the same policy as every page, and files keep for good under their own name alone."""
    with TestClient(create_app(settings, clock)) as client:
        missing = client.get("/no-such-page", headers={"Accept": "text/html"})
        assert (missing.status_code, "Aquí no hay nada" in missing.text) == (404, True)
        assert "script-src 'self'" in missing.headers["Content-Security-Policy"]
        assert client.get("/no-such-page").headers["Content-Type"] == "application/problem+json"
        assert "There is nothing here" in client.get("/x?lang=en", headers={"Accept": "text/html"}).text
        style = re.search(r'href="(/assets/[^"]+\.css)"', missing.text)
        assert style is not None
        assert "immutable" in client.get(style[1]).headers["Cache-Control"]
        assert client.get(style[1].replace("/assets/", "/assets/0")).status_code == 404


def test_what_nobody_foresaw_is_a_page_in_the_readers_language(
    settings: Settings, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the id under which the log tells of it; to a program, and by the API, it is a problem."""
    monkeypatch.setattr(list_sites, "fetch", lambda _: 1 / 0)
    with TestClient(create_app(settings, clock), raise_server_exceptions=False) as client:
        for language, said in (("es", "Algo salió mal"), ("en", "Something went wrong")):
            failed = client.get(f"/?lang={language}", headers={"Accept": "text/html"})
            assert (failed.status_code, said in failed.text) == (500, True)
            assert failed.headers["X-Request-Id"] in failed.text
            assert "script-src 'self'" in failed.headers["Content-Security-Policy"]
        assert client.get("/").headers["Content-Type"] == "application/problem+json"
        by_api = client.get("/api/v1/sites", headers={"Accept": "text/html"})
        assert (by_api.status_code, by_api.headers["Content-Type"]) == (500, "application/problem+json")


def test_numbers_dates_and_phones_as_the_shop_writes_them() -> None:
    """Pesos with dots, Bogota's clock, and phones as people say them."""
    at = localization.instant("2026-11-24T04:30:00.000000Z")
    assert [localization.pesos(amount) for amount in (0, 1500, -2_000_000)] == ["$0", "$1.500", "-$2.000.000"]
    assert localization.exact(at, "es") == "lunes 23 de noviembre de 2026, 23:30"
    assert localization.exact(at, "en") == "Monday, 23 November 2026, 23:30"
    assert localization.short(at, at, "es") == "23:30"
    assert localization.phone("+573001234567") == "300 1234567"
    assert localization.phone("+14155552671") == "+1 415-555-2671"
