"""Take the pictures in docs/screens again, of a shop made for it: `.venv/bin/python -m tests.web.write_screens`."""

import contextlib
import io
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
from PIL import Image, ImageDraw
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.browser import CHROMIUM
from tests.web.conftest import ARGUMENTS, SIZES, chosen

SCREENS = Path(__file__).parents[2] / "docs" / "screens"
PASSWORD = "una-clave-de-prueba"
DEMO = 2000
LAST_BREATH = 60
"""Seconds until everything has ended."""


@contextlib.contextmanager
def running() -> Iterator[str]:
    """Run the whole service on a shop of its own, and give its address while the block lasts."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    with tempfile.TemporaryDirectory() as folder:
        ours = {"DATA_DIR": folder, "PORT": port, "ADMIN_PASSWORD": PASSWORD}
        settings = os.environ | {f"PAQUETERIA_{name}": value for name, value in ours.items()}
        command = [sys.executable, "manage.py", "up", "--demo", str(DEMO)]
        service = subprocess.Popen(command, env=settings, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        try:
            assert service.stdout is not None
            assert any(line.startswith("Ready at") for line in service.stdout)
            yield f"http://127.0.0.1:{port}"
        finally:
            service.terminate()
            service.wait(LAST_BREATH)


class Desk:
    """The shop as its clerk's program and browser have it."""

    def __init__(self, browser: Browser, address: str) -> None:
        self._browser, self._address = browser, address
        self._client = httpx2.Client(base_url=f"{address}/api/v1", timeout=30)
        token = self.post("/auth/token", data={"username": "admin", "password": PASSWORD})["access_token"]
        self._client.headers["Authorization"] = f"Bearer {token}"

    def post(self, path: str, **sent: Any) -> Any:  # noqa: ANN401
        """Send something to the API, and give what it answers."""
        answer = self._client.post(path, **sent)
        assert answer.is_success, answer.text
        return answer.json()

    def receive(self, guide: str, **fields: Any) -> Any:  # noqa: ANN401
        """Receive a parcel."""
        parcel = {"guide_number": guide, "package_type": "NORMAL", "condition": "GOOD"} | fields
        return self.post("/receptions", json=parcel)

    def open(self, path: str, size: str = "wide") -> Page:
        """Open a page in a browser of its own."""
        width, height = SIZES[size]
        context = self._browser.new_context(
            base_url=self._address,
            viewport={"width": width, "height": height},
            reduced_motion="reduce",
            color_scheme="light",
            locale="es-CO",
        )
        context.request.post(
            "/entrar", form={"username": "admin", "password": PASSWORD}, headers={"Origin": self._address}
        )
        page = context.new_page()
        page.goto(path)
        return page


def scan(page: Page, *codes: str) -> None:
    """Type as a scanner does, each once the one before is answered."""
    for code in codes:
        page.keyboard.type(code)
        with page.expect_response("**/mostrador"):
            page.keyboard.press("Enter")


def keep(page: Page, name: str) -> None:
    """Take the picture, once everything that is shown has come."""
    page.evaluate("document.fonts.ready")
    page.wait_for_timeout(500)
    page.screenshot(path=SCREENS / f"{name}.png")
    page.context.close()


def box(mark: tuple[int, int, int, int]) -> bytes:
    """Draw a parcel with its label, and a mark where it is damaged."""
    picture = Image.new("RGB", (800, 800), "#d6cdbd")
    pen = ImageDraw.Draw(picture)
    pen.rectangle((60, 180, 740, 700), fill="#b98f5e", outline="#8a6840", width=6)
    pen.rectangle((60, 410, 740, 460), fill="#cfae82")
    pen.rectangle((440, 220, 700, 380), fill="white")
    for x in range(460, 680, 12):
        pen.rectangle((x, 240, x + 3 + x * 7 % 6, 340), fill="black")
    pen.ellipse(mark, fill="#5e4526")
    target = io.BytesIO()
    picture.save(target, "JPEG")
    return target.getvalue()


def hand_over(desk: Desk) -> None:
    """Three parcels of one customer, and the change."""
    whose = {"customer_name": "Gil Robledo", "customer_phone": "3005558400"}
    for number in range(3):
        desk.receive(f"1Z999AA1556584000{number}", **whose, package_type="EXTRA_SIZED" if number == 0 else "NORMAL")
    page = desk.open("/mostrador")
    scan(page, *(f"1Z999AA1556584000{number}" for number in range(3)))
    page.keyboard.type("$20000")
    page.keyboard.press("Enter")
    expect(page.locator("#change")).to_have_text("$15.000")
    keep(page, "mostrador-entrega")


def two_codes(desk: Desk) -> None:
    """A new guide with another barcode on its label, for a customer who is known."""
    desk.receive("COORD-556500", customer_name="Lucía Álzate", customer_phone="3115550584")
    page = desk.open("/mostrador")
    scan(page, "TBA556584000111", "JD556584998877", "3115550584")
    keep(page, "mostrador-dos-codigos")


def received(desk: Desk) -> None:
    """An announced parcel, received on a telephone."""
    person = {"customer_name": "Zoë Núñez", "customer_phone": "3205550142", "data_consent": True}
    desk.post("/packages", json={**person, "guide_number": "1Z999AA10777700001"})
    page = desk.open("/mostrador", "narrow")
    scan(page, "1Z999AA10777700001")
    keep(page, "mostrador-recibido-narrow")


def parcel(desk: Desk) -> None:
    """One that came opened, with photos of how it came."""
    whose = {"customer_name": "Lucía Álzate", "customer_phone": "3115550584", "carrier": "Coordinadora"}
    package = desk.receive("COORD-556584", **whose, condition="OPENED")
    page = desk.open(f"/paquetes/{package['package_id']}")
    for number, mark in enumerate(((90, 620, 200, 690), (600, 560, 690, 660)), 1):
        page.locator("#photo-form input[type=file]").first.set_input_files([chosen(box(mark))])
        expect(page.locator(".photos img")).to_have_count(number)
    page.goto(f"/paquetes/{package['package_id']}")
    keep(page, "paquete")


def take_all(browser: Browser, address: str) -> None:
    """Take every picture."""
    desk = Desk(browser, address)
    for scene in (hand_over, two_codes, received, parcel):
        scene(desk)
    keep(desk.open("/paquetes?status=RECEIVED"), "paquetes")
    keep(desk.open("/paquetes?status=RECEIVED", "narrow"), "paquetes-narrow")
    keep(desk.open("/resumen"), "resumen")


if __name__ == "__main__":
    with running() as address, sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        take_all(chromium, address)
        chromium.close()
