"""The guard before every route: who asks, then what was sent, and only then the route itself."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Any, Never, TypeVar

from fastapi import APIRouter, Request, Response
from fastapi.params import File, Form
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.requests import ClientDisconnect

from infra.auth import Role, authorize
from infra.errors import Forbidden, Invalid, Malformed, TooLarge, TooSlow, Unavailable, UnsupportedMediaType

LARGEST_BODY = 4 * 1024 * 1024
"""Bytes; a batch of 1,000 receptions with every field filled takes under 3 MB."""

BODY_WITHIN = 30.0
"""Seconds in which a body must have come."""

ANSWERED_WITHIN = 60.0
"""Seconds in which an answer must be there to be sent; what is sent as it is made may take longer."""

FORM = "application/x-www-form-urlencoded"
"""What a form without files is sent as."""

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])

INTEGER_DIGITS = 19
"""A number of more digits is over 2^63 - 1 whatever they are."""


def takes_up_to(size: int) -> Callable[[Endpoint], Endpoint]:
    """Mark an endpoint whose bodies may have another size than LARGEST_BODY, in bytes."""

    def mark(endpoint: Endpoint) -> Endpoint:
        endpoint.__dict__["largest_body"] = size
        return endpoint

    return mark


def _integer(digits: str) -> int:
    return int(digits) if len(digits.lstrip("-")) <= INTEGER_DIGITS else 2**63


def _no_such_number(name: str) -> Never:
    raise Malformed(f"{name} is not JSON")


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise Malformed("A member is named twice in one object")
    return members


class BoundedRequest(Request):
    """A request whose body is bounded in size and read as strict JSON."""

    largest: int = LARGEST_BODY

    async def body(self) -> bytes:
        """Read the body.

        Over its bound it raises TooLarge without reading on, TooSlow after BODY_WITHIN, and Malformed where the line
        ends before it: whoever hangs up is no failure of ours, and mustn't look like one to whoever is on duty.
        """
        if not hasattr(self, "_bounded_body"):
            try:
                async with asyncio.timeout(BODY_WITHIN):
                    self._bounded_body = await self._read_all()
            except TimeoutError:
                raise TooSlow(f"A request's body must come within {BODY_WITHIN:.0f} s") from None
            except ClientDisconnect:
                raise Malformed("The request ended before its body") from None
            self._body = self._bounded_body  # where Starlette's form parser looks for a body already read
        return self._bounded_body

    async def _read_all(self) -> bytes:
        chunks = bytearray()
        async for chunk in self.stream():
            chunks += chunk
            self.refuse_size(len(chunks))
        return bytes(chunks)

    def refuse_size(self, size: int) -> None:
        """Raise TooLarge for a body of so many bytes, if it is."""
        if size > self.largest:
            raise TooLarge(f"A request's body may have {self.largest} bytes")

    async def read(self, media_type: str) -> None:
        """Read and parse the body ahead of FastAPI, which would turn every refusal on the way into a bare 400."""
        if await self.body() and media_type == "application/json":
            await self.json()

    async def json(self) -> Any:  # noqa: ANN401
        """Parse the body; syntax that RFC 8259 doesn't know, NaN among it, raises Malformed."""
        if not hasattr(self, "_strict_json"):
            try:
                self._strict_json = json.loads(
                    (await self.body()).decode("utf-8"),
                    parse_int=_integer,
                    parse_constant=_no_such_number,
                    object_pairs_hook=_members,
                )
            except (ValueError, RecursionError) as error:
                raise Malformed(f"The body is not JSON: {error}") from None
        return self._strict_json


class GuardedRoute(APIRoute):
    """A route that is refused unless its endpoint carries an access mark, and that knows all its parameters."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:  # noqa: ANN401
        self.is_marked = "access" in endpoint.__dict__
        self.access: Role | None = endpoint.__dict__.get("access")
        if self.access is not None:
            security: dict[str, Any] = {"security": [{"OAuth2PasswordBearer": []}]}
            options["openapi_extra"] = security | (options.get("openapi_extra") or {})
        super().__init__(path, endpoint, **options)
        self.parameters = {name for field in self.dependant.query_params for name in _names(field)}
        self.media_type = _media_type(None if self.body_field is None else self.body_field.field_info)
        self.largest_body: int = endpoint.__dict__.get("largest_body", LARGEST_BODY)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wrap FastAPI's handler, which reads the body before it asks who sent it."""
        handle = super().get_route_handler()

        async def guarded(request: Request) -> Response:
            if not self.is_marked:
                raise Forbidden("Nobody has been given this route")
            request.state.caller = await authorize(request, self.access)
            self._refuse_unknown_parameters(request)
            bounded = BoundedRequest(request.scope, request.receive)
            bounded.largest = self.largest_body
            if self.body_field is not None:
                self._refuse_other_media(bounded)
                await bounded.read(self.media_type)
                request.state.sent = bounded
            return await in_time(handle(bounded))

        return guarded

    def _refuse_unknown_parameters(self, request: Request) -> None:
        unknown = [name for name in request.query_params if name not in self.parameters]
        if unknown:
            raise Invalid({name: ["there is no such parameter"] for name in unknown})

    def _refuse_other_media(self, request: BoundedRequest) -> None:
        if "Content-Type" not in request.headers and request.headers.get("Content-Length", "0") == "0":
            return
        media, _, options = request.headers.get("Content-Type", "").partition(";")
        if media.strip().lower() != self.media_type:
            raise UnsupportedMediaType(f"The body must be {self.media_type}")
        charset = options.lower().partition("charset=")[2].strip(' "')
        if charset not in ("", "utf-8", "utf8"):
            raise UnsupportedMediaType("The body must be in UTF-8")
        length = request.headers.get("Content-Length", "0")
        if length.isdecimal():
            request.refuse_size(int(length))


def _media_type(body: Any) -> str:  # noqa: ANN401
    """Tell what kind of body a field of this kind is read from; a file's is a form's too."""
    if isinstance(body, File):
        return "multipart/form-data"
    return FORM if isinstance(body, Form) else "application/json"


async def in_time(answering: Coroutine[Any, Any, Response]) -> Response:
    """Give the answer, or give it up: what it was doing is undone, and Unavailable says so."""
    try:
        async with asyncio.timeout(ANSWERED_WITHIN) as limit:
            return await answering
    except TimeoutError:
        if not limit.expired():
            raise
        raise Unavailable(f"No answer was found within {ANSWERED_WITHIN:.0f} s") from None


def _names(field: Any) -> list[str]:  # noqa: ANN401
    """Name the parameters of a field; a model stands for one of each of its own fields."""
    annotation = field.field_info.annotation
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [info.alias or name for name, info in annotation.model_fields.items()]
    return [field.alias]


def router(tag: str) -> APIRouter:
    """Make a router whose routes are guarded, under one heading of the documentation."""
    return APIRouter(prefix="/api/v1", tags=[tag], route_class=GuardedRoute)
