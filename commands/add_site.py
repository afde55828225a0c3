"""Add a site: another shop, with a shelf of a hundred positions to begin with."""

from fastapi import Response
from psycopg.rows import class_row
from pydantic import ConfigDict

from commands.transaction import CREATED, Context, Outcome, TheTransaction
from db import change_log
from db.documents import Site
from db.pools import Connection
from infra.auth import Role, allow
from infra.errors import Conflict
from infra.fields import Line, Message, OptionalLine, OptionalText, SiteCode
from infra.http import problems
from infra.routing import router

routes = router("sites")


class AddSite(Message):
    """A shop, and the code that commands name it by."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"site": "NORTE", "name": "Sede Norte", "opening_hours": "Lunes a sábado, 8 a 18"}]
        }
    )

    site: SiteCode
    name: Line
    address: OptionalLine = None
    phone: OptionalLine = None
    opening_hours: OptionalText = None


# A site that exists already gives no row.
INSERT = """
WITH added AS (
    INSERT INTO sites (code, name, address, phone, opening_hours, created_at)
    VALUES (%(site)s, %(name)s, %(address)s, %(phone)s, %(opening_hours)s, %(now)s)
    ON CONFLICT (code) DO NOTHING
    RETURNING site_id, code AS site, name, address, phone, opening_hours, version
), shelf AS (
    INSERT INTO positions (site_id, code, ordinal)
    SELECT site_id, lpad(n::text, 2, '0'), n FROM added, generate_series(0, 99) AS n
)
SELECT site, name, address, phone, opening_hours, version FROM added
"""


async def handle(conn: Connection, context: Context, command: AddSite) -> Outcome:
    """Add the site and positions 00 to 99; a code that is in use is a Conflict."""
    async with conn.cursor(row_factory=class_row(Site)) as cursor:
        site = await (await cursor.execute(INSERT, command.model_dump() | {"now": context.now})).fetchone()
    if site is None:
        raise Conflict("There is a site of this code already")
    await change_log.append(conn, context.change("SiteAdded", version=1, data={"after": command.model_dump()}))
    return Outcome(CREATED, site.model_dump_json(), 1, f"/api/v1/sites/{site.site}")


@routes.post("/sites", status_code=CREATED, response_model=Site, responses=problems(401, 403, 409, 413, 415))
@allow(Role.ADMIN)
async def add_site(command: AddSite, transaction: TheTransaction) -> Response:
    """Open another shop."""
    return await transaction.run(command, lambda conn, context: handle(conn, context, command))
