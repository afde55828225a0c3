"""The read API."""

from fastapi import APIRouter, FastAPI

from db import admin_api
from db.connections import lifespan
from infra.clock import Clock, system_clock
from infra.http import Lifespan
from infra.http import create_app as compose
from infra.settings import Settings
from infra.stopping import ending_streams
from queries import (
    arrivals,
    export_packages,
    get_customer,
    get_package,
    get_photo,
    list_customers,
    list_packages,
    list_positions,
    list_sites,
    list_staff,
    list_tariffs,
    lookup_packages,
    package_fee,
    package_history,
    summary,
    track_package,
    updates,
)
from queries.direct import with_direct
from queries.hot_pages import with_hot_pages

ROUTERS: list[APIRouter] = [
    list_packages.packages,
    export_packages.export,
    get_package.package,
    get_photo.photo,
    package_history.history,
    package_fee.fee,
    lookup_packages.lookup,
    list_customers.customers,
    get_customer.customer,
    list_sites.sites,
    list_positions.positions,
    list_tariffs.tariffs,
    list_staff.staff,
    summary.summary,
    arrivals.arrivals,
    track_package.track,
    updates.updates,
]

DIRECT = (list_packages.DIRECT, lookup_packages.DIRECT)
"""Those that are asked most."""

DESCRIPTION = """What is in the shop, exact right after a write.

Send back the `Consistency-Token` of an answer, of a command or of a query, and the next answer includes at least that.
`ETag` and `If-None-Match` save the bytes of what hasn't changed; `HEAD` is answered as `GET` is, without the body."""


def opened(settings: Settings) -> Lifespan:
    """Give the lifespan of an application that has these queries."""
    return ending_streams(with_direct(with_hot_pages(lifespan(settings)), DIRECT))


def create_app(settings: Settings | None = None, clock: Clock = system_clock) -> FastAPI:
    """Make the read API; without settings it reads the environment."""
    lives = opened((settings or Settings.load()).for_queries())
    app = compose("Paquetería: queries", DESCRIPTION, [*ROUTERS, admin_api.admin], lives)
    app.state.clock = clock
    return app
