"""Routes that people see: guarded like every other, and what is refused is a page, or the way to sign in."""

from collections.abc import Callable, Coroutine, Sequence
from http import HTTPStatus
from typing import Any, cast
from urllib.parse import quote

from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse
from starlette.exceptions import HTTPException

from infra import logs
from infra.auth import is_from_our_pages
from infra.errors import Forbidden, Invalid, NotFound, Problem, Unauthenticated, Unavailable
from infra.fields import errors_by_field
from infra.http import AWAY
from infra.routing import FORM, GuardedRoute
from web.rendering import render

log = logs.get("pages")

SIGN_IN = "/entrar"


class PageRoute(GuardedRoute):
    """A guarded route whose refusals are pages; parameters that it doesn't know are left alone."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wrap the guard."""
        guarded = super().get_route_handler()

        async def page(request: Request) -> Response:
            try:
                if not is_from_our_pages(request):
                    raise Forbidden("This form was sent from another site")
                return await guarded(request)
            except (Problem, RequestValidationError, *AWAY) as error:
                return refuse(request, problem_of(error), await self._typed(request))

        return page

    async def _typed(self, request: Request) -> list[tuple[str, str]]:
        """Give what a form came with, to be sent once more; one with a password is typed again."""
        sent: Request | None = getattr(request.state, "sent", None)
        if sent is None or self.media_type != FORM:
            return []
        typed = [(name, value) for name, value in (await sent.form()).multi_items() if isinstance(value, str)]
        return [] if "password" in dict(typed) else typed

    def _refuse_unknown_parameters(self, request: Request) -> None:
        """Leave them: an address that somebody was sent may carry marks of others."""


def router() -> APIRouter:
    """Make a router for pages; they aren't part of the documented interface, which they use."""
    return APIRouter(route_class=PageRoute, include_in_schema=False)


def problem_of(error: Exception) -> Problem:
    """Give what went wrong as one of our own refusals."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, RequestValidationError):
        errors = list(error.errors())
        if any("path" in part["loc"][:1] for part in errors):
            return NotFound("There is nothing under this address")
        return Invalid(errors_by_field(errors))
    log.warning("database_unavailable", error=type(error).__name__, detail=str(error).splitlines()[:1])
    return Unavailable("The database can't be reached right now")


def refuse(request: Request, problem: Problem, typed: Sequence[tuple[str, str]] = ()) -> Response:
    """Answer a refusal: who isn't signed in is sent to do so, and comes back to where they were.

    `typed` is what a form came with: of what is away for a moment the page asks again by itself.
    """
    if isinstance(problem, Unauthenticated):
        return _to_sign_in(request)
    headers = {name: value for name, value in problem.headers.items() if name == "Retry-After"}
    return render(request, "error.html", {"problem": problem, "typed": typed}, status=problem.status, headers=headers)


def _to_sign_in(request: Request) -> Response:
    is_script = "HX-Request" in request.headers
    back = request.headers.get("HX-Current-URL", "") if is_script else ""
    path = f"/{back.split('/', 3)[-1]}" if back.count("/") > 2 else request.url.path  # noqa: PLR2004
    if not is_script and request.method == "GET" and request.url.query:
        path = f"{path}?{request.url.query}"
    address = f"{SIGN_IN}?next={quote(path)}"
    if is_script:
        return Response(status_code=HTTPStatus.UNAUTHORIZED, headers={"HX-Redirect": address})
    return RedirectResponse(address, HTTPStatus.SEE_OTHER)


async def no_such_page(request: Request, error: Exception) -> Response:
    """Starlette's own refusals to a browser, outside the APIs."""
    error = cast("HTTPException", error)
    problem = NotFound("There is nothing under this address")
    return render(request, "error.html", {"problem": problem, "typed": ()}, status=error.status_code)
