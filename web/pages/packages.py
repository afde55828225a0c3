"""`/paquetes`: the listing, as the read API gives it, in rows that follow what happens."""

import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Annotated, Any, Literal
from urllib.parse import urlencode

from fastapi import Query as Parameters
from fastapi import Request, Response
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from db.package_document import PaymentMethod, Status
from infra.auth import Role, SignedIn, allow
from infra.clock import BOGOTA, TheClock
from infra.fields import OptionalLine
from queries import list_packages, list_staff, summary
from queries.list_packages import PackageFilters
from queries.listing_statement import Sort
from queries.parameters import OptionalSite, OptionalWords
from web.localization import N_
from web.pages.counter.codes import METHODS
from web.reading import read
from web.rendering import render, translator
from web.routing import router

pages = router()

PAGE = 50
MOST_ROWS = 1000
"""Rows that a page which is being kept up to date may ask for again at once."""

CLASSES = {1: "24h", 7: "7d", 30: "30d", 45: "45d"}
"""The overdue classes: days in storage, and their name in the summary."""


def _absent_if_blank(value: object) -> object:
    return None if value == "" else value


OptionalDate = Annotated[date | None, BeforeValidator(_absent_if_blank)]
OptionalNumber = Annotated[int | None, BeforeValidator(_absent_if_blank)]


class Listing(BaseModel):
    """What the address says: which parcels, in which order, and which part of the page is asked for."""

    model_config = ConfigDict(extra="ignore", frozen=True, str_strip_whitespace=True)

    status: list[Status] = Field(default=[], max_length=20)
    q: OptionalWords = None
    customer_id: uuid.UUID | None = None
    site: OptionalSite = None
    position: OptionalLine = None
    received_from: OptionalDate = Field(default=None, alias="from")
    received_until: OptionalDate = Field(default=None, alias="to")
    min_days: Annotated[OptionalNumber, Field(ge=0, le=36_500)] = None
    hour: Annotated[OptionalNumber, Field(ge=0, le=23)] = None
    min_stay: Annotated[OptionalNumber, Field(ge=0, le=36_500)] = None
    max_stay: Annotated[OptionalNumber, Field(ge=0, le=36_500)] = None
    paid_from: OptionalDate = None
    paid_until: OptionalDate = Field(default=None, alias="paid_to")
    payment_method: PaymentMethod | None = None
    payment_staff_id: uuid.UUID | None = None
    sort: Sort = "newest"
    cursor: str | None = Field(default=None, max_length=2000)
    rows: int = Field(default=PAGE, ge=1, le=MOST_ROWS)
    batch: int | None = Field(default=None, ge=0, le=2**62)

    def parameters(self) -> dict[str, Any]:
        """Give what the address needs to lead here again."""
        shown = self.model_dump(mode="json", by_alias=True, exclude={"cursor", "rows", "batch"}, exclude_none=True)
        return {name: value for name, value in shown.items() if value not in ([], "newest")}

    def url(self, *without: str, **changes: Any) -> str:  # noqa: ANN401
        """Give the address of this listing with filters changed or left out."""
        kept = {name: value for name, value in self.parameters().items() if name not in without}
        query = urlencode({name: value for name, value in {**kept, **changes}.items() if value is not None}, doseq=True)
        return f"/paquetes?{query}" if query else "/paquetes"

    def filters(self, **changes: Any) -> PackageFilters:  # noqa: ANN401
        """Give the query's filters; the last day counts as a whole, and an hour is one of the first day."""
        chosen = self.model_dump(include=set(PackageFilters.model_fields) - {"received_from", "paid_from"})
        chosen["received_from"], chosen["received_to"] = _days(self.received_from, self.received_until)
        chosen["paid_from"], chosen["paid_to"] = _days(self.paid_from, self.paid_until)
        if self.hour is not None and chosen["received_from"]:
            chosen["received_from"] += timedelta(hours=self.hour)
            chosen["received_to"] = chosen["received_from"] + timedelta(hours=1)
        return PackageFilters(**chosen | changes)

    def export_url(self, ending: str) -> str:
        """Give the address of all that matches, as a file; the read API takes instants where we have days."""
        asked = self.filters().model_dump(mode="json", exclude_none=True)
        return f"/api/v1/packages.{ending}?{urlencode(asked, doseq=True)}"

    @property
    def is_narrowed(self) -> bool:
        """Tell whether more is filtered than the chips do."""
        wider = {"status", "min_days", "sort"}
        return bool(self.parameters().keys() - wider)


def _days(first: date | None, last: date | None) -> tuple[datetime | None, datetime | None]:
    """Give when the first day begins and the last one ends."""
    begins = None if first is None else _midnight(first)
    return begins, None if last is None else _midnight(last + timedelta(days=1))


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time.min, BOGOTA)


@dataclass(frozen=True, slots=True)
class Chip:
    """One choice of status or age, with how many parcels it would show."""

    name: str
    label: str
    url: str
    is_current: bool
    count: int
    is_minimum: bool = False


@dataclass(frozen=True, slots=True)
class Applied:
    """A filter in force, and the address without it."""

    name: str
    label: str
    value: str
    url: str


Choice = tuple[str, str, dict[str, Any]]

STATUS_LABELS: dict[Status, str] = {
    "ANNOUNCED": N_("Announced"),
    "RECEIVED": N_("In storage"),
    "DELIVERED": N_("Delivered"),
    "CANCELLED": N_("Cancelled"),
}

CHOICES: list[Choice] = [
    ("all", N_("All"), {}),
    ("RECEIVED", N_("In storage"), {"status": ["RECEIVED"]}),
    ("24h", N_("Over 24 h"), {"min_days": 1}),
    ("7d", N_("Over 7 days"), {"min_days": 7}),
    ("30d", N_("Over 30 days"), {"min_days": 30}),
    ("45d", N_("Over 45 days"), {"min_days": 45}),
    ("ANNOUNCED", N_("Announced"), {"status": ["ANNOUNCED"]}),
    ("DELIVERED", N_("Delivered"), {"status": ["DELIVERED"]}),
    ("CANCELLED", N_("Cancelled"), {"status": ["CANCELLED"]}),
]

SORTS: dict[Sort, str] = {
    "newest": N_("Newest first"),
    "oldest": N_("Oldest first"),
    "owed": N_("Owes most"),
    "days": N_("Longest in storage"),
}


@pages.get("/paquetes")
@allow(Role.VIEWER)
async def show_packages(
    request: Request, listing: Annotated[Listing, Parameters()], actor: SignedIn, clock: TheClock
) -> Response:
    """Show the listing; a script may ask for the next rows, or for all of it anew."""
    now = clock()
    found = await _pages(request, listing, now)
    found |= {
        "is_counter_open": actor.role.reaches(Role.OPERATOR),
        "is_by_payment": listing.filters().is_by_payment,
    }
    if listing.cursor is not None and "HX-Request" in request.headers:
        return render(request, "packages/rows.html", {"listing": listing, **found})
    counts = await (_counts_within if listing.is_narrowed else _counts)(request, listing, now)
    context = {
        "listing": listing,
        "chips": _chips(listing, counts),
        "applied": _applied(listing, await _cashier(request, listing, now), translator(request)),
        "sorts": SORTS,
        "export_url": listing.export_url,
        "is_first_run": counts["all"] == (0, False) and not listing.is_narrowed,
        "refresh_at": min((item["next_fee_at"] for item in found["items"] if item["next_fee_at"]), default=None),
        **found,
    }
    is_part = "HX-Request" in request.headers
    is_typed = request.headers.get("HX-Trigger") == "filters"  # a chip is a step that one can go back from
    headers = {"HX-Replace-Url": listing.url()} if is_typed else {}
    return render(request, "packages/listing.html" if is_part else "packages/page.html", context, headers=headers)


async def _pages(request: Request, listing: Listing, now: datetime) -> dict[str, Any]:
    """Read as many rows as are asked for, a page of the query at a time."""
    key: str = request.app.state.signing_key
    items: list[Any] = []
    cursor = listing.cursor
    while True:
        limit = min(listing.rows - len(items), 100)
        query = list_packages.fetch(listing.filters(), now, key, limit, cursor)
        page = await read(request, query, batch=listing.batch)
        items += page["items"]
        cursor = page["next_cursor"]
        if cursor is None or len(items) >= listing.rows:
            return {**page, "items": items}


Counts = dict[str, tuple[int, bool]]


async def _counts(request: Request, listing: Listing, now: datetime) -> Counts:
    """Count the whole shop's parcels, as the projector keeps them."""
    shop = await read(request, summary.fetch(None, None, now), batch=listing.batch)
    counts = {"all": sum(shop["by_status"].values()), **shop["by_status"], **shop["overdue"]}
    return {name: (count, False) for name, count in counts.items()}


async def _counts_within(request: Request, listing: Listing, now: datetime) -> Counts:
    """Count what each choice would show beside the other filters."""
    key: str = request.app.state.signing_key
    plain: dict[str, Any] = {"status": [], "min_days": None, "sort": "newest"}
    filters = [listing.filters(**plain | chosen) for _, _, chosen in CHOICES]
    queries = [list_packages.fetch(chosen, now, key, 1) for chosen in filters]
    found = await read(request, *queries, batch=listing.batch)
    return {name: (page["count"], page["count_is_minimum"]) for (name, _, _), page in zip(CHOICES, found, strict=True)}


def _chips(listing: Listing, counts: Counts) -> list[Chip]:
    current = {"status": listing.status, "min_days": listing.min_days}
    chips = []
    for name, label, chosen in CHOICES:
        is_current = current == {"status": [], "min_days": None} | chosen
        in_storage = "min_days" in chosen or chosen.get("status") == ["RECEIVED"]
        dropped = ("status", "min_days") if in_storage else ("status", "min_days", *_storage_sort(listing))
        chips.append(Chip(name, label, listing.url(*dropped, **chosen), is_current, *counts[name]))
    return chips


def _storage_sort(listing: Listing) -> Iterable[Literal["sort"]]:
    """An order of what is in storage would leave nothing of the rest."""
    return ("sort",) if listing.sort in ("owed", "days") else ()


async def _cashier(request: Request, listing: Listing, now: datetime) -> str | None:
    """Name whose payments are shown."""
    if listing.payment_staff_id is None:
        return None
    staff = await read(request, list_staff.fetch(now))
    names: dict[str, str] = {who["staff_id"]: who["full_name"] for who in staff["items"]}
    who = str(listing.payment_staff_id)
    return names.get(who, who)


def _applied(listing: Listing, cashier: str | None, _: Any) -> list[Applied]:  # noqa: ANN401
    """Give the filters in force, each to be taken away."""
    hour = listing.hour is not None and listing.received_from and f"{listing.hour}:00-{listing.hour}:59"
    said = {
        "q": (_("Search"), listing.q),
        "status": (_("Status"), ", ".join(_(STATUS_LABELS[status]) for status in listing.status)),
        "min_days": (_("Days in storage"), listing.min_days and f"≥ {listing.min_days}"),
        "from": (_("Received from"), listing.received_from),
        "to": (_("Received until"), listing.received_until),
        "customer_id": (_("Customer"), listing.customer_id and _("one customer")),
        "site": (_("Site"), listing.site),
        "position": (_("Position"), listing.position),
        "hour": (_("Hour"), hour),
        "min_stay max_stay": (_("Days until it was handed over"), _span(listing.min_stay, listing.max_stay)),
        "paid_from paid_to": (_("Paid"), _span(listing.paid_from, listing.paid_until)),
        "payment_method": (_("Method"), listing.payment_method and _(METHODS[listing.payment_method])),
        "payment_staff_id": (_("Paid to"), cashier),
    }
    return [
        Applied(names.split()[0], label, str(value), listing.url(*names.split()))
        for names, (label, value) in said.items()
        if value
    ]


def _span(least: date | int | None, most: date | int | None) -> str | None:
    if most is None:
        return None if least is None else f"≥ {least}"
    return f"≤ {most}" if least is None else f"{least} / {most}" if least != most else str(most)
