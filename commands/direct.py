"""Commands past FastAPI's routing: the same endpoints, after the same checks in the same order, with the same answers.

A third of what a command cost the write API was routers within routers and dependencies that are solved anew for each
request. What is the least bit unusual about its path or its headers goes the long way, where such things are refused.
"""

import contextlib
import re
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, FastAPI, Response
from fastapi.exceptions import RequestValidationError
from starlette.types import ASGIApp, Receive, Scope, Send

from commands.transaction import IfMatch, Transaction, transaction, versioned_transaction
from db.connections import current_connections
from infra.auth import anyone, authorize
from infra.clock import current_clock
from infra.errors import ConfigurationError
from infra.http import Bypass, Lifespan, answered
from infra.routing import BoundedRequest, GuardedRoute, in_time

ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}(?=/|$)")
"""An id as we write it; whoever writes it otherwise goes the long way."""

KEY = re.compile(rb"[\x20-\x7e]{8,128}")

LENGTH = re.compile(rb"[1-9][0-9]{0,9}")

Parse = Callable[..., tuple[Any, list[dict[str, Any]]]]
"""Gives what a body comes to, or what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Direct:
    """A command's route: its endpoint takes an id or none, the parsed body, and the transaction to run in."""

    route: GuardedRoute
    parse: Parse
    body_name: str
    id_name: str | None
    is_versioned: bool

    async def answer(self, request: BoundedRequest, id_: str | None, headers: Mapping[bytes, bytes]) -> Response:
        """Ask who it is, then what was sent, then the endpoint; whatever is wrong is raised."""
        request.state.caller = await authorize(request, self.route.access)
        request.largest = self.route.largest_body
        request.refuse_size(int(headers[b"content-length"]))
        sent = await request.json()
        given: dict[str, Any] = {"transaction": self._transaction(request, headers)}
        command, errors = self.parse(sent, loc=("body",))
        if errors:
            raise RequestValidationError(errors)
        given[self.body_name] = command
        if self.id_name is not None:
            given[self.id_name] = uuid.UUID(id_)
        return await in_time(self.route.endpoint(**given))

    def _transaction(self, request: BoundedRequest, headers: Mapping[bytes, bytes]) -> Transaction:
        key = headers.get(b"idempotency-key")
        if_match = headers.get(b"if-match") if self.is_versioned else None
        return Transaction(
            request,
            current_connections(request),
            current_clock(request),
            anyone(request),
            None if key is None else key.decode("latin-1"),
            IfMatch.parse(None if if_match is None else if_match.decode("latin-1")),
        )


def direct(router: APIRouter) -> list[Direct]:
    """Let the routes of a router be passed by."""
    return [_direct(route) for route in router.routes if isinstance(route, GuardedRoute)]


def _direct(route: GuardedRoute) -> Direct:
    takes = route.dependant
    ids = [parameter.name for parameter in takes.path_params if parameter.field_info.annotation is uuid.UUID]
    others = len(takes.path_params) - len(ids) + len(takes.query_params)
    dependencies = [dependency.call for dependency in takes.dependencies]
    is_plain = dependencies in ([transaction], [versioned_transaction]) and len(ids) <= 1 and not others
    if not is_plain or route.body_field is None:
        raise ConfigurationError(f"{route.path} takes more than an id, a body and its transaction")
    id_name = ids[0] if ids else None
    return Direct(
        route, route.body_field.validate, takes.body_params[0].name, id_name, dependencies == [versioned_transaction]
    )


class DirectCommands:
    """Finds the short way for a request, where there is one."""

    def __init__(self, app: FastAPI, commands: Sequence[Direct]) -> None:
        self._app = app
        self._commands = {
            (method, re.sub(r"\{.*\}", "{}", command.route.path)): command
            for command in commands
            for method in command.route.methods or ()
        }

    def find(self, scope: Scope) -> ASGIApp | None:
        """Give what answers this request, or None: then it goes the long way."""
        if scope["type"] != "http" or scope["query_string"]:
            return None
        named = ID.search(scope["path"])
        path = scope["path"] if named is None else f"{scope['path'][: named.start()]}{{}}{scope['path'][named.end() :]}"
        command = self._commands.get((scope["method"], path))
        headers = dict(scope["headers"])
        if command is None or len(headers) != len(scope["headers"]) or not _is_plain(headers):
            return None
        if (named is None) != (command.id_name is None):
            return None
        scope["app"], scope["route"] = self._app, command.route

        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            request = BoundedRequest(scope, receive)
            id_ = None if named is None else named[0]
            response = await answered(request, command.answer(request, id_, headers))
            await response(scope, receive, send)

        return answer


def _is_plain(headers: Mapping[bytes, bytes]) -> bool:
    """Tell whether these are headers of a JSON body of known length, under a good key or none."""
    length = headers.get(b"content-length", b"0")
    key = headers.get(b"idempotency-key")
    return (
        headers.get(b"content-type") == b"application/json"
        and LENGTH.fullmatch(length) is not None
        and b"transfer-encoding" not in headers
        and (key is None or KEY.fullmatch(key) is not None)
    )


def with_direct(lifespan: Lifespan, commands: Sequence[Direct]) -> Lifespan:
    """Let these commands be answered past the routing, and whatever the lifespan lets past it besides."""

    @contextlib.asynccontextmanager
    async def opened(app: FastAPI) -> AsyncIterator[None]:
        async with lifespan(app):
            others: Bypass | None = getattr(app.state, "bypass", None)
            find = DirectCommands(app, commands).find
            app.state.bypass = find if others is None else lambda scope: find(scope) or others(scope)
            yield
            app.state.bypass = others

    return opened
