"""`/`: what anybody comes for, following a parcel by its code or announcing one."""

from fastapi import Request, Response

from infra.auth import PUBLIC, allow
from infra.clock import TheClock
from queries import list_sites, list_tariffs
from web.reading import read
from web.rendering import render
from web.routing import router
from web.tariffs import in_force

pages = router()


@pages.get("/")
@allow(PUBLIC)
async def show_start(request: Request, clock: TheClock) -> Response:
    """Show both ways on, with the shops' hours and what it costs."""
    now = clock()
    sites, tariffs = await read(request, list_sites.fetch(now), list_tariffs.fetch(now))
    return render(request, "public/start.html", {"sites": sites["items"], "tariff": in_force(tariffs["items"], now)})
