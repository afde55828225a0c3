"""`/entrar` and `/salir`: a session for this browser, by the write API's own sign-in."""

import json
from http import HTTPStatus
from typing import Annotated

from fastapi import Form, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import BaseModel, Field, ValidationError

import commands.sign_in
from db.connections import TheConnections
from infra.auth import PUBLIC, Anyone, allow
from infra.clock import TheClock
from infra.errors import TooManyRequests, Unauthenticated, Unavailable
from web import flash, session
from web.navigation import home
from web.rendering import is_local, render, translator
from web.routing import router

pages = router()


class Credentials(BaseModel):
    """The form; `next` is the page that was asked for before."""

    username: str = ""
    password: str = Field(default="", repr=False)
    next: str = ""


def _next(wanted: str) -> str:
    return wanted if wanted and is_local(wanted) else "/entrar"  # which knows the role's first page


@pages.get("/entrar")
@allow(PUBLIC)
async def show_sign_in(request: Request, actor: Anyone, next: str = "") -> Response:  # noqa: A002 (the field's name)
    """Show the form; who is signed in already goes on."""
    if actor is not None:
        return RedirectResponse(next if next and is_local(next) else home(actor.role), HTTPStatus.SEE_OTHER)
    return render(request, "sign_in.html", {"next": next, "username": "", "refusal": None})


@pages.post("/entrar")
@allow(PUBLIC)
async def sign_in(
    request: Request, form: Annotated[Credentials, Form()], connections: TheConnections, clock: TheClock
) -> Response:
    """Sign in, and go on to the page that was asked for."""
    _ = translator(request)
    try:
        asked = commands.sign_in.SignIn(username=form.username, password=form.password)
        answer = await commands.sign_in.sign_in(asked, request, connections, clock)
    except (Unauthenticated, ValidationError):
        return _again(request, form, HTTPStatus.UNAUTHORIZED, _("The name or the password is wrong."))
    except TooManyRequests as problem:
        sentence = _("Too many tries. Wait %(seconds)s seconds.") % {"seconds": problem.headers["Retry-After"]}
        return _again(request, form, problem.status, sentence)
    except Unavailable as problem:
        return _again(request, form, problem.status, _("Nobody can sign in for a moment. Try again in a few seconds."))
    response = RedirectResponse(_next(form.next), HTTPStatus.SEE_OTHER)
    session.begin(request, response, json.loads(bytes(answer.body))["access_token"])
    return response


def _again(request: Request, form: Credentials, status: int, refusal: str) -> Response:
    context = {"next": form.next, "username": form.username, "refusal": refusal}
    return render(request, "sign_in.html", context, status=status)


@pages.post("/salir")
@allow(PUBLIC)
async def sign_out(request: Request) -> Response:
    """End this browser's session."""
    _ = translator(request)
    response = RedirectResponse("/entrar", HTTPStatus.SEE_OTHER)
    session.end(response)
    flash.leave(response, _("You have signed out."))
    return response
