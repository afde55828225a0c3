"""`GET /api/v1/packages`: the listing, by any filter and order, a page at a time."""

import json
import uuid
from datetime import datetime, timedelta
from typing import Annotated, Any, get_args

from fastapi import Query as Parameters
from fastapi import Response
from pydantic import BaseModel, ConfigDict, Field

from db.package_document import Package, PaymentMethod, Status
from db.page_cache import customer_scopes
from infra.auth import Role, allow
from infra.clock import TheClock
from infra.fields import OptionalLine, Pesos
from infra.routing import router
from queries import cursors
from queries.cursors import Cursor
from queries.direct import direct
from queries.listing_statement import COUNTED, PAYMENT_CONDITIONS, Shape, Sort, statement
from queries.pages import Query, Row, TheEdge, answers
from queries.parameters import OptionalCursor, OptionalInstant, OptionalSite, OptionalWords, words_of

packages = router("packages")

STATUSES: tuple[str, ...] = get_args(Status)

ANNOUNCEMENT = timedelta(days=30)
"""An announcement lapses after this, so a parcel's announced_at bounds its received_at and the other way round."""


class PackageFilters(BaseModel):
    """What the listing shows; a parameter that is left out doesn't narrow it."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)

    status: list[Status] = Field(default=[], max_length=20, description="May be repeated.")
    q: OptionalWords = Field(
        default=None,
        description="Words of the customer's or recipient's name, phone, guide, other code, code or position; all must"
        " match. One or two letters match the beginning of a word, three and more any part of one.",
        examples=["garcia 300"],
    )
    customer_id: uuid.UUID | None = None
    site: OptionalSite = None
    position: OptionalLine = Field(default=None, description="A shelf position; dashes and case don't matter.")
    received_from: OptionalInstant = None
    received_to: OptionalInstant = None
    announced_from: OptionalInstant = None
    announced_to: OptionalInstant = None
    min_days: int | None = Field(default=None, ge=0, le=36_500, description="In storage for at least so many days.")
    min_stay: int | None = Field(default=None, ge=0, le=36_500, description="Handed over after so many days or more.")
    max_stay: int | None = Field(default=None, ge=0, le=36_500, description="Handed over after so many days or fewer.")
    paid_from: OptionalInstant = Field(default=None, description="With a payment or a reversal from then on.")
    paid_to: OptionalInstant = None
    payment_method: PaymentMethod | None = None
    payment_staff_id: uuid.UUID | None = Field(default=None, description="Who took the payment, or took it back.")
    sort: Sort = "newest"

    @property
    def is_over(self) -> bool:
        """Tell whether only what was handed over can be shown."""
        return self.min_stay is not None or self.max_stay is not None

    @property
    def is_by_payment(self) -> bool:
        """Tell whether each parcel shows what it brought in."""
        return any(getattr(self, name) is not None for name in PAYMENT_CONDITIONS)

    @property
    def in_storage(self) -> bool:
        """Tell whether only what is in storage can be shown."""
        return self.sort in ("owed", "days") or self.min_days is not None or self.position is not None


class PackagePage(PackageFilters):
    """A page of the listing."""

    limit: int = Field(default=50, ge=1, le=100)
    cursor: OptionalCursor = None


class ListedPackage(Package):
    """A parcel; with a filter of payments also what it brought in by those, reversals counted against it."""

    income: Pesos = Field(default=0, description="Only with a filter of payments.")


class PackageList(BaseModel):
    """A page of parcels; `count` is all that match, or, where `count_is_minimum`, at least so many do."""

    items: list[ListedPackage]
    next_cursor: str | None
    count: int = Field(examples=[1234])
    count_is_minimum: bool


def _scopes(filters: PackageFilters, statuses: list[str]) -> tuple[str, ...]:
    if filters.customer_id is not None:
        return customer_scopes(filters.customer_id)
    if len(statuses) == len(STATUSES):
        return ("all",)
    return tuple(f"status:{status}" for status in statuses or ["RECEIVED"])


def _bounds(filters: PackageFilters, now: datetime) -> dict[str, Any]:
    """Give the filters on instants, with those that follow from each other, so that every order has its own."""
    announced_from = [filters.announced_from, filters.received_from and filters.received_from - ANNOUNCEMENT]
    announced_to = [filters.announced_to, filters.received_to, filters.paid_to]
    received_from, received_to = [filters.received_from], [filters.received_to]
    received_before = None
    if filters.min_days:
        received_before = now - timedelta(days=filters.min_days)
        announced_to.append(received_before)
    if filters.in_storage:
        received_from.append(filters.announced_from)
        received_to.append(filters.announced_to and filters.announced_to + ANNOUNCEMENT)
    return {
        "announced_from": max(filter(None, announced_from), default=None),
        "announced_to": min(filter(None, announced_to), default=None),
        "received_from": max(filter(None, received_from), default=None),
        "received_to": min(filter(None, received_to), default=None),
        "received_before": received_before,
    }


def _is_brief(first: datetime | None, end: datetime) -> bool:
    """Tell whether what was received meanwhile is no more than what a walk by announcements may have to pass."""
    return first is not None and end - first <= ANNOUNCEMENT


def _statuses(filters: PackageFilters) -> list[str]:
    """Give the statuses that can be shown, in their own order; none where the filters exclude each other."""
    asked = [status for status in STATUSES if status in (filters.status or STATUSES)]
    if filters.in_storage:
        asked = [status for status in asked if status == "RECEIVED"]
    if filters.is_over:
        asked = [status for status in asked if status == "DELIVERED"]
    return asked


def _narrowed(filters: PackageFilters, statuses: list[str], at: datetime) -> dict[str, Any]:
    """Give each filter's value by the name that the statement has for it; None narrows nothing."""
    says_statuses = len(statuses) < len(STATUSES) and not (filters.in_storage and statuses)
    same = ("site", "customer_id", "position", "min_stay", "max_stay", *PAYMENT_CONDITIONS)
    return {
        "statuses": statuses if says_statuses else None,
        **{name: getattr(filters, name) for name in same},
        **_bounds(filters, at),
    }


def fetch(filters: PackageFilters, now: datetime, key: str, limit: int = 50, cursor: str | None = None) -> Query:
    """Ask for a page of the listing; `key` signs its cursors. A cursor of other filters raises Malformed."""
    asked = PackageFilters.model_dump(filters, mode="json", include=set(PackageFilters.model_fields))
    asked["status"] = sorted(set(filters.status))
    after = cursors.read(cursor, asked, key) if cursor else None
    at = now if after is None or after.at is None else after.at
    statuses, words = _statuses(filters), words_of(filters.q)
    narrowed = _narrowed(filters, statuses, at)
    used = frozenset(name for name, value in narrowed.items() if value is not None)
    shape = Shape(
        filters.sort,
        used,
        used - {name for name, value in filters if value is not None},
        len(words),
        filters.in_storage,
        after is not None,
        _is_brief(narrowed["received_from"], narrowed["received_to"] or at),
    )
    binds = narrowed | {
        "statuses": statuses,
        "now": at,
        "min_days": filters.min_days,
        "limit": limit,
        **{f"word_{number}": word for number, word in enumerate(words)},
        **(dict(zip(("after_at", "after_id", "after_due"), after.key, strict=False)) if after else {}),
    }
    pinned = at if filters.sort in ("owed", "days") else None

    def finish(columns: Row) -> str:
        items, _, _, has_more, last_key, count = columns
        following = cursors.write(Cursor(tuple(json.loads(last_key)), pinned), asked, key) if has_more else None
        is_minimum = count > COUNTED and not shape.is_counted_already
        return (
            f'{{"items": {items}, "next_cursor": {json.dumps(following)}, '
            f'"count": {COUNTED if is_minimum else count}, "count_is_minimum": {json.dumps(is_minimum)}}}'
        )

    identity = {"route": "packages", **asked, "limit": limit, "cursor": cursor}
    scopes = _scopes(filters, statuses)
    return Query(statement(shape), identity, now, binds, scopes, finish, plan_by_values=shape.is_planned_by_values)


@packages.get("/packages", response_model=PackageList, responses=answers(401, 403))
@allow(Role.VIEWER)
async def list_packages(page: Annotated[PackagePage, Parameters()], edge: TheEdge, clock: TheClock) -> Response:
    """List parcels, newest announcement first or as `sort` says.

    `newest` and `oldest` order by announcement; `owed` and `days` list what is in storage by what is due and by how
    long it has been there, priced at the instant of the first page.
    """
    return await edge.answer(fetch(page, clock(), edge.signing_key, page.limit, page.cursor))


DIRECT = direct(
    packages,
    "/api/v1/packages",
    PackagePage,
    lambda page, now, key: fetch(page, now, key, page.limit, page.cursor),
)
