"""Both APIs on one port."""

import importlib
import inspect
import pkgutil
from typing import TypeGuard

from fastapi.routing import APIRoute
from fastapi.testclient import TestClient

import commands.api
import queries.api
import web.pages
from infra.settings import Settings
from tests.support import Clock
from web.api import create_app
from web.pages import parcel


def test_one_document_describes_both(settings: Settings, clock: Clock) -> None:
    """Every operation of either API is there once, under the same address, and so are health and metrics."""
    with TestClient(create_app(settings, clock)) as client:
        both = client.get("/openapi.json").json()["paths"]
        assert client.get("/health/ready").json()["missing"] == {}
        assert client.get("/api/v1/sites").json()["items"][0]["site"] == "PRINCIPAL"
        assert client.post("/api/v1/receptions").status_code == 401
        assert client.get("/docs").status_code == 200
    found = {(path, method) for path, operations in both.items() for method in operations}
    for api in (commands.api, queries.api):
        paths = api.create_app(settings, clock).openapi()["paths"]
        assert {(path, method) for path, operations in paths.items() for method in operations} <= found
    names = [operation["operationId"] for operations in both.values() for operation in operations.values()]
    assert len(names) == len(set(names))


def test_what_the_pages_do_is_a_documented_endpoint() -> None:
    """Each query that a page asks and each command that it runs is a route of the APIs, in their document."""
    routers = [*commands.api.ROUTERS, *queries.api.ROUTERS]
    documented = {route.endpoint for router in routers for route in router.routes if _is_documented(route)}
    files = {endpoint.__module__ for endpoint in documented}
    asked, done = set(), set()
    for each in pkgutil.walk_packages(web.pages.__path__, "web.pages."):
        for thing in vars(importlib.import_module(each.name)).values():
            if inspect.ismodule(thing) and hasattr(thing, "fetch"):
                asked.add(thing.__name__)
            elif inspect.iscoroutinefunction(thing) and thing.__module__.startswith("commands."):
                done.add(thing)
    done |= {handler for _, handler, _ in parcel.STEPS.values()}
    assert {name.partition(".")[0] for name in asked} == {"queries"}
    assert asked <= files
    assert len(done) > len(parcel.STEPS)
    assert done <= documented


def _is_documented(route: object) -> TypeGuard[APIRoute]:
    return isinstance(route, APIRoute) and route.include_in_schema
