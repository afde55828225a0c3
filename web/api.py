"""Both APIs on one port, described by one document."""

from fastapi import FastAPI

import commands.api
import queries.api
from db import admin_api
from db.connections import lifespan
from infra.clock import Clock, system_clock
from infra.http import create_app as compose
from infra.settings import Settings
from infra.stopping import ending_streams
from queries.hot_pages import with_hot_pages

DESCRIPTION = f"""Parcels from their announcement to their end: commands write, queries read.

{queries.api.DESCRIPTION}"""


def create_app(settings: Settings | None = None, clock: Clock = system_clock) -> FastAPI:
    """Make one application of both APIs; without settings it reads the environment."""
    opened = ending_streams(with_hot_pages(lifespan(settings or Settings.load())))
    routers = [*commands.api.ROUTERS, *queries.api.ROUTERS, admin_api.admin]
    app = compose("Paquetería", DESCRIPTION, routers, opened)
    app.state.clock = clock
    return app
