"""Queries that are asked most, past FastAPI's routing: by the same models and the same edge, with the same bytes.

What is the least bit unusual (a caller who isn't known yet, a parameter that is unknown, repeated or invalid, a body)
goes the long way, where such things are refused.
"""

import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, get_origin
from urllib.parse import parse_qsl

from fastapi import APIRouter, FastAPI, Request, Response
from pydantic import BaseModel, ValidationError
from starlette.types import ASGIApp, Receive, Scope, Send

from db.consistency import Token
from infra.clock import Clock
from infra.errors import Malformed
from infra.http import Lifespan, answered
from infra.routing import GuardedRoute, in_time
from queries.hot_pages import HotPages
from queries.pages import Edge, Query, edge_of

Ask = Callable[[Any, datetime, str], Query]
"""Makes the question of parsed parameters, the present instant, and the key that signs cursors."""

TELLS_OF_A_BODY = frozenset({b"content-length", b"transfer-encoding"})


@dataclass(frozen=True, slots=True)
class Direct:
    """A query's route, the model of its parameters, and the question that they make."""

    route: GuardedRoute
    parameters: type[BaseModel]
    ask: Ask

    def parse(self, query_string: bytes) -> BaseModel | None:
        """Read the parameters as FastAPI does; None where it would refuse them, or might."""
        values: dict[str, Any] = {}
        for name, value in parse_qsl(query_string.decode("latin-1"), keep_blank_values=True):
            if self._is_list(name):
                values.setdefault(name, []).append(value)
            elif name in values:
                return None
            else:
                values[name] = value
        try:
            return self.parameters.model_validate(values)
        except ValidationError:
            return None

    def _is_list(self, name: str) -> bool:
        field = self.parameters.model_fields.get(name)
        return field is not None and get_origin(field.annotation) is list


def direct(router: APIRouter, path: str, parameters: type[BaseModel], ask: Ask) -> Direct:
    """Let a route of the router be passed by; `parameters` forbids what it doesn't know."""
    route = next(route for route in router.routes if isinstance(route, GuardedRoute) and route.path == path)
    return Direct(route, parameters, ask)


class DirectQueries:
    """Finds the short way for a request, where there is one."""

    def __init__(self, app: FastAPI, queries: Sequence[Direct], clock: Clock) -> None:
        self._app = app
        self._pages: HotPages = app.state.hot_pages
        self._tokens = app.state.connections.tokens
        self._key: str = app.state.signing_key
        self._queries = {query.route.path: query for query in queries}
        self._clock = clock

    def find(self, scope: Scope) -> ASGIApp | None:
        """Give what answers this request, or None: then it goes the long way."""
        if scope["type"] != "http" or scope["method"] != "GET":
            return None
        query = self._queries.get(scope["path"])
        if query is None:
            return None
        headers = dict(scope["headers"])
        if (
            len(headers) != len(scope["headers"])
            or not TELLS_OF_A_BODY.isdisjoint(headers)
            or not self._pages.is_let_in(headers, query.route.access, self._clock())
        ):
            return None
        parameters = query.parse(scope["query_string"])
        if parameters is None:
            return None
        try:
            token = self._token(headers.get(b"consistency-token"))
        except Malformed:
            return None
        scope["app"], scope["route"] = self._app, query.route
        return self._answering(query, parameters, token, headers)

    def _token(self, text: bytes | None) -> Token | None:
        token: Token | None = None if text is None else self._tokens.read(text.decode("latin-1"))
        return token

    def _answering(
        self, query: Direct, parameters: BaseModel, token: Token | None, headers: dict[bytes, bytes]
    ) -> ASGIApp:
        def sent(name: bytes) -> str | None:
            value = headers.get(name)
            return None if value is None else value.decode("latin-1")

        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            request = Request(scope)
            request.state.caller = None
            edge: Edge = edge_of(request, token, sent(b"if-none-match"), sent(b"cache-control"))
            response = await answered(request, asked(edge))
            await response(scope, receive, send)

        async def asked(edge: Edge) -> Response:
            return await in_time(edge.answer(query.ask(parameters, self._clock(), self._key)))

        return answer


def with_direct(lifespan: Lifespan, queries: Sequence[Direct]) -> Lifespan:
    """Let these queries be answered past the routing, by a lifespan that has opened the hot pages."""

    @contextlib.asynccontextmanager
    async def opened(app: FastAPI) -> AsyncIterator[None]:
        async with lifespan(app):
            app.state.bypass = DirectQueries(app, queries, app.state.clock).find
            yield

    return opened
