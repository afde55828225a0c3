"""`GET /api/v1/tariffs`: what it costs now, and what it will cost."""

from datetime import datetime

from fastapi import Response
from pydantic import BaseModel

from db.documents import Tariff
from infra.auth import PUBLIC, allow
from infra.clock import TheClock
from infra.fields import Instant
from infra.routing import router
from queries.pages import Query, TheEdge, answers
from queries.sql import stamped

tariffs = router("tariffs")

# At exactly its valid_from a tariff is in force, while a page still holds at exactly its expires_at.
SELECT = stamped("""
SELECT json_build_object('items', coalesce(json_agg(json_build_object(
           'tariff_id', t.tariff_id, 'valid_from', instant(t.valid_from), 'valid_until', instant(t.valid_until),
           'base_fees', json_build_object('NORMAL', t.base_fee_normal, 'EXTRA_SIZED', t.base_fee_extra_sized),
           'daily_storage', t.daily_storage) ORDER BY t.valid_from), '[]'))::text AS body,
       min(t.valid_from) FILTER (WHERE t.valid_from > %(now)s) - interval '1 microsecond' AS expires_at, NULL AS etag
FROM tariff_list AS t WHERE t.valid_until IS NULL OR t.valid_until > %(now)s
""")


class TariffInForce(Tariff):
    """What a package announced from `valid_from` until `valid_until` costs."""

    valid_until: Instant | None


class TariffList(BaseModel):
    """The tariff in force, then those to come."""

    items: list[TariffInForce]


def fetch(now: datetime) -> Query:
    """Ask for the tariffs in force and to come."""
    return Query(SELECT, {"route": "tariffs"}, now, scopes=("reference",))


@tariffs.get("/tariffs", response_model=TariffList, responses=answers(401))
@allow(PUBLIC)
async def list_tariffs(edge: TheEdge, clock: TheClock) -> Response:
    """List the tariff in force and those to come."""
    return await edge.answer(fetch(clock()))
