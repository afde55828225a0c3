"""Signing in by the page: a session for one browser, that nobody else can use and that ends."""

from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient
from playwright.sync_api import expect

from commands.add_staff import add_staff_account
from db.pools import connect
from infra.auth import Role
from infra.settings import Settings
from tests.support import Clock
from tests.web.axe import violations
from tests.web.conftest import EVERYWHERE, Visitor
from tests.web.shop import PASSWORD, run_apart
from web.api import create_app
from web.localization import translations


@pytest.mark.parametrize("size", ["wide", "narrow"])
@pytest.mark.parametrize(("language", "button"), [("es", "Entrar"), ("en", "Sign in")])
def test_in_and_out(visitor: Visitor, size: str, language: str, button: str) -> None:
    """Whoever asks for a page signs in first, arrives at the page that was asked for, and can leave again."""
    page = visitor.open("/paquetes?q=nadie", who=None, size=size, language=language)
    expect(page).to_have_url("/entrar?next=/paquetes%3Fq%3Dnadie" + ("%26lang%3Den" if language == "en" else ""))
    if language == "en":
        page.get_by_role("link", name="English").click()
    assert violations(page) == []
    page.get_by_label("Usuario" if language == "es" else "User name").fill("Oscar")
    page.get_by_label("Contraseña" if language == "es" else "Password").fill(PASSWORD)
    page.get_by_role("button", name=button).click()
    expect(page.locator("#q")).to_have_value("nadie")
    page.get_by_role("button", name="Salir" if language == "es" else "Sign out").click()
    expect(page.get_by_text("Has salido." if language == "es" else "You have signed out.")).to_be_visible()
    page.goto("/paquetes")
    expect(page.get_by_role("button", name=button)).to_be_visible()


@EVERYWHERE
def test_a_wrong_password_is_said_and_the_name_kept(visitor: Visitor, language: str, size: str) -> None:
    """What was typed stays, and the cursor waits where it is needed."""
    _ = translations(language).gettext
    page = visitor.open("/entrar", who=None, size=size, language=language)
    page.get_by_label(_("User name")).fill("oscar")
    page.get_by_label(_("Password")).fill("otra-clave-cualquiera")
    page.get_by_label(_("Password")).press("Enter")
    expect(page.get_by_role("alert")).to_have_text(_("The name or the password is wrong."))
    expect(page.get_by_label(_("User name"))).to_have_value("oscar")
    expect(page.get_by_label(_("Password"))).to_be_focused()
    visitor.faults.clear()  # the browser itself remarks on the 401


@pytest.fixture
def client(settings: Settings, clock: Clock) -> TestClient:
    return TestClient(create_app(settings, clock), follow_redirects=False)


def test_the_cookie_counts_for_our_own_pages_alone(client: TestClient) -> None:
    """What writes must come from our origin, by the header that no script can set, or by Origin."""
    with client:
        elsewhere = {"Origin": "https://elsewhere.example"}
        for headers in (elsewhere, {"Origin": "null"}, {}, {"Sec-Fetch-Site": "same-site"}):
            assert client.post("/salir", headers=headers).status_code == 403
        for headers in ({"Origin": "http://testserver"}, elsewhere | {"Sec-Fetch-Site": "same-origin"}):
            assert client.post("/salir", headers=headers).status_code == 303


@pytest.fixture
def clerk(settings: Settings, clock: Clock) -> Iterator[TestClient]:
    """A browser that has just signed in, at a service behind TLS."""
    app = create_app(settings.model_copy(update={"public_url": "https://shop.example"}), clock)
    run_apart(_add_staff(settings))
    with TestClient(app, "https://testserver", follow_redirects=False) as client:
        client.headers["Sec-Fetch-Site"] = "same-origin"
        answer = client.post("/entrar", data={"username": "oscar", "password": PASSWORD, "next": "/paquetes"})
        assert (answer.status_code, answer.headers["Location"]) == (303, "/paquetes")
        cookie = answer.headers["Set-Cookie"].lower()
        assert all(flag in cookie for flag in ("httponly", "samesite=lax", "secure", "max-age=43200"))
        yield client


async def _add_staff(settings: Settings) -> None:
    async with await connect(settings.postgres_dsn, "test") as conn, conn.transaction():
        await add_staff_account(conn, "oscar", "Óscar Díaz", Role.OPERATOR, PASSWORD)


def test_a_session_ends(clerk: TestClient, clock: Clock) -> None:
    """After a shift, and when the person is dismissed; a public page then takes the browser for nobody's."""
    assert clerk.get("/paquetes").status_code == 200
    assert clerk.get("/api/v1/packages").status_code == 200
    clock.advance(hours=12)
    assert clerk.get("/paquetes").headers["Location"] == "/entrar?next=/paquetes"
    assert clerk.get("/api/v1/packages").status_code == 401
    assert clerk.get("/entrar").status_code == 200
    script = {"HX-Request": "true", "HX-Current-URL": "https://testserver/paquetes?q=x"}
    answer = clerk.get("/paquetes", headers=script)
    assert (answer.status_code, answer.headers["HX-Redirect"]) == (401, "/entrar?next=/paquetes%3Fq%3Dx")


def test_another_site_can_write_nothing_with_the_cookie(clerk: TestClient) -> None:
    """Neither by a form of the pages nor by the API: the cookie is sent along, and counts for nothing."""
    parcel = {"guide_number": "AJENO-0001", "customer_name": "Ana", "package_type": "NORMAL", "condition": "GOOD"}
    elsewhere = {"Sec-Fetch-Site": "cross-site"}
    assert clerk.post("/api/v1/receptions", json=parcel, headers=elsewhere).status_code == 401
    assert clerk.post("/mostrador", data={"q": "AJENO-0001"}, headers=elsewhere).status_code == 403
    assert clerk.post("/api/v1/receptions", json=parcel).status_code == 201


def test_signing_in_leads_to_our_own_pages_alone(clerk: TestClient) -> None:
    """Whatever the address says that one came from."""
    for bad in ("//elsewhere.example", "https://elsewhere.example", "/\\elsewhere.example", "javascript:1", "/\n/x"):
        form = {"username": "oscar", "password": PASSWORD, "next": bad}
        assert clerk.post("/entrar", data=form).headers["Location"] == "/entrar"


def test_guesses_are_throttled(settings: Settings, clock: Clock) -> None:
    """As by the API: the page says for how long."""
    app = create_app(settings.model_copy(update={"throttle_sign_in": "2/minute"}), clock)
    with TestClient(app, headers={"Sec-Fetch-Site": "same-origin"}) as client:
        form = {"username": "oscar", "password": "una-mala-clave"}
        statuses = [client.post("/entrar", data=form).status_code for _ in range(3)]
        assert statuses == [401, 401, 429]
        assert "Demasiados intentos" in client.post("/entrar", data=form).text
