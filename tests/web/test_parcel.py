"""One parcel's own page: what it says, what may be done there, and what is printed of it."""

import re
import uuid
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from playwright.sync_api import expect

from commands.add_photo import LARGEST_PHOTO
from tests.pictures import form_of, taken
from tests.web.axe import violations
from tests.web.conftest import EVERYWHERE, Visitor, chosen
from tests.web.shop import PASSWORD, Shop
from web.localization import translations
from web.pages.parcel import WORDS
from web.rendering import environment


@pytest.fixture
def sign_in(shop: Shop) -> Iterator[Any]:
    """Makes a browser without scripts for a member of staff."""
    clients: list[httpx2.Client] = []

    def browser(who: str) -> httpx2.Client:
        headers = {"Sec-Fetch-Site": "same-origin", "Accept": "text/html"}
        clients.append(httpx2.Client(base_url=shop.address, headers=headers, timeout=30))
        answer = clients[-1].post("/entrar", data={"username": who, "password": PASSWORD})
        clients[-1].cookies.set("paqueteria_session", answer.cookies["paqueteria_session"])
        return clients[-1]

    yield browser
    for client in clients:
        client.close()


def form(parcel: Any, **fields: str) -> dict[str, str]:  # noqa: ANN401
    """A form as its page shows it."""
    return {"key": str(uuid.uuid4()), "version": str(parcel["version"]), **fields}


@EVERYWHERE
def test_handed_over_and_taken_back(visitor: Visitor, shop: Shop, size: str, language: str) -> None:
    """What is due stands in the form; each step shows in the history at once, in words; all can be read by anybody."""
    parcel = shop.receive(customer_name="Rosa Luna Gil")
    path = f"/paquetes/{parcel['package_id']}"
    page = visitor.open(path, size=size, language=language)
    assert violations(page) == []
    expect(page.get_by_label("Valor" if language == "es" else "Amount", exact=True)).to_have_value("1500")
    page.get_by_role("button", name="Entregar" if language == "es" else "Hand over").click()
    expect(page.locator(".history li").first).to_contain_text("$1.500")
    page.locator("#reversion-reason").fill("Era del vecino")
    page.get_by_role("button", name="Revertir la entrega" if language == "es" else "Take the delivery back").click()
    expect(page.locator(".history li").first).to_contain_text("Era del vecino")
    expect(page.locator(".status").first).to_have_text("En bodega" if language == "es" else "In storage")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    for sheet in ("etiqueta", "recibo"):
        page.goto(f"{path}/{sheet}")
        expect(page.locator("svg.qr")).to_be_visible()
        expect(page.locator("svg.bars")).to_be_visible()
        assert violations(page) == []


def test_the_label_has_no_full_name(sign_in: Any, shop: Shop) -> None:  # noqa: ANN401
    """Whoever stands before the shelf reads initials, no name and no phone."""
    parcel = shop.receive(customer_name="Rosa Luna Gil")
    shop.package(parcel["package_id"])
    text = sign_in("vera").get(f"/paquetes/{parcel['package_id']}/etiqueta").text
    assert "R. L. G." in text
    for secret in ("Rosa", "Luna", parcel["customer"]["phone"], parcel["customer"]["phone"][-7:]):
        assert secret not in text


def test_a_form_counts_once_and_for_what_was_seen(sign_in: Any, shop: Shop) -> None:  # noqa: ANN401
    """Sent twice it pays once; sent on an older version it does nothing and says so."""
    parcel = shop.receive()
    path = f"/paquetes/{parcel['package_id']}"
    client = sign_in("oscar")
    paid = form(parcel, payment_method="CASH", amount="$ 1.500")
    assert [client.post(f"{path}/entrega", data=paid).status_code for _ in range(2)] == [303, 303]
    assert len(shop.becomes(parcel["guide_number"], "DELIVERED")["payments"]) == 1
    stale = client.post(f"{path}/reversion", data=form(parcel, reason="Tarde"))
    assert (stale.status_code, "cambió este paquete mientras tanto" in stale.text) == (412, True)


def test_a_refusal_keeps_what_was_typed(sign_in: Any, shop: Shop) -> None:  # noqa: ANN401
    """Another amount without its reason is refused by the service, with what is due."""
    parcel = shop.receive()
    data = form(parcel, payment_method="NEQUI", amount="1000", collected_by="Su hermana")
    answer = sign_in("oscar").post(f"/paquetes/{parcel['package_id']}/entrega", data=data)
    assert answer.status_code == 409
    assert "$1.500" in answer.text
    assert 'value="Su hermana"' in answer.text
    unread = sign_in("oscar").post(f"/paquetes/{parcel['package_id']}/entrega", data=data | {"amount": "mil"})
    assert (unread.status_code, "en pesos enteros" in unread.text) == (422, True)
    assert shop.package(parcel["package_id"])["status"] == "RECEIVED"


def test_what_stands_in_the_way_is_said(sign_in: Any, shop: Shop) -> None:  # noqa: ANN401
    """A place that is taken, one that there isn't, and a guide of another parcel: not what that parcel's status is."""
    parcel, other = shop.receive(), shop.receive()
    shop.package(other["package_id"])
    client, path = sign_in("oscar"), f"/paquetes/{parcel['package_id']}"
    for step, fields, status, said in (
        ("traslado", {"position": other["position"]}, 409, f"La posición {other['position']} está ocupada."),
        ("traslado", {"position": "ZZZ"}, 422, "No hay tal posición"),
        ("correccion", {"guide_number": other["guide_number"]}, 409, "Otro paquete tiene esta guía."),
    ):
        answer = client.post(f"{path}/{step}", data=form(parcel, **fields))
        assert (answer.status_code, said in answer.text) == (status, True)


def test_a_correction_changes_what_differs_and_nothing_else(sign_in: Any, shop: Shop) -> None:  # noqa: ANN401
    """The form holds every field; the log tells those that were changed."""
    parcel = shop.receive(customer_name="Rosa Luna")
    same = {"guide_number": parcel["guide_number"], "customer_phone": parcel["customer"]["phone"]}
    data = form(parcel, **same, customer_name="Rosa Luna", carrier="Deprisa", observations="")
    client = sign_in("oscar")
    assert client.post(f"/paquetes/{parcel['package_id']}/correccion", data=data).status_code == 303
    change = shop.send("GET", f"/packages/{parcel['package_id']}/history")["items"][-1]["data"]
    assert change["after"] == {"carrier": "Deprisa"}


def test_who_only_reads_is_shown_no_forms_and_refused_them(sign_in: Any, shop: Shop) -> None:  # noqa: ANN401
    """A VIEWER sees the parcel; an operator another's delivery, without the way to take it back."""
    parcel = shop.receive()
    path = f"/paquetes/{parcel['package_id']}"
    delivered = shop.send("POST", f"/packages{path[9:]}/delivery", json={"payment_method": "CASH", "amount": 1500})
    shop.package(parcel["package_id"])
    viewer, operator = sign_in("vera"), sign_in("oscar")
    assert not re.search(r'<form method="post" action="/paquetes', viewer.get(path).text)
    assert viewer.post(f"{path}/reversion", data=form(delivered, reason="x")).status_code == 403
    assert not re.search(r'<form method="post" action="/paquetes', operator.get(path).text)
    assert operator.post(f"{path}/reversion", data=form(delivered, reason="x")).status_code == 403
    assert sign_in("ana").post(f"{path}/reversion", data=form(delivered, reason="Era de otro")).status_code == 303


def test_the_receipt_says_who_was_paid_what(sign_in: Any, shop: Shop) -> None:  # noqa: ANN401
    """The shop's name, the fee, and what was paid; before that it is what is due, and until when."""
    parcel = shop.receive()
    shop.package(parcel["package_id"])
    site = next(site for site in shop.send("GET", "/sites")["items"] if site["site"] == parcel["site"])
    clerk = sign_in("oscar")
    before = clerk.get(f"/paquetes/{parcel['package_id']}/recibo").text
    assert all(said in before for said in (site["name"], "Cuenta por pagar", "$1.500", "Cambia de nuevo el"))
    due = {"payment_method": "NEQUI", "amount": 1500, "collected_by": "Su hermana"}
    shop.send("POST", f"/packages/{parcel['package_id']}/delivery", json=due)
    shop.package(parcel["package_id"])
    after = clerk.get(f"/paquetes/{parcel['package_id']}/recibo").text
    assert all(said in after for said in (site["name"], "Recibo", "Nequi", "Pagado", "Su hermana"))
    assert "Cambia de nuevo el" not in after


@EVERYWHERE
def test_it_follows_what_another_person_does(visitor: Visitor, shop: Shop, language: str, size: str) -> None:
    """A change shows by itself, and what was opened stays so; somebody who is typing is told, and keeps their words."""
    _ = translations(language).gettext
    parcel = shop.receive()
    path = f"/packages/{parcel['package_id']}"
    shop.send("GET", path)
    page = visitor.open(f"/paquetes/{parcel['package_id']}", size=size, language=language)
    expect(page.locator("#live")).to_have_class(re.compile("is-live"))
    page.get_by_text(_("Move"), exact=True).first.click()
    shop.send("PATCH", path, json={"observations": "Húmedo"})
    expect(page.locator(".facts")).to_contain_text("Húmedo")
    field = page.get_by_label(_("To position"))
    field.fill("A-899")
    shop.send("PATCH", path, json={"observations": "Seco"})
    expect(page.locator("#changed")).to_contain_text(_("This parcel has changed meanwhile."))
    expect(page.locator(".facts")).to_contain_text("Húmedo")
    expect(field).to_have_value("A-899")
    page.get_by_role("link", name=_("Show it as it is now")).click()
    expect(page.locator(".facts")).to_contain_text("Seco")


@EVERYWHERE
def test_a_photo_goes_as_it_is_chosen_and_is_shown(visitor: Visitor, shop: Shop, language: str, size: str) -> None:
    """Up to three; each can be opened, and the way to add one is gone after the third."""
    parcel = shop.receive()
    page = visitor.open(f"/paquetes/{parcel['package_id']}", size=size, language=language)
    for number, colour in enumerate(("red", "green", "blue"), 1):
        label = "Elegir un archivo" if language == "es" else "Choose a file"
        page.get_by_label(label).set_input_files([chosen(taken(colour, (2000, 1000)))])
        image = page.get_by_role("img", name=f"{'Foto' if language == 'es' else 'Photo'} {number}")
        image.scroll_into_view_if_needed()
        page.wait_for_function("image => image.complete && image.naturalHeight === 1600", arg=image.element_handle())
    expect(page.locator("#photo-form")).to_have_count(0)
    expect(page.locator(".history")).to_contain_text("Se añadió una foto" if language == "es" else "A photo was added")
    assert violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert len(shop.package(parcel["package_id"])["photos"]) == 3


def test_a_photo_without_a_script(sign_in: Any, shop: Shop) -> None:  # noqa: ANN401
    """The form has a field for each way; what is no photo is said in words, and who only reads has no form."""
    parcel = shop.receive()
    path = f"/paquetes/{parcel['package_id']}"
    client, key = sign_in("oscar"), str(uuid.uuid4())
    shop.package(parcel["package_id"])
    assert client.get(path).text.count('type="file"') == 2
    assert 'type="file"' not in sign_in("vera").get(path).text
    for files, status, said in (
        ([b"", b""], 422, "Vuelve a tomarla"),
        ([b"", b"%PDF-1.7"], 415, "JPEG, PNG o WebP"),
        ([taken(), b""], 303, ""),
        ([b"", taken("blue")], 409, "otro contenido"),
    ):
        answer = client.post(f"{path}/fotos", **form_of(*files, key=key))
        assert (answer.status_code, said in answer.text) == (status, True)
    assert sign_in("vera").post(f"{path}/fotos", **form_of(taken(), key=key)).status_code == 403
    large = client.post(f"{path}/fotos", **form_of(b"x" * LARGEST_PHOTO, key=key))
    assert (large.status_code, "demasiado grande" in large.text) == (413, True)
    (photo,) = shop.package(parcel["package_id"])["photos"]
    assert sign_in("vera").get(f"/api/v1/photos/{photo['photo_id']}").status_code == 200


@pytest.mark.parametrize("language", ["es", "en"])
def test_a_change_of_which_little_is_known_is_told_all_the_same(language: str) -> None:
    """What a change was like may have been erased, or was never written by an older version."""
    told: Any = environment(language).get_template("parcel/history.html").make_module(WORDS)
    types = ("Announced", "Received", "Relocated", "Photographed", "Delivered", "Cancelled", "Corrected")
    for type_ in (*(f"Package{type_}" for type_ in types), "DeliveryReverted", "SomethingElse"):
        for data in ({}, {"after": {"amount_reason": "…"}, "before": {}}):
            item = {"type": type_, "data": data}
            assert told.what(item).strip()
            assert "None" not in told.what(item) + told.changes(item)
