"""`/mostrador`: the counter. One field for the scanner, answered at once; the page's script queues what is scanned."""

from typing import Annotated, Any
from urllib.parse import quote

from fastapi import Form, Request, Response

from infra.auth import Role, allow
from queries import get_package, list_sites
from web import session
from web.codes import code128
from web.localization import N_, translations
from web.pages.counter.codes import CONDITIONS, METHODS, SHEET, TYPES, code_of
from web.pages.counter.steps import Counter
from web.pages.counter.work import Answer, Work
from web.reading import read
from web.rendering import render
from web.routing import router

pages = router()

KEYS = ("F2", "F3", "F4", "F6", "F7", "F8")
"""One key each: type and condition while receiving, the method while handing over."""

MESSAGE = N_("Hello %(name)s: your parcel %(guide)s is at the shop. Its code is %(code)s. Follow it here: %(address)s")


@pages.get("/mostrador")
@allow(Role.OPERATOR)
async def show_counter(request: Request, q: str = "") -> Response:
    """Show the counter, empty; `q` is scanned at once."""
    return await _shown(request, "counter/page.html", Work(q=q[:200]), Answer(kind="none", sound="none"))


@pages.post("/mostrador")
@allow(Role.OPERATOR)
async def take_step(request: Request, work: Annotated[Work, Form()]) -> Response:
    """Take one step: a scan, a choice, a hand-over."""
    counter = Counter(request, work)
    answer = await counter.step()
    template = "counter/work.html" if "HX-Request" in request.headers else "counter/page.html"
    work.q = ""
    response = await _shown(request, template, work, answer)
    session.remember(response, *counter.writer.answers)
    return response


@pages.get("/mostrador/codigos")
@allow(Role.OPERATOR)
async def show_codes(request: Request) -> Response:
    """Show the sheet of command barcodes, to be printed and laid beside the scanner."""
    return render(request, "counter/codes.html", {"sheet": SHEET, "code128": code128})


@pages.get("/mostrador/clientes")
@allow(Role.OPERATOR)
async def suggest_customers(request: Request, q: str = "") -> Response:
    """Suggest customers for what is being typed."""
    customers = await Counter(request, Work()).find_customers(q)
    return render(request, "counter/suggestions.html", {"customers": customers})


async def _shown(request: Request, template: str, work: Work, answer: Answer) -> Response:
    now = request.app.state.clock()
    parcels = await read(request, *(get_package.fetch(id_, now) for id_ in work.package_id)) if work.package_id else []
    parcels = parcels if isinstance(parcels, list) else [parcels]
    sites = await read(request, list_sites.fetch(now))
    work.due = [parcel["due"] for parcel in parcels]  # what is shown now is what the clerk asks for
    context: dict[str, Any] = {
        "work": work,
        "answer": answer,
        "parcels": parcels,
        "total": sum(work.due),
        "sites": sites["items"],
        "types": dict(zip(TYPES, zip(TYPES.values(), KEYS, strict=False), strict=True)),
        "conditions": dict(zip(CONDITIONS, zip(CONDITIONS.values(), KEYS[2:], strict=True), strict=True)),
        "methods": dict(zip(METHODS, zip(METHODS.values(), KEYS, strict=False), strict=True)),
        "code_of": code_of,
        "whatsapp": lambda package: _whatsapp(request, package),
    }
    return render(request, template, context)


def _whatsapp(request: Request, package: dict[str, Any]) -> str | None:
    """Give the address that opens WhatsApp with a message for this parcel's customer, in the customers' language."""
    phone = package["customer"]["phone"]
    if phone is None:
        return None
    settings = request.app.state.connections.settings
    base = settings.public_url or str(request.base_url).rstrip("/")
    message = translations("es").gettext(MESSAGE) % {
        "name": package["recipient_name"],
        "guide": package["guide_number"],
        "code": package["tracking_code"],
        "address": f"{base}/seguimiento/{package['tracking_code']}",
    }
    return f"https://wa.me/{phone.removeprefix('+')}?text={quote(message)}"
