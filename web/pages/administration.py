"""`/administracion`: who may sign in, how long the shelf is, and what parcels cost."""

import uuid
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Annotated, Any

from fastapi import Form, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import BaseModel, Field

from commands.add_positions import AddPositions, add_positions
from commands.add_staff import AddStaff, add_staff
from commands.change_staff import ChangeStaff, change_staff
from commands.set_tariff import SetTariff, set_tariff
from infra.auth import Role, allow
from infra.clock import BOGOTA, TheClock
from infra.errors import Conflict, Invalid, PreconditionFailed, Problem
from queries import list_sites, list_staff, list_tariffs
from web import flash, session
from web.localization import N_
from web.reading import read
from web.rendering import render, translator
from web.routing import router
from web.tariffs import in_force
from web.writing import KEY, accepted, command_of, pesos_of, transaction

pages = router()

ROLES = {"ADMIN": N_("Administrator"), "OPERATOR": N_("Counter"), "VIEWER": N_("Reads only")}

FIELDS = {
    "username": N_("A user name has 3 to 50 letters, digits, dots, dashes or underscores."),
    "full_name": N_("A name has 2 to 100 characters."),
    "password": N_("A password has at least 10 characters."),
    "valid_from": N_("A tariff can't begin in the past."),
    "width": N_("The number of digits is too small for the last number."),
}

CONFLICTS = {
    "This is the last active ADMIN": N_("This is the last administrator: name another one first."),
    "There is a member of staff of this name already": N_("There is somebody of this user name already."),
    "There is a tariff from this instant on already": N_("There is a tariff from this instant on already."),
}


class AdminForm(BaseModel):
    """What every form here carries."""

    key: str = Field(pattern=KEY)


class NewStaff(AdminForm):
    """Somebody who is to sign in."""

    username: str = ""
    full_name: str = ""
    role: str = ""
    password: str = Field(default="", repr=False)


class StaffChange(AdminForm):
    """What is to change of somebody, as it was seen; an empty password stays as it is."""

    version: int = Field(ge=1, le=2**31)
    full_name: str = ""
    role: str = ""
    active: bool = False
    password: str = Field(default="", repr=False)


class NewPositions(AdminForm):
    """A range of places."""

    site: str
    prefix: str = ""
    first: int
    last: int
    width: int


class NewTariff(AdminForm):
    """What parcels cost that are announced from a day on, or from now."""

    valid_from: str = ""
    normal: str
    extra_sized: str
    daily_storage: str


@pages.get("/administracion")
@allow(Role.ADMIN)
async def show_administration(request: Request, clock: TheClock) -> Response:
    """Show staff, shelf and tariffs."""
    return await _shown(request, clock())


@pages.post("/administracion/personal")
@allow(Role.ADMIN)
async def add_member(request: Request, form: Annotated[NewStaff, Form()], clock: TheClock) -> Response:
    """Let one more person sign in."""

    async def run() -> Response:
        command = command_of(AddStaff, form.model_dump(exclude={"key"}))
        return await add_staff(command, transaction(request, form.key))

    return await _done(request, clock(), run, N_("Added."))


@pages.post("/administracion/personal/{staff_id}")
@allow(Role.ADMIN)
async def change_member(
    staff_id: uuid.UUID, request: Request, form: Annotated[StaffChange, Form()], clock: TheClock
) -> Response:
    """Change somebody's name, role, password, or whether they may sign in."""

    async def run() -> Response:
        left_out = {"key", "version"} | (set() if form.password else {"password"})
        command = command_of(ChangeStaff, form.model_dump(exclude=left_out))
        return await change_staff(staff_id, command, transaction(request, form.key, form.version))

    return await _done(request, clock(), run, N_("Changed."))


@pages.post("/administracion/posiciones")
@allow(Role.ADMIN)
async def lengthen_shelf(request: Request, form: Annotated[NewPositions, Form()], clock: TheClock) -> Response:
    """Add places to a shelf."""

    async def run() -> Response:
        command = command_of(AddPositions, form.model_dump(exclude={"key", "site"}))
        return await add_positions(form.site, command, transaction(request, form.key))

    return await _done(request, clock(), run, N_("The shelf is longer now."))


@pages.post("/administracion/tarifas")
@allow(Role.ADMIN)
async def change_tariff(request: Request, form: Annotated[NewTariff, Form()], clock: TheClock) -> Response:
    """Say what parcels cost from now or from a day and hour by Bogota's clock."""

    async def run() -> Response:
        fees = {"NORMAL": pesos_of(form.normal), "EXTRA_SIZED": pesos_of(form.extra_sized)}
        given: dict[str, Any] = {"base_fees": fees, "daily_storage": pesos_of(form.daily_storage)}
        if form.valid_from:
            given["valid_from"] = _instant(form.valid_from)
        return await set_tariff(command_of(SetTariff, given), transaction(request, form.key))

    return await _done(request, clock(), run, N_("The tariff is set."))


def _instant(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text).replace(tzinfo=BOGOTA)
    except ValueError:
        raise Invalid({"valid_from": ["must be a day and an hour"]}) from None


async def _done(request: Request, now: datetime, run: Callable[[], Awaitable[Response]], said: str) -> Response:
    """Run a command, then show the page anew; a refusal is said on it."""
    _ = translator(request)
    try:
        answer = accepted(await run())
    except (Invalid, Conflict, PreconditionFailed) as problem:
        return await _shown(request, now, _sentence(problem, _), problem.status)
    response = RedirectResponse("/administracion", 303)
    session.remember(response, answer)
    flash.leave(response, _(said))
    return response


def _sentence(problem: Problem, _: Callable[[str], str]) -> str:
    if isinstance(problem, PreconditionFailed):
        return _("Somebody else changed this meanwhile. Look at it as it is now, then try again.")
    if isinstance(problem, Invalid):
        known = [_(FIELDS[name]) for name in problem.members["errors"] if name in FIELDS]
        return " ".join(known) or problem.detail
    return _(CONFLICTS.get(problem.detail, problem.detail))


async def _shown(request: Request, now: datetime, refusal: str | None = None, status: int = 200) -> Response:
    staff, sites, tariffs = await read(request, list_staff.fetch(now), list_sites.fetch(now), list_tariffs.fetch(now))
    context = {
        "staff": staff["items"],
        "sites": sites["items"],
        "tariffs": tariffs["items"],
        "in_force": in_force(tariffs["items"], now),
        "roles": ROLES,
        "refusal": refusal,
        "new_key": lambda: str(uuid.uuid4()),
    }
    return render(request, "administration.html", context, status=status)
