"""`/anunciar` and `/politica-de-datos`: anybody tells the shop what will come, knowing what is kept of it."""

import json
import uuid
from http import HTTPStatus
from typing import Annotated
from urllib.parse import quote

from fastapi import Form, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import BaseModel, Field, ValidationError

import commands.announce_package
from commands.announce_package import MAIN_SITE, AnnouncePackage
from commands.customers import POLICY_VERSION
from infra.auth import PUBLIC, allow
from infra.clock import TheClock
from infra.errors import Conflict, TooManyRequests
from infra.fields import errors_by_field
from queries import list_sites
from web import flash, session
from web.localization import N_
from web.pages.counter.refusals import FIELDS
from web.reading import read
from web.rendering import render, translator
from web.routing import router
from web.writing import KEY, accepted, transaction

pages = router()

SENTENCES = FIELDS | {
    "data_consent": N_("Without your consent we may not keep your data."),
}


class Announcement(BaseModel):
    """The form as it is typed; the command says what is wrong with it."""

    key: str = Field(default_factory=lambda: str(uuid.uuid4()), pattern=KEY)
    customer_name: str = ""
    customer_phone: str = ""
    guide_number: str = ""
    carrier: str = ""
    site: str = MAIN_SITE
    data_consent: bool = False


@pages.get("/anunciar")
@allow(PUBLIC)
async def show_announcement(request: Request, clock: TheClock) -> Response:
    """Show the form."""
    return await _shown(request, clock, Announcement(), {})


@pages.post("/anunciar")
@allow(PUBLIC)
async def announce(request: Request, form: Annotated[Announcement, Form()], clock: TheClock) -> Response:
    """Announce, and go on to the parcel's own page; what is wrong is said beside its field."""
    _ = translator(request)
    try:
        command = AnnouncePackage.model_validate(form.model_dump(exclude={"key"}))
        answer = accepted(await commands.announce_package.announce_package(command, transaction(request, form.key)))
    except ValidationError as error:
        errors = {name: SENTENCES.get(name, "") for name in errors_by_field(list(error.errors()))}
        return await _shown(request, clock, form, errors, HTTPStatus.UNPROCESSABLE_ENTITY)
    except Conflict as problem:
        errors = {"guide_number": N_("This guide is announced or at the shop already. Follow it by its code.")}
        return await _shown(request, clock, _anew(form), errors, problem.status)
    except TooManyRequests as problem:
        errors = {"": N_("Too many announcements from here. Wait a minute, then send it again.")}
        return await _shown(request, clock, form, errors, problem.status)
    code = json.loads(bytes(answer.body))["tracking_code"]
    response = RedirectResponse(f"/seguimiento/{quote(code)}", HTTPStatus.SEE_OTHER)
    session.remember(response, answer)
    flash.leave(response, _("Announced. Keep this code: with it you follow your parcel and collect it."))
    return response


def _anew(form: Announcement) -> Announcement:
    """Give the form a new key: a refusal is kept under its old one."""
    return form.model_copy(update={"key": str(uuid.uuid4())})


async def _shown(
    request: Request, clock: TheClock, form: Announcement, errors: dict[str, str], status: int = HTTPStatus.OK
) -> Response:
    sites = await read(request, list_sites.fetch(clock()))
    context = {"form": form, "errors": errors, "sites": sites["items"]}
    return render(request, "public/announce.html", context, status=status)


@pages.get("/politica-de-datos")
@allow(PUBLIC)
async def show_data_policy(request: Request, clock: TheClock) -> Response:
    """Show the policy that a consent given now is a consent to."""
    sites = await read(request, list_sites.fetch(clock()))
    return render(request, "public/data_policy.html", {"version": POLICY_VERSION, "sites": sites["items"]})
