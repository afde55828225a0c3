"""`/administracion`: who may sign in, what is said of each site, how long its shelf is, and what parcels cost."""

import uuid
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Annotated, Any

from fastapi import Form, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import BaseModel, Field

from commands.add_positions import AddPositions, add_positions
from commands.add_site import AddSite, add_site
from commands.add_staff import AddStaff, add_staff
from commands.change_site import ChangeSite, change_site
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
    "site": N_("A site's code has 2 to 32 capital letters, digits or dashes."),
    "name": N_("A site's name has up to 100 characters."),
    "address": N_("An address has up to 100 characters."),
    "phone": N_("A phone has up to 100 characters."),
    "opening_hours": N_("Opening hours have up to 1,000 characters."),
    "prefix": N_("A prefix has up to 20 letters, digits or dashes."),
    "first": N_("Numbers are whole and begin with 0."),
    "last": N_("Numbers are whole and begin with 0."),
    "width": N_("The number of digits is too small for the last number."),
}

CONFLICTS = {
    "This is the last active ADMIN": N_("This is the last administrator: name another one first."),
    "There is a site of this code already": N_("There is a site of this code already."),
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


class SiteForm(AdminForm):
    """What customers are told of a shop; what is left empty isn't told."""

    name: str = ""
    address: str = ""
    phone: str = ""
    opening_hours: str = ""


class NewSite(SiteForm):
    """One more shop."""

    site: str = ""


class SiteChange(SiteForm):
    """A shop as it was seen, and as it is to be told of."""

    version: int = Field(ge=1, le=2**31)


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

    return await _done(request, clock(), run, N_("Added."), form)


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

    return await _done(request, clock(), run, N_("Changed."), form)


@pages.post("/administracion/sedes")
@allow(Role.ADMIN)
async def open_site(request: Request, form: Annotated[NewSite, Form()], clock: TheClock) -> Response:
    """Open another shop, with a shelf to begin with."""

    async def run() -> Response:
        given = form.model_dump(exclude={"key"}) | {"site": form.site.strip().upper()}
        return await add_site(command_of(AddSite, given), transaction(request, form.key))

    return await _done(request, clock(), run, N_("The site is open, with positions 00 to 99."), form)


@pages.post("/administracion/sedes/{site}")
@allow(Role.ADMIN)
async def tell_of_site(site: str, request: Request, form: Annotated[SiteChange, Form()], clock: TheClock) -> Response:
    """Change a shop's name, address, phone or opening hours."""

    async def run() -> Response:
        command = command_of(ChangeSite, form.model_dump(exclude={"key", "version"}))
        return await change_site(site, command, transaction(request, form.key, form.version))

    return await _done(request, clock(), run, N_("Changed."), form)


@pages.post("/administracion/posiciones")
@allow(Role.ADMIN)
async def lengthen_shelf(request: Request, form: Annotated[NewPositions, Form()], clock: TheClock) -> Response:
    """Add places to a shelf."""

    async def run() -> Response:
        command = command_of(AddPositions, form.model_dump(exclude={"key", "site"}))
        return await add_positions(form.site, command, transaction(request, form.key))

    return await _done(request, clock(), run, N_("The shelf is longer now."), form)


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

    return await _done(request, clock(), run, N_("The tariff is set."), form)


def _instant(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text).replace(tzinfo=BOGOTA)
    except ValueError:
        raise Invalid({"valid_from": ["must be a day and an hour"]}) from None


async def _done(
    request: Request, now: datetime, run: Callable[[], Awaitable[Response]], said: str, form: AdminForm
) -> Response:
    """Run a command, then show the page anew; a refusal is said on it, and what was typed stays but for passwords."""
    _ = translator(request)
    try:
        answer = accepted(await run())
    except (Invalid, Conflict, PreconditionFailed) as problem:
        typed = form.model_dump(exclude={"key", "version", "password"})
        return await _shown(request, now, _sentence(problem, _), problem.status, typed)
    response = RedirectResponse("/administracion", 303)
    session.remember(response, answer)
    flash.leave(response, _(said))
    return response


def _sentence(problem: Problem, _: Callable[[str], str]) -> str:
    if isinstance(problem, PreconditionFailed):
        return _("Somebody else changed this meanwhile. Look at it as it is now, then try again.")
    if isinstance(problem, Invalid):
        known = [_(FIELDS[name]) for name in problem.members["errors"] if name in FIELDS]
        return " ".join(dict.fromkeys(known)) or _("Something in the form can't be accepted.")
    if problem.detail.startswith("The site has a position "):
        return _("The shelf has a position of that range already.")
    return _(CONFLICTS.get(problem.detail, problem.detail))


async def _shown(
    request: Request,
    now: datetime,
    refusal: str | None = None,
    status: int = 200,
    typed: Mapping[str, Any] = MappingProxyType({}),
) -> Response:
    staff, sites, tariffs = await read(request, list_staff.fetch(now), list_sites.fetch(now), list_tariffs.fetch(now))
    context = {
        "staff": staff["items"],
        "sites": sites["items"],
        "tariffs": tariffs["items"],
        "in_force": in_force(tariffs["items"], now),
        "roles": ROLES,
        "refusal": refusal,
        "typed": typed,
        "new_key": lambda: str(uuid.uuid4()),
    }
    return render(request, "administration.html", context, status=status)
