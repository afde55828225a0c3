"""Change what is said of a site; its code stays."""

from fastapi import Response
from psycopg.rows import class_row
from pydantic import ConfigDict

from commands.patches import UNSET, Patch, before_and_after
from commands.transaction import OK, Context, Outcome, TheVersionedTransaction
from db import change_log
from db.documents import Site
from db.pools import Connection
from infra.auth import Role, allow
from infra.errors import NotFound
from infra.fields import Line, OptionalLine, OptionalText, SiteCode
from infra.http import problems
from infra.routing import router

routes = router("sites")


class ChangeSite(Patch):
    """What is to change; null clears everything but the name."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"opening_hours": "Lunes a viernes, 9 a 17"}]})

    name: Line = UNSET
    address: OptionalLine = None
    phone: OptionalLine = None
    opening_hours: OptionalText = None


LOCK = """
SELECT code AS site, name, address, phone, opening_hours, version FROM sites WHERE code = %(site)s FOR NO KEY UPDATE
"""

UPDATE = """
UPDATE sites SET name = %(name)s, address = %(address)s, phone = %(phone)s, opening_hours = %(opening_hours)s,
    version = %(version)s
WHERE code = %(site)s
"""


async def lock_site(conn: Connection, context: Context, code: str) -> Site:
    """Take the site for this transaction. Raises NotFound and PreconditionFailed."""
    async with conn.cursor(row_factory=class_row(Site)) as cursor:
        site = await (await cursor.execute(LOCK, {"site": code})).fetchone()
    if site is None:
        raise NotFound("There is no such site")
    context.if_match.check(site.version)
    return site


async def handle(conn: Connection, context: Context, code: str, command: ChangeSite) -> Outcome:
    """Change what is named."""
    site = await lock_site(conn, context, code)
    given = command.given()
    changed = site.model_copy(update=given | {"version": site.version + 1})
    await conn.execute(UPDATE, changed.model_dump())
    data = {"site": code, **before_and_after(site.model_dump(), given)}
    await change_log.append(conn, context.change("SiteChanged", version=changed.version, data=data))
    return Outcome(OK, changed.model_dump_json(), changed.version)


@routes.patch("/sites/{site}", response_model=Site, responses=problems(401, 403, 404, 409, 412, 413, 415))
@allow(Role.ADMIN)
async def change_site(site: SiteCode, command: ChangeSite, transaction: TheVersionedTransaction) -> Response:
    """Change a shop's name, address, phone or opening hours."""
    return await transaction.run(command, lambda conn, context: handle(conn, context, site, command))
