"""What every application has: problem+json for all that goes wrong, request ids, health, metrics, documentation."""

import asyncio
import re
import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Literal, cast

import psycopg
import psycopg_pool
import structlog
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.telemetry import TelemetryConfig
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from infra import logs, tracing
from infra.auth import PUBLIC, Caller, allow
from infra.clock import system_clock
from infra.documentation import document
from infra.errors import PROBLEM_TYPE, Invalid, Malformed, NotFound, Problem, Unavailable
from infra.exposition import expose
from infra.fields import errors_by_field
from infra.headers import Head, secured
from infra.request_figures import Counted
from infra.routing import GuardedRoute

log = logs.get("http")
audit = logs.get("audit")

AWAY = (psycopg.OperationalError, psycopg.InterfaceError, psycopg_pool.PoolTimeout)
"""What is raised while the database can't be reached."""

OURS_INSTEAD: TelemetryConfig = {"auto_configure": False, "tracing": False, "metrics": False, "logs": False}
"""FastAPI's own telemetry tells paths and queries, which are about people; see `infra.tracing` and `infra.metrics`."""

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]
Findings = Callable[[], Awaitable[Mapping[str, str]]]
"""Tells by name, a sentence each: `app.state.readiness` what is missing, `app.state.warnings` what is amiss."""


class ProblemDocument(BaseModel):
    """RFC 9457; `errors` by field in a 422, and further members that the endpoint's text names."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    detail: str
    instance: str
    errors: dict[str, list[str]] | None = Field(default=None, json_schema_extra={"nullable": True})


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Document the refusals that a route may answer with."""
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {PROBLEM_TYPE: {"schema": ProblemDocument.model_json_schema()}},
        }
        for status in sorted({400, 422, 503, *statuses})
    }


Respond = Callable[[Problem, Request], Response]
"""Writes a refusal for whoever asks; `app.state.respond`, where it is set, writes what nobody foresaw."""


def respond(problem: Problem, request: Request) -> Response:
    """Write a refusal as problem+json."""
    return JSONResponse(
        problem.body(request.url.path), status_code=problem.status, headers=problem.headers, media_type=PROBLEM_TYPE
    )


async def _refused(request: Request, error: Exception) -> Response:
    return respond(cast("Problem", error), request)


async def invalid(request: Request, error: Exception) -> Response:
    """Answer for what FastAPI's validation refuses, by where it stood."""
    errors = list(cast("RequestValidationError", error).errors())
    places = {error["loc"][0] for error in errors if error["loc"]}
    if "path" in places:
        return respond(NotFound("There is nothing under this address"), request)
    if "header" in places:
        fields = errors_by_field([error for error in errors if error["loc"][0] == "header"])
        return respond(Malformed("; ".join(f"{name}: {', '.join(texts)}" for name, texts in fields.items())), request)
    return respond(Invalid(errors_by_field(errors)), request)


async def http_exception(request: Request, error: Exception) -> Response:
    """Starlette's own refusals: no such route, no such method, a form that can't be read."""
    error = cast("HTTPException", error)
    body = {
        "type": "about:blank",
        "title": HTTPStatus(error.status_code).phrase,
        "status": error.status_code,
        "detail": str(error.detail),
        "instance": request.url.path,
    }
    headers = dict(error.headers or {})
    return JSONResponse(body, status_code=error.status_code, headers=headers, media_type=PROBLEM_TYPE)


async def database_away(request: Request, error: Exception) -> Response:
    """Answer for a database that can't be reached."""
    log.warning("database_unavailable", error=type(error).__name__, detail=str(error).splitlines()[:1])
    return respond(Unavailable("The database can't be reached right now"), request)


async def answered(request: Request, answering: Awaitable[Response]) -> Response:
    """Give the answer, or the refusal that it raises: what an application's handlers do for those that pass it by."""
    try:
        return await answering
    except Problem as problem:
        return respond(problem, request)
    except RequestValidationError as error:
        return await invalid(request, error)
    except AWAY as error:
        return await database_away(request, error)


class Observed:
    """Outermost layer: gives each request an id, counts its time by route and status, and answers for a failure."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on the request; the id is the caller's `X-Request-Id` where that is a plain one."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = _request_id(scope["headers"])
        structlog.contextvars.bind_contextvars(request_id=request_id)
        scope.setdefault("state", {})["request_id"] = request_id
        counted = Counted(receive, send)

        async def send_observed(message: Message) -> None:
            if message["type"] == RESPONSE:
                headers = secured(list(message.get("headers", [])))
                message["headers"] = [*headers, (b"x-request-id", request_id.encode())]
            await counted.send_counted(message)

        try:
            await self.app(scope, counted.receive_counted, send_observed)
        except Exception:
            log.exception("unhandled_exception", route=getattr(scope.get("route"), "path", "unknown"))
            if counted.status:
                raise  # half an answer is out already: only breaking the connection tells the caller
            failure = Problem("The server failed; its log has the details under this request's X-Request-Id")
            answer: Respond = getattr(scope["app"].state, "respond", respond)
            await answer(failure, Request(scope))(scope, receive, send_observed)
        finally:
            route = getattr(scope.get("route"), "path", "unknown")
            seconds = counted.observe(scope["method"], route)
            tell_of_request(scope, counted.status, seconds)
            if tracing.is_on():
                tracing.tell_request(request_id, f"{scope['method']} {route}", seconds, status=int(counted.status))
            structlog.contextvars.unbind_contextvars("request_id")


READING = frozenset({"GET", "OPTIONS"})
AUDITED = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.TOO_MANY_REQUESTS})


def tell_of_request(scope: Scope, status: int, seconds: float) -> None:
    """Log a command, a refusal of whoever asked, and a failure; what merely reads is counted alone.

    Addresses, queries and bodies are about people, and aren't told: of the path the route, of the person the id.
    """
    is_refused = status in AUDITED
    if scope["method"] in READING and not is_refused and status < HTTPStatus.INTERNAL_SERVER_ERROR:
        return
    caller: Caller | None = scope["state"].get("caller")
    route = scope.get("route")
    (audit if is_refused else log).info(
        "refused" if is_refused else "request",
        method=scope["method"],
        route=getattr(route, "path", "unknown"),
        command=getattr(route, "name", "unknown"),
        status=int(status),
        duration_ms=round(seconds * 1000, 2),
        actor=str(caller.identity.staff_id) if caller else None,
    )


def _request_id(headers: Iterable[tuple[bytes, bytes]]) -> str:
    for name, value in headers:
        if name == b"x-request-id" and is_request_id(value):
            return value.decode()
    return uuid.uuid4().hex


def is_request_id(value: bytes) -> bool:
    """Tell whether a caller's own id is plain enough to be logged and sent back."""
    return re.fullmatch(rb"[A-Za-z0-9_.-]{1,64}", value) is not None


@dataclass(slots=True)
class Whole:
    """An answer that is known before the application is asked."""

    status: int
    head: Head
    body: bytes
    request_id: bytes

    def messages(self) -> tuple[Message, Message]:
        """Give it as an application sends it."""
        headers = [*self.head.headers, (b"x-request-id", self.request_id)]
        return {"type": RESPONSE, "status": self.status, "headers": headers}, {"type": BODY, "body": self.body}


RESPONSE, BODY = "http.response.start", "http.response.body"

Front = Callable[[Scope], Whole | None]
"""Gives the whole answer to a request, or None where that takes the application itself."""

ASKED_FRONT = "paqueteria.asked_front"
"""What a server notes in a request's scope if the front, which it has asked itself, has no answer."""


def front_of(app: object) -> Front | None:
    """Find what answers before an application does."""
    front: Front | None = getattr(getattr(app, "state", None), "front", None)
    return front


Bypass = Callable[[Scope], ASGIApp | None]
"""Gives what answers a request past the application's routing, or None where none does."""


def without_body(send: Send) -> Send:
    """Send an answer's status and headers alone; one that would go on finds its reader gone."""
    is_ended = False

    async def send_head(message: Message) -> None:
        nonlocal is_ended
        if message["type"] == BODY:
            if is_ended:
                return
            is_ended, message = True, {"type": BODY, "body": b""}
        await send(message)

    return send_head


class Fronted(FastAPI):
    """An application before which `app.state.front`, then `app.state.bypass`, answer what they can."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer from the front, past the routing, or as FastAPI does; HEAD as GET, which it counts as."""
        if scope.get("method") == "HEAD":
            scope, send = {**scope, "method": "GET"}, without_body(send)
        front = None if ASKED_FRONT in scope else front_of(self)
        answer = None if front is None else front(scope)
        if answer is not None:
            for message in answer.messages():
                await send(message)
            return
        bypass: Bypass | None = getattr(self.state, "bypass", None)
        direct = None if bypass is None else bypass(scope)
        await (super().__call__ if direct is None else Observed(direct))(scope, receive, send)


operations = APIRouter(tags=["operations"], route_class=GuardedRoute)


@operations.get("/health/live", responses=problems(401))
@allow(PUBLIC)
async def live() -> dict[str, str]:
    """Tell that the process answers."""
    return {"status": "live"}


class Ready(BaseModel):
    """Whether this process can serve; what it misses by name, and what a reader should know of what it serves."""

    status: Literal["ready", "degraded", "missing"]
    missing: dict[str, str]
    warnings: dict[str, str]


@operations.get("/health/ready", response_model=Ready, responses={**problems(401), 503: {"model": Ready}})
@allow(PUBLIC)
async def ready(request: Request) -> Response:
    """Tell whether the database is reached and migrated; what is merely late or being mended is a warning."""
    missing = dict(await request.app.state.readiness())
    warnings = {} if missing else dict(await request.app.state.warnings())
    body = {"status": _status(missing, warnings), "missing": missing, "warnings": warnings}
    if missing:
        return JSONResponse(body, HTTPStatus.SERVICE_UNAVAILABLE, {"Retry-After": "1"})
    return JSONResponse(body)


def _status(missing: Mapping[str, str], warnings: Mapping[str, str]) -> str:
    if missing:
        return "missing"
    return "degraded" if warnings else "ready"


@operations.get(
    "/metrics",
    response_class=Response,
    responses={**problems(401), 200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
@allow(PUBLIC)
async def prometheus() -> Response:
    """Tell this service's figures to Prometheus: those of all workers, whichever of them answers."""
    return Response(await asyncio.to_thread(expose), headers={"Content-Type": CONTENT_TYPE_LATEST})


def create_app(title: str, description: str, routers: Iterable[APIRouter], lifespan: Lifespan) -> FastAPI:
    """Compose an application; `lifespan` opens what the routes use and sets `app.state` (see `db.connections`)."""
    logs.configure()
    tracing.configure()
    app = Fronted(
        title=title,
        description=description,
        version="1.0.0",
        lifespan=lifespan,
        openapi_url=None,  # see `infra.documentation`
        docs_url=None,
        redoc_url=None,
        telemetry=OURS_INSTEAD,
        strict_content_type=False,
    )
    app.state.clock = system_clock
    for part in (*routers, operations):
        app.include_router(part)
    app.add_middleware(Observed)
    app.add_exception_handler(Problem, _refused)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http_exception)
    for away in AWAY:
        app.add_exception_handler(away, database_away)
    _document_sign_in(app)
    document(app)
    return app


def _document_sign_in(app: FastAPI) -> None:
    """Say in the OpenAPI document how one signs in, so that the `/docs` page can."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        flow = {"password": {"tokenUrl": "/api/v1/auth/token", "scopes": {}}}
        schemes = document.setdefault("components", {}).setdefault("securitySchemes", {})
        schemes["OAuth2PasswordBearer"] = {"type": "oauth2", "flows": flow}
        return document

    app.__dict__["openapi"] = openapi
