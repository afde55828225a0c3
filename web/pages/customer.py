"""`/clientes/{id}`: one customer, the way to their parcels, and what the shop knows of them, to be put right."""

import uuid
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import Form, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import BaseModel, ConfigDict, Field

from commands.change_customer import ChangeCustomer, change_customer
from infra.auth import Role, SignedIn, allow
from infra.clock import TheClock
from infra.errors import Conflict, Invalid, PreconditionFailed, Problem
from queries import get_customer
from web import flash, session
from web.localization import N_
from web.pages.counter import refusals
from web.pages.packages import STATUS_LABELS
from web.reading import read
from web.rendering import render, translator
from web.routing import router
from web.writing import KEY, accepted, command_of, transaction

pages = router()

FIELDS = {
    "name": N_("Name"),
    "phone": N_("Phone"),
    "email": N_("E-mail"),
    "document": N_("Document"),
    "building": N_("Building"),
    "tower": N_("Tower"),
    "apartment": N_("Apartment"),
    "notes": N_("Notes"),
}
"""What may be changed, in the form's order."""


class CustomerForm(BaseModel):
    """The form: its key, the version that its writer saw, and the customer's fields as they were typed."""

    model_config = ConfigDict(extra="ignore")

    key: str = Field(pattern=KEY)
    version: int = Field(ge=1, le=2**31)
    name: str = ""
    phone: str = ""
    email: str = ""
    document: str = ""
    building: str = ""
    tower: str = ""
    apartment: str = ""
    notes: str = ""


@pages.get("/clientes/{customer_id}")
@allow(Role.VIEWER)
async def show_customer(customer_id: uuid.UUID, request: Request, actor: SignedIn, clock: TheClock) -> Response:
    """Show a customer, and how many parcels of theirs are where."""
    customer = await read(request, get_customer.fetch(customer_id, clock()))
    return render(request, "customer.html", _context(customer, may_change=actor.role.reaches(Role.OPERATOR)))


@pages.post("/clientes/{customer_id}")
@allow(Role.OPERATOR)
async def put_right(
    customer_id: uuid.UUID, form: Annotated[CustomerForm, Form()], request: Request, clock: TheClock
) -> Response:
    """Change what differs from what is stored; a refusal is said on the page, with what was typed."""
    _ = translator(request)
    stored = await read(request, get_customer.fetch(customer_id, clock()))
    typed = form.model_dump(include=set(FIELDS))
    try:
        given = {name: text for name, text in typed.items() if text.strip() != (stored[name] or "")}
        command = command_of(ChangeCustomer, given)
        answer = accepted(await change_customer(customer_id, command, transaction(request, form.key, form.version)))
    except (Invalid, Conflict, PreconditionFailed) as problem:
        context = _context(stored, typed, _sentence(problem, _))
        return render(request, "customer.html", context, status=problem.status)
    response = RedirectResponse(f"/clientes/{customer_id}", HTTPStatus.SEE_OTHER)
    session.remember(response, answer)
    flash.leave(response, _(N_("Changed.")))
    return response


def _context(
    customer: dict[str, Any],
    typed: dict[str, str] | None = None,
    refusal: str | None = None,
    *,
    may_change: bool = True,
) -> dict[str, Any]:
    return {
        "customer": customer,
        "fields": FIELDS,
        "typed": typed or {},
        "refusal": refusal,
        "may_change": may_change,
        "statuses": STATUS_LABELS,
        "key": str(uuid.uuid4()),
    }


def _sentence(problem: Problem, _: refusals.Translate) -> str:
    if isinstance(problem, PreconditionFailed):
        return _("Somebody else changed this meanwhile. Look at it as it is now, then try again.")
    return refusals.sentence(problem, _)
