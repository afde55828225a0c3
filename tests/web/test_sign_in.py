"""Signing in by the page: a session for one browser, that nobody else can use and that ends."""

import pytest
from fastapi.testclient import TestClient
from playwright.sync_api import expect

from infra.settings import Settings
from tests.support import Clock
from tests.web.axe import violations
from tests.web.conftest import Visitor
from tests.web.shop import PASSWORD
from web.api import create_app


@pytest.mark.parametrize("size", ["wide", "narrow"])
@pytest.mark.parametrize(("language", "button"), [("es", "Entrar"), ("en", "Sign in")])
def test_in_and_out(visitor: Visitor, size: str, language: str, button: str) -> None:
    """Whoever asks for a page signs in first, arrives at the page that was asked for, and can leave again."""
    page = visitor.open("/paquetes?q=nadie", who=None, size=size, language=language)
    expect(page).to_have_url("/entrar?next=/paquetes%3Fq%3Dnadie" + ("%26lang%3Den" if language == "en" else ""))
    if language == "en":
        page.get_by_role("link", name="English").click()
    assert violations(page) == []
    page.get_by_label("Usuario" if language == "es" else "Name").fill("Oscar")
    page.get_by_label("Contraseña" if language == "es" else "Password").fill(PASSWORD)
    page.get_by_role("button", name=button).click()
    expect(page.locator("#q")).to_have_value("nadie")
    page.get_by_role("button", name="Salir" if language == "es" else "Sign out").click()
    expect(page.get_by_text("Has salido." if language == "es" else "You have signed out.")).to_be_visible()
    page.goto("/paquetes")
    expect(page.get_by_role("button", name=button)).to_be_visible()


def test_a_wrong_password_is_said_and_the_name_kept(visitor: Visitor) -> None:
    """What was typed stays, and the cursor waits where it is needed."""
    page = visitor.open("/entrar", who=None)
    page.get_by_label("Usuario").fill("oscar")
    page.get_by_label("Contraseña").fill("otra-clave-cualquiera")
    page.get_by_label("Contraseña").press("Enter")
    expect(page.get_by_role("alert")).to_have_text("El usuario o la contraseña no son correctos.")
    expect(page.get_by_label("Usuario")).to_have_value("oscar")
    expect(page.get_by_label("Contraseña")).to_be_focused()
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


def test_who_is_thrown_back_goes_nowhere_else(client: TestClient) -> None:
    """The page to go on to is one of ours, whatever the address says."""
    with client:
        for bad in ("//elsewhere.example", "https://elsewhere.example", "/\\elsewhere.example", "javascript:1"):
            form = {"username": "x", "password": "y", "next": bad}
            assert client.post("/entrar", data=form, headers={"Sec-Fetch-Site": "same-origin"}).status_code == 401
