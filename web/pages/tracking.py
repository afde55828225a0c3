"""`/seguimiento/{code}`: one parcel for whoever has its code, masked as the read API's `track` is."""

from datetime import datetime
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from fastapi import Request, Response
from fastapi.responses import RedirectResponse

from commands.packages import ANNOUNCEMENT_LASTS
from db.connections import TheConnections
from infra.auth import PUBLIC, allow
from infra.clock import TheClock
from infra.errors import NotFound
from infra.fields import instant_text
from queries import list_sites, track_package
from web.codes import qr
from web.localization import instant
from web.reading import read
from web.rendering import render
from web.routing import router

pages = router()


@pages.get("/seguimiento")
@allow(PUBLIC)
async def find_code(code: str = "") -> Response:
    """Lead the form's code to its own address, which can be kept and sent."""
    wanted = code.strip()[:40].replace("/", "")
    return RedirectResponse(f"/seguimiento/{quote(wanted)}" if wanted else "/", HTTPStatus.SEE_OTHER)


@pages.get("/seguimiento/{code}")
@allow(PUBLIC)
async def show_tracking(code: str, request: Request, connections: TheConnections, clock: TheClock) -> Response:
    """Show status, times and what is due and why; an unknown code and an unreadable one look the same."""
    await track_package.admit(request, connections)
    now = clock()
    try:
        parcel, sites = await read(request, track_package.fetch(code, now), list_sites.fetch(now))
    except NotFound as problem:
        return render(request, "public/unknown_code.html", {"code": code[:40]}, status=problem.status)
    context = {
        "parcel": parcel,
        "site": next(site for site in sites["items"] if site["site"] == parcel["site"]),
        "steps": _steps(parcel),
        "lapses_at": _lapses_at(parcel, now),
        "qr": qr(parcel["tracking_code"].replace("-", "")),
    }
    return render(request, "public/tracking.html", context)


def _steps(parcel: dict[str, Any]) -> list[tuple[str, str | None]]:
    """Give each status and when it came, then those that are still to come."""
    done = {step["status"]: step["at"] for step in parcel["timeline"]}
    to_come = [] if parcel["status"] == "CANCELLED" else ["RECEIVED", "DELIVERED"]
    return [*done.items(), *((status, None) for status in to_come if status not in done)]


def _lapses_at(parcel: dict[str, Any], now: datetime) -> str | None:
    """Tell when an announcement lapses that nobody has brought the parcel of."""
    ends = instant(parcel["timeline"][0]["at"]) + ANNOUNCEMENT_LASTS
    return instant_text(ends) if parcel["status"] == "ANNOUNCED" and ends > now else None
