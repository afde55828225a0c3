"""What an ADMIN decides: who may sign in, how long the shelf is, and what parcels cost."""

import re
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime

import httpx2
import pytest
from playwright.sync_api import expect

from tests.web.axe import violations
from tests.web.conftest import EVERYWHERE, Visitor
from tests.web.shop import PASSWORD, Shop
from web.localization import translations
from web.tariffs import in_force

HEADERS = {"Sec-Fetch-Site": "same-origin", "Accept": "text/html"}


@pytest.fixture
def admin(shop: Shop) -> Iterator[httpx2.Client]:
    """A browser without scripts, of an ADMIN."""
    with httpx2.Client(base_url=shop.address, headers=HEADERS, timeout=30) as client:
        answer = client.post("/entrar", data={"username": "ana", "password": PASSWORD})
        client.cookies.set("paqueteria_session", answer.cookies["paqueteria_session"])
        yield client


def send(client: httpx2.Client, path: str, **fields: object) -> httpx2.Response:
    """Send a form under a key of its own."""
    form = {"key": str(uuid.uuid4())} | {name: str(value) for name, value in fields.items()}
    return client.post(f"/administracion/{path}", data=form)


@EVERYWHERE
def test_it_is_for_administrators_and_can_be_read_by_each(visitor: Visitor, language: str, size: str) -> None:
    """Nobody else is shown it, or the way there."""
    page = visitor.open("/administracion", who="ana", size=size, language=language)
    assert violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    other = visitor.open("/paquetes", who="oscar")
    assert other.locator("nav a[href='/administracion']").count() == 0
    answer = other.request.get("/administracion", headers={"Accept": "text/html"})
    assert answer.status == 403


@EVERYWHERE
def test_somebody_is_added_by_hand(visitor: Visitor, language: str, size: str) -> None:
    """The form makes them a member of staff; a name that is taken is said, and what was typed stays."""
    _ = translations(language).gettext
    name = f"Nuevo {language} {size}"
    page = visitor.open("/administracion", who="ana", size=size, language=language)
    form = page.locator("form", has=page.get_by_label(_("User name")))
    form.get_by_label(_("User name")).fill("oscar")
    form.get_by_label(_("Full name")).fill(name)
    form.get_by_label(_("Role")).select_option("VIEWER")
    form.get_by_label(_("Password")).fill(PASSWORD)
    form.get_by_role("button").click()
    expect(page.get_by_role("alert")).to_be_visible()
    expect(form.get_by_label(_("Full name"))).to_have_value(name)
    expect(form.get_by_label(_("Role"))).to_have_value("VIEWER")
    form.get_by_label(_("User name")).fill(f"nuevo-{language}-{size}")
    form.get_by_label(_("Password")).fill(PASSWORD)
    form.get_by_role("button").click()
    expect(page.get_by_text(name)).to_be_visible()
    visitor.faults.clear()  # the browser itself remarks on the 409


def test_a_member_of_staff_comes_and_goes(admin: httpx2.Client, shop: Shop) -> None:
    """Who is added can sign in, and who may no longer can't; an older form changes nothing."""
    added = send(admin, "personal", username="nora", full_name="Nora Paz", role="OPERATOR", password=PASSWORD)
    assert added.status_code == 303
    credentials = {"username": "nora", "password": PASSWORD}
    assert shop.client.post("/api/v1/auth/token", data=credentials).status_code == 200
    (nora,) = [who for who in shop.send("GET", "/staff")["items"] if who["username"] == "nora"]
    change = {"full_name": "Nora Paz", "role": "VIEWER", "version": nora["version"]}
    path = f"personal/{nora['staff_id']}"
    assert send(admin, path, **change).status_code == 303
    assert shop.client.post("/api/v1/auth/token", data=credentials).status_code == 401
    assert send(admin, path, **change, active="true").status_code == 412


def test_the_last_administrator_stays(admin: httpx2.Client, shop: Shop) -> None:
    """The service's refusal is said in words."""
    (ana,) = [who for who in shop.send("GET", "/staff")["items"] if who["username"] == "ana"]
    form = {"full_name": "Ana Restrepo", "role": "OPERATOR", "active": "true", "version": ana["version"]}
    answer = send(admin, f"personal/{ana['staff_id']}", **form)
    assert (answer.status_code, "último administrador" in answer.text) == (409, True)


def test_a_site_opens_and_is_told_of(admin: httpx2.Client, shop: Shop) -> None:
    """With a shelf of its own; its hours show to everybody; an older form changes nothing, and a code is used once."""
    new = {"site": "norte-1", "name": "Sede Norte", "address": "Calle 100 # 7-33", "phone": "", "opening_hours": ""}
    assert send(admin, "sedes", **new).status_code == 303
    assert 'name">Nombre</label>' in admin.get("/administracion", headers={"Accept-Language": "es"}).text, (
        "a site has a name, and no user's"
    )
    answer = send(admin, "sedes", **new)
    assert (answer.status_code, "Ya hay una sede con este código" in answer.text) == (409, True)
    assert len(shop.send("GET", "/sites/NORTE-1/positions")["items"]) == 100
    assert send(admin, "posiciones", site="NORTE-1", prefix="N-", first=1, last=2, width=1).status_code == 303
    again = send(admin, "posiciones", site="NORTE-1", prefix="N-", first=2, last=2, width=1)
    assert (again.status_code, "ya tiene una posición" in again.text) == (409, True)
    change = new | {"opening_hours": "Lunes a sábado, 8 a 18", "version": 2}
    assert send(admin, "sedes/NORTE-1", **change).status_code == 303
    assert send(admin, "sedes/NORTE-1", **change).status_code == 412
    (site,) = [site for site in shop.send("GET", "/sites")["items"] if site["site"] == "NORTE-1"]
    assert (site["opening_hours"], site["phone"], site["version"]) == ("Lunes a sábado, 8 a 18", None, 3)
    nameless = send(admin, "sedes/NORTE-1", **change | {"name": "", "version": 3})
    assert (nameless.status_code, "hasta 100 caracteres" in nameless.text) == (422, True)
    assert send(admin, "sedes/NADIE", **change).status_code == 404
    for path in ("sedes", "sedes/NORTE-1"):
        admin.cookies.clear()
        assert send(admin, path, **change).headers["Location"].startswith("/entrar")


def test_shelf_and_tariff(admin: httpx2.Client, shop: Shop) -> None:
    """Amounts are read as people write them; what can't be is said, and what was is in force from its instant."""
    assert send(admin, "posiciones", site="PRINCIPAL", prefix="Z-", first=1, last=3, width=2).status_code == 303
    again = send(admin, "posiciones", site="PRINCIPAL", prefix="Z-", first=3, last=3, width=2)
    assert again.status_code == 409
    fees = {"normal": "$ 1.800", "extra_sized": "2500", "daily_storage": "1.000"}
    assert send(admin, "tarifas", **fees, valid_from="2020-01-01T08:00").status_code == 422
    assert send(admin, "tarifas", **fees | {"normal": "mil"}).status_code == 422
    assert send(admin, "tarifas", **fees, valid_from="2099-01-01T08:00").status_code == 303
    tariff = shop.newest_tariff("2099-01-01T13:00:00.000000Z")
    assert tariff["base_fees"]["NORMAL"] == 1800
    assert re.search(r"\$1\.800", admin.get("/administracion").text)
    assert "$1.800" not in admin.get("/").text  # what it costs today


def test_the_tariff_in_force_is_the_last_that_has_begun() -> None:
    """Neither an older one, nor one that was only decided upon."""
    tariffs = [{"valid_from": f"20{year}-01-01T05:00:00.000000Z"} for year in (10, 20, 30)]
    assert in_force(tariffs, datetime(2019, 12, 31, tzinfo=UTC)) is tariffs[0]
    assert in_force(tariffs, datetime(2020, 1, 1, 5, tzinfo=UTC)) is tariffs[1]
    assert in_force(tariffs, datetime(2029, 1, 1, tzinfo=UTC)) is tariffs[1]
    assert in_force(tariffs, datetime(2009, 1, 1, tzinfo=UTC)) is None
