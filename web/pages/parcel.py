"""`/paquetes/{id}`: everything about one parcel, what may be done with it, and what is printed of it."""

import uuid
from collections.abc import Awaitable, Callable, Coroutine
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import File, Form, Request, Response, UploadFile
from fastapi.responses import RedirectResponse
from pydantic import BaseModel, ConfigDict, Field

import commands.add_photo
import commands.cancel_package
import commands.correct_package
import commands.deliver_package
import commands.receive_package
import commands.relocate_package
import commands.revert_delivery
from commands.add_photo import LARGEST_PHOTO, MOST_PHOTOS
from commands.revert_delivery import OWN_FOR
from infra.auth import Identity, Role, SignedIn, allow
from infra.clock import BOGOTA, TheClock
from infra.errors import Conflict, Forbidden, Invalid, NotFound, PreconditionFailed, Problem, UnsupportedMediaType
from infra.fields import Message
from infra.routing import takes_up_to
from queries import get_package, list_sites, package_fee, package_history
from web import flash, session
from web.codes import code128, qr
from web.localization import N_, instant
from web.pages.counter import refusals
from web.pages.counter.codes import CONDITIONS, METHODS, TYPES
from web.reading import read
from web.rendering import render, translator
from web.routing import router
from web.writing import KEY, accepted, command_of, pesos_of, transaction

pages = router()

REASONS = {
    "CUSTOMER_REQUEST": N_("The customer asked for it"),
    "RETURNED_TO_CARRIER": N_("Returned to the carrier"),
    "UNCLAIMED": N_("Nobody collected it"),
    "DAMAGED": N_("Damaged"),
    "LOST": N_("Lost"),
    "EXPIRED": N_("The announcement lapsed"),
    "STAFF_ERROR": N_("Our mistake"),
    "OTHER": N_("Another reason"),
}

WORDS = {"methods": METHODS, "types": TYPES, "conditions": CONDITIONS, "reasons": REASONS}

Run = Callable[..., Coroutine[Any, Any, Response]]

STEPS: dict[str, tuple[type[Message], Run, str]] = {
    "recepcion": (
        commands.receive_package.ReceivePackage,
        commands.receive_package.receive_package,
        N_("Received."),
    ),
    "traslado": (
        commands.relocate_package.RelocatePackage,
        commands.relocate_package.relocate_package,
        N_("Moved."),
    ),
    "entrega": (
        commands.deliver_package.DeliverPackage,
        commands.deliver_package.deliver_package,
        N_("Handed over."),
    ),
    "reversion": (
        commands.revert_delivery.RevertDelivery,
        commands.revert_delivery.revert_delivery,
        N_("The delivery was taken back."),
    ),
    "correccion": (
        commands.correct_package.CorrectPackage,
        commands.correct_package.correct_package,
        N_("Corrected."),
    ),
    "cancelacion": (
        commands.cancel_package.CancelPackage,
        commands.cancel_package.cancel_package,
        N_("Cancelled."),
    ),
}
"""What may be done with a parcel: the command, its handler, and what is said once it is done."""


class Step(BaseModel):
    """A form: its key, the version that its writer saw, and the command's own fields as they were typed."""

    model_config = ConfigDict(extra="allow")

    key: str = Field(pattern=KEY)
    version: int = Field(ge=1, le=2**31)

    @property
    def typed(self) -> dict[str, Any]:
        """The command's fields."""
        return dict(self.model_extra or {})


@pages.get("/paquetes/{package_id}")
@allow(Role.VIEWER)
async def show_parcel(
    package_id: uuid.UUID, request: Request, actor: SignedIn, clock: TheClock, at: str = ""
) -> Response:
    """Show a parcel; `at` is an instant by Bogota's clock to price it at."""
    context = await _context(request, actor, package_id, clock(), at)
    return render(request, "parcel/page.html", context)


@pages.post("/paquetes/{package_id}/fotos")
@allow(Role.OPERATOR)
@takes_up_to(LARGEST_PHOTO)
async def add_photo(
    package_id: uuid.UUID,
    request: Request,
    actor: SignedIn,
    clock: TheClock,
    key: Annotated[str, Form(pattern=KEY)],
    photo: Annotated[list[UploadFile] | None, File()] = None,
) -> Response:
    """Add the photo that was taken or chosen: the form has a field for each way, and one of them is left empty."""

    async def run() -> Response:
        if photo is None or len(photo) != 1:
            raise Invalid({"photo": ["there is one at a time"]})
        return await commands.add_photo.run(package_id, await photo[0].read(), transaction(request, key))

    return await _done(request, actor, package_id, clock(), run, N_("The photo is kept."), {})


@pages.post("/paquetes/{package_id}/{step}")
@allow(Role.OPERATOR)
async def take_step(
    package_id: uuid.UUID,
    step: str,
    form: Annotated[Step, Form()],
    request: Request,
    actor: SignedIn,
    clock: TheClock,
) -> Response:
    """Do one thing with the parcel as it was shown; a refusal is said on the page, with what was typed."""
    if step not in STEPS:
        raise NotFound("There is nothing under this address")
    model, handler, said = STEPS[step]

    async def run() -> Response:
        command = command_of(model, await _given(request, package_id, step, form, clock()))
        return await handler(package_id, command, transaction(request, form.key, form.version))

    typed = {"typed": form.typed, "refused_step": step}
    return await _done(request, actor, package_id, clock(), run, said, typed)


async def _done(
    request: Request,
    actor: Identity,
    package_id: uuid.UUID,
    now: datetime,
    run: Callable[[], Awaitable[Response]],
    said: str,
    typed: dict[str, Any],
) -> Response:
    """Run a command, then show the parcel anew; a refusal is said on its page."""
    _ = translator(request)
    try:
        answer = accepted(await run())
    except (Invalid, PreconditionFailed, Forbidden, Conflict, UnsupportedMediaType) as problem:
        context = await _context(request, actor, package_id, now)
        context |= typed | {"refusal": _sentence(problem, _)}
        return render(request, "parcel/page.html", context, status=problem.status)
    response = RedirectResponse(f"/paquetes/{package_id}", HTTPStatus.SEE_OTHER)
    session.remember(response, answer)
    flash.leave(response, _(said))
    return response


@pages.get("/paquetes/{package_id}/etiqueta")
@allow(Role.VIEWER)
async def show_label(package_id: uuid.UUID, request: Request, clock: TheClock) -> Response:
    """Show what is stuck on the parcel: its code, its position, and of the name the initials alone."""
    return await _printed(request, package_id, clock(), "parcel/label.html")


@pages.get("/paquetes/{package_id}/recibo")
@allow(Role.VIEWER)
async def show_receipt(package_id: uuid.UUID, request: Request, clock: TheClock) -> Response:
    """Show what the customer is given: the fee line by line, and what was paid."""
    return await _printed(request, package_id, clock(), "parcel/receipt.html")


async def _printed(request: Request, package_id: uuid.UUID, now: datetime, template: str) -> Response:
    queries = (get_package.fetch(package_id, now), package_fee.fetch(package_id, now), list_sites.fetch(now))
    parcel, fee, sites = await read(request, *queries)
    bare = parcel["tracking_code"].replace("-", "")
    site = next(each for each in sites["items"] if each["site"] == parcel["site"])
    context = {"parcel": parcel, "fee": fee, "site": site, "qr": qr(bare), "bars": code128(bare), **WORDS}
    return render(request, template, context)


async def _context(
    request: Request, actor: Identity, package_id: uuid.UUID, now: datetime, at: str = ""
) -> dict[str, Any]:
    later = _instant(at) or now + timedelta(days=1)
    queries = (
        get_package.fetch(package_id, now),
        package_history.fetch(package_id, now),
        package_fee.fetch(package_id, now),
        package_fee.fetch(package_id, later),
    )
    parcel, history, fee, fee_later = await read(request, *queries)
    return {
        "parcel": parcel,
        "history": list(reversed(history["items"])),
        "fee": fee,
        "fee_later": fee_later,
        "later": later.astimezone(BOGOTA).strftime("%Y-%m-%dT%H:%M"),
        "key": str(uuid.uuid4()),
        "refusal": None,
        "typed": {},
        "refused_step": None,
        "steps": _may(parcel, actor, now),
        "most_photos": MOST_PHOTOS,
        "may_photograph": _may_photograph(parcel, actor),
        **WORDS,
    }


def _instant(text: str) -> datetime | None:
    """Read what a field of day and time gives; None for what nobody could mean."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    return at.replace(tzinfo=BOGOTA) if at.tzinfo is None and 2000 <= at.year <= 2100 else None  # noqa: PLR2004


def _may(parcel: dict[str, Any], actor: Identity, now: datetime) -> list[str]:
    """Name the steps that the parcel's status and the reader's role allow."""
    if not actor.role.reaches(Role.OPERATOR):
        return []
    if parcel["status"] == "DELIVERED":
        is_own = parcel["payments"][-1]["staff_id"] == str(actor.staff_id)
        is_recent = now - instant(parcel["delivered_at"]) <= OWN_FOR
        return ["reversion"] if actor.role is Role.ADMIN or (is_own and is_recent) else []
    by_status = {
        "ANNOUNCED": ["recepcion", "correccion", "cancelacion"],
        "RECEIVED": ["entrega", "traslado", "correccion", "cancelacion"],
    }
    return by_status.get(parcel["status"], [])


def _may_photograph(parcel: dict[str, Any], actor: Identity) -> bool:
    """Tell whether one more photo may be added."""
    has_room = parcel["status"] == "RECEIVED" and len(parcel["photos"]) < MOST_PHOTOS
    return has_room and actor.role.reaches(Role.OPERATOR)


async def _given(request: Request, package_id: uuid.UUID, step: str, form: Step, now: datetime) -> dict[str, Any]:
    """Give the command's fields; of a correction those that differ from what is stored."""
    typed = form.typed
    if "amount" in typed:
        typed["amount"] = pesos_of(str(typed["amount"]))
    if step != "correccion":
        return typed
    stored = await read(request, get_package.fetch(package_id, now))
    stored |= {"customer_name": stored["recipient_name"], "customer_phone": stored["customer"]["phone"]}
    return {name: value for name, value in typed.items() if value != (stored.get(name) or "")}


def _sentence(problem: Problem, _: Callable[[str], str]) -> str:
    if isinstance(problem, PreconditionFailed):
        return _("Somebody else changed this parcel meanwhile. Look at it as it is now, then try again.")
    if isinstance(problem, Forbidden):
        return _("A delivery can be taken back by who made it, within 30 minutes, or by an administrator.")
    return refusals.sentence(problem, _)
