"""`/resumen`: the shop at a glance for who runs it; each number leads to the parcels that it counts."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import Annotated, Any

from fastapi import Query as Parameter
from fastapi import Request, Response
from pydantic import BaseModel, BeforeValidator, Field

from commands.announce_package import MAIN_SITE
from infra.auth import Role, allow
from infra.clock import BOGOTA, TheClock
from infra.fields import SiteCode
from queries import arrivals, list_positions, list_sites, list_staff, summary
from queries.summary import Day
from web.localization import N_, instant
from web.pages.counter.codes import METHODS
from web.pages.packages import CLASSES, STATUS_LABELS
from web.reading import read
from web.rendering import render
from web.routing import router

pages = router()

DAYS = 7
"""Days whose income is drawn, the chosen one last."""

PLACES = 200
"""Places of the shelf that are drawn at once."""

CLASS_LABELS = {"24h": N_("Over 24 h"), "7d": N_("Over 7 days"), "30d": N_("Over 30 days"), "45d": N_("Over 45 days")}

STAYS: list[tuple[str, int, int | None]] = [
    (N_("Up to 24 h"), 0, 0),
    (N_("1 day more"), 1, 1),
    (N_("2 days more"), 2, 2),
    (N_("3 to 6 more"), 3, 6),
    (N_("7 to 29 more"), 7, 29),
    (N_("30 and more"), 30, None),
]
"""Classes of days that a parcel stayed beyond the first 24 hours, each with its least and most."""


def _absent_if_blank(value: object) -> object:
    return None if value == "" else value


class Wanted(BaseModel):
    """The day, the shop and the part of its shelf that the address asks for."""

    fecha: Annotated[Day | None, BeforeValidator(_absent_if_blank)] = None
    sede: SiteCode = MAIN_SITE
    puesto: Annotated[int, Field(ge=0, le=1_000_000)] = 0


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar of a chart: its length is its share of the longest, in hundredths.

    `url` is of the parcels that it counts, `day_url` of its day's summary.
    """

    label: str
    amount: int
    share: float
    url: str
    note: str = ""
    day_url: str | None = None


def bars(rows: Sequence[tuple[str, int, str, str]]) -> list[Bar]:
    """Draw amounts beside each other; what is negative, a day of reversals, has no length."""
    longest = max((amount for _, amount, _, _ in rows), default=0)
    return [
        Bar(label, amount, round(100 * max(amount, 0) / longest, 2) if longest > 0 else 0, url, note)
        for label, amount, url, note in rows
    ]


@pages.get("/resumen")
@allow(Role.VIEWER)
async def show_summary(request: Request, wanted: Annotated[Wanted, Parameter()], clock: TheClock) -> Response:
    """Show counts, shelf, overdue classes, and the money of a day and of those before it."""
    now = clock()
    day = wanted.fecha or now.astimezone(BOGOTA).date()
    days = [day - timedelta(days=back) for back in reversed(range(DAYS))]
    *by_day, came, shelf, sites, staff = await read(
        request,
        *(summary.fetch(each, wanted.sede, now) for each in days),
        arrivals.fetch(day, wanted.sede, now),
        list_positions.fetch(wanted.sede, now, PLACES, wanted.puesto),
        list_sites.fetch(now),
        list_staff.fetch(now),
    )
    shop = by_day[-1]
    paid = _paid_on(day, wanted.sede)
    methods: dict[str, str] = {name: str(label) for name, label in METHODS.items()}
    people = {who["staff_id"]: who["full_name"] for who in staff["items"]}
    context = {
        "shop": shop,
        "day": day,
        "site": wanted.sede,
        "sites": sites["items"],
        "shelf": shelf["items"],
        "first_place": wanted.puesto,
        "places_before": max(wanted.puesto - PLACES, 0) if wanted.puesto else None,
        "places_after": wanted.puesto + PLACES if wanted.puesto + PLACES < sum(shop["positions"].values()) else None,
        "statuses": STATUS_LABELS,
        "overdue": _overdue(shop, wanted.sede),
        "by_hour": _by_hour(came, day, wanted.sede),
        "came_url": f"/paquetes?from={day}&to={day}&site={wanted.sede}",
        "came": sum(row["count"] for row in came["by_hour"]),
        "stays": _stays(came, day, wanted.sede),
        "by_day": _by_day(days, by_day, wanted.sede),
        "by_method": _by(shop["income"], "method", methods, f"{paid}&payment_method="),
        "by_person": _by(shop["income"], "staff_id", people, f"{paid}&payment_staff_id="),
        "paid_url": paid,
        "taken_in": sum(row["amount"] for row in shop["income"]),
        "waived": sum(row["waived"] for row in shop["income"]),
    }
    return render(request, "summary.html", context)


def _overdue(shop: dict[str, Any], site: str) -> list[Bar]:
    rows = [
        (CLASS_LABELS[name], shop["overdue"][name], f"/paquetes?min_days={days}&site={site}", "")
        for days, name in CLASSES.items()
    ]
    return bars(rows)


def _by_hour(came: dict[str, Any], day: date, site: str) -> list[Bar]:
    """Draw each hour from the first to the last in which a parcel came."""
    counts = {row["hour"]: row["count"] for row in came["by_hour"]}
    hours = range(min(counts), max(counts) + 1) if counts else ()
    url = f"/paquetes?from={day}&to={day}&site={site}&hour="
    return bars([(f"{hour}:00", counts.get(hour, 0), f"{url}{hour}", "") for hour in hours])


def _stays(came: dict[str, Any], day: date, site: str) -> list[Bar]:
    """Draw how long parcels stayed that came in the weeks up to a day and were handed over."""
    since = instant(came["stays_since"]).astimezone(BOGOTA).date()
    url = f"/paquetes?status=DELIVERED&from={since}&to={day}&site={site}&min_stay="
    rows = []
    for label, least, most in STAYS:
        count = sum(
            row["count"] for row in came["stays"] if least <= row["days"] and (most is None or row["days"] <= most)
        )
        rows.append((label, count, f"{url}{least}" + (f"&max_stay={most}" if most is not None else ""), ""))
    return bars(rows)


def _by_day(days: list[date], answers: list[dict[str, Any]], site: str) -> list[Bar]:
    sums = [sum(row["amount"] for row in answer["income"]) for answer in answers]
    at = [datetime(each.year, each.month, each.day, tzinfo=BOGOTA) for each in days]
    drawn = bars(
        [(each.isoformat(), amount, _paid_on(day, site), "") for each, day, amount in zip(at, days, sums, strict=True)]
    )
    return [replace(bar, day_url=f"/resumen?fecha={day}&sede={site}") for bar, day in zip(drawn, days, strict=True)]


def _paid_on(day: date, site: str) -> str:
    """Give the address of the parcels that a day's income is of."""
    return f"/paquetes?paid_from={day}&paid_to={day}&site={site}"


def _by(income: list[dict[str, Any]], member: str, names: dict[str, str], url: str) -> list[Bar]:
    """Sum a day's income by one member, the largest first, with how many parcels it was."""
    sums: dict[str, int] = defaultdict(int)
    counts: dict[str, int] = defaultdict(int)
    for row in income:
        sums[row[member]] += row["amount"]
        counts[row[member]] += row["count"]
    ordered = sorted(sums.items(), key=lambda pair: -pair[1])
    return bars([(names.get(key, key), amount, url + key, str(counts[key])) for key, amount in ordered])
