"""Everything on one port: both APIs, described by one document, and the pages that people see."""

from fastapi import APIRouter, FastAPI, Request, Response
from starlette.exceptions import HTTPException

import commands.api
import queries.api
from db import admin_api
from infra.clock import Clock, system_clock
from infra.errors import Problem
from infra.http import create_app as compose
from infra.http import http_exception, respond
from infra.settings import Settings
from web.pages import administration, announce, customer, packages, parcel, sign_in, start, summary, tracking
from web.pages.counter import page as counter
from web.rendering import assets
from web.routing import no_such_page, refuse

DESCRIPTION = f"""Parcels from their announcement to their end: commands write, queries read.

{queries.api.DESCRIPTION}"""

PAGES: list[APIRouter] = [
    start.pages,
    announce.pages,
    tracking.pages,
    sign_in.pages,
    counter.pages,
    packages.pages,
    parcel.pages,
    customer.pages,
    summary.pages,
    administration.pages,
]


def create_app(settings: Settings | None = None, clock: Clock = system_clock) -> FastAPI:
    """Make one application of both APIs and the pages; without settings it reads the environment."""
    lives = commands.api.opened(queries.api.opened((settings or Settings.load()).for_commands()))
    routers = [*commands.api.ROUTERS, *queries.api.ROUTERS, admin_api.admin, *PAGES]
    app = compose("Paquetería", DESCRIPTION, routers, lives)
    app.router.routes.append(assets().route)
    app.add_exception_handler(HTTPException, _no_such_thing)
    app.state.respond = _respond
    app.state.clock = clock
    return app


def _is_read(request: Request) -> bool:
    """Tell whether a person at a browser is answered, and not a program."""
    return "text/html" in request.headers.get("Accept", "") and not request.url.path.startswith("/api/")


async def _no_such_thing(request: Request, error: Exception) -> Response:
    """Answer a browser with a page, and a program with a problem."""
    return await (no_such_page if _is_read(request) else http_exception)(request, error)


def _respond(problem: Problem, request: Request) -> Response:
    """Say to a browser in its language that something failed, and to a program as every problem."""
    return refuse(request, problem) if _is_read(request) else respond(problem, request)
