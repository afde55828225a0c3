"""Add positions to a site's shelf: a prefix and a range of numbers, after those that are there."""

from typing import Annotated, Self

from fastapi import Response
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from commands.change_site import lock_site
from commands.transaction import CREATED, Context, Outcome, TheVersionedTransaction
from db import change_log
from db.pools import Connection
from infra.auth import Role, allow
from infra.errors import Conflict, Invalid
from infra.fields import Message, SiteCode
from infra.http import problems
from infra.routing import router

MOST_AT_ONCE = 10_000
LARGEST_NUMBER = 999_999_999

routes = router("sites")

Number = Annotated[int, Field(ge=0, le=LARGEST_NUMBER)]


class AddPositions(Message):
    """`A-`, 1, 250, 3 makes `A-001` to `A-250`."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"prefix": "A-", "first": 1, "last": 250, "width": 3}]})

    prefix: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9-]{0,20}$", to_upper=True)]
    first: Number
    last: Number
    width: Annotated[int, Field(ge=1, le=9)]

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if not self.first <= self.last < self.first + MOST_AT_ONCE:
            message = f"first to last must be a range of 1 to {MOST_AT_ONCE} numbers"
            raise ValueError(message)
        return self


class AddedPositions(BaseModel):
    """What the shelf has more; `version` is the site's."""

    site: str
    first: str
    last: str
    count: int
    version: int


FIND_TAKEN = """
SELECT p.code FROM positions AS p JOIN sites AS s USING (site_id)
WHERE s.code = %(site)s AND p.code = ANY(%(codes)s) ORDER BY p.ordinal LIMIT 1
"""

INSERT = """
INSERT INTO positions (site_id, code, ordinal)
SELECT shelf.site_id, wanted.code, shelf.last + wanted.number
FROM (SELECT s.site_id, coalesce(max(p.ordinal), -1) AS last
      FROM sites AS s LEFT JOIN positions AS p USING (site_id) WHERE s.code = %(site)s GROUP BY s.site_id) AS shelf,
    unnest(%(codes)s::text[]) WITH ORDINALITY AS wanted (code, number)
"""

RAISE_VERSION = "UPDATE sites SET version = version + 1 WHERE code = %(site)s"


async def handle(conn: Connection, context: Context, code: str, command: AddPositions) -> Outcome:
    """Add them all or none; one that the shelf has already is a Conflict."""
    site = await lock_site(conn, context, code)
    if len(str(command.last)) > command.width:
        raise Invalid({"width": ["is too narrow for the last number"]})
    codes = [f"{command.prefix}{number:0{command.width}}" for number in range(command.first, command.last + 1)]
    wanted = {"site": code, "codes": codes}
    taken = await (await conn.execute(FIND_TAKEN, wanted)).fetchone()
    if taken is not None:
        raise Conflict(f"The site has a position {taken[0]} already")
    await conn.execute(INSERT, wanted)
    await conn.execute(RAISE_VERSION, {"site": code})
    added = AddedPositions(site=code, first=codes[0], last=codes[-1], count=len(codes), version=site.version + 1)
    data = {"after": added.model_dump(exclude={"version"})}
    await change_log.append(conn, context.change("PositionsAdded", version=added.version, data=data))
    return Outcome(CREATED, added.model_dump_json(), added.version, f"/api/v1/sites/{code}/positions")


@routes.post(
    "/sites/{site}/positions",
    status_code=CREATED,
    response_model=AddedPositions,
    responses=problems(401, 403, 404, 409, 412, 413, 415),
)
@allow(Role.ADMIN)
async def add_positions(site: SiteCode, command: AddPositions, transaction: TheVersionedTransaction) -> Response:
    """Make a shop's shelf longer."""
    return await transaction.run(command, lambda conn, context: handle(conn, context, site, command))
