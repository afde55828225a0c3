"""The read API."""

from fastapi import APIRouter, FastAPI

from db import admin_api
from db.connections import lifespan
from infra.clock import Clock, system_clock
from infra.http import create_app as compose
from infra.settings import Settings
from queries import list_packages

ROUTERS: list[APIRouter] = [list_packages.packages]


def create_app(settings: Settings | None = None, clock: Clock = system_clock) -> FastAPI:
    """Make the read API; without settings it reads the environment."""
    routers = [*ROUTERS, admin_api.admin]
    app = compose(
        "Paquetería: queries", "Listings, exact right after a write.", routers, lifespan(settings or Settings.load())
    )
    app.state.clock = clock
    return app
