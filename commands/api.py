"""The write API: every command's route in one application."""

from fastapi import APIRouter, FastAPI

from commands import (
    add_photo,
    add_positions,
    add_site,
    add_staff,
    announce_package,
    cancel_package,
    change_customer,
    change_site,
    change_staff,
    correct_package,
    deliver_package,
    receive_batch,
    receive_by_guide,
    receive_package,
    relocate_package,
    revert_delivery,
    set_tariff,
    sign_in,
)
from commands.direct import direct, with_direct
from db import admin_api
from db.connections import lifespan
from infra import http
from infra.clock import Clock, system_clock
from infra.settings import Settings

ROUTERS: list[APIRouter] = [
    sign_in.routes,
    announce_package.routes,
    receive_package.routes,
    receive_by_guide.routes,
    receive_batch.routes,
    relocate_package.routes,
    deliver_package.routes,
    revert_delivery.routes,
    correct_package.routes,
    cancel_package.routes,
    add_photo.routes,
    change_customer.routes,
    add_site.routes,
    change_site.routes,
    add_positions.routes,
    set_tariff.routes,
    add_staff.routes,
    change_staff.routes,
]

DIRECT = [
    command
    for routes in (
        announce_package.routes,
        receive_package.routes,
        receive_by_guide.routes,
        relocate_package.routes,
        deliver_package.routes,
        revert_delivery.routes,
        correct_package.routes,
        cancel_package.routes,
    )
    for command in direct(routes)
]
"""What is done at the counter, parcel by parcel."""


def opened(lifespan: http.Lifespan) -> http.Lifespan:
    """Give the lifespan of an application that has these commands."""
    return with_direct(lifespan, DIRECT)


def create_app(settings: Settings | None = None, clock: Clock = system_clock) -> FastAPI:
    """Make the application; it opens its connections when it starts."""
    app = http.create_app(
        "Paquetería: commands",
        "What changes a parcel. An answer's Consistency-Token makes any query include the change.",
        [*ROUTERS, admin_api.admin],
        opened(lifespan((settings or Settings.load()).for_commands(), is_read=False)),
    )
    app.state.clock = clock
    return app
