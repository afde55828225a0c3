"""How parcels get their places: by an update of the place's own row, so that two who want it meet on its lock."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NoReturn

from commands.packages import LockedPackage, refuse
from commands.transaction import Context
from db.pools import Connection
from infra.errors import Conflict, Invalid, Problem

ASKED = """
SELECT p.site_id, p.code, p.position_id, p.package_id
FROM unnest(%(sites)s::uuid[], %(codes)s::text[]) AS wanted (site_id, code)
JOIN positions AS p ON p.site_id = wanted.site_id AND p.code = wanted.code
ORDER BY p.position_id FOR UPDATE OF p
"""

LOWEST_FREE = """
SELECT position_id, code FROM positions
WHERE site_id = %(site_id)s AND package_id IS NULL AND position_id <> ALL(%(held)s)
ORDER BY ordinal LIMIT %(count)s FOR UPDATE SKIP LOCKED
"""

# Waits for the commands that hold the rest, since one of them may yet be refused and give its place back.
LAST_FREE = """
SELECT position_id, code FROM positions
WHERE site_id = %(site_id)s AND package_id IS NULL AND position_id <> ALL(%(held)s)
ORDER BY ordinal LIMIT %(count)s FOR UPDATE
"""

TAKE = """
UPDATE positions SET package_id = taken.package_id
FROM unnest(%(positions)s::uuid[], %(packages)s::uuid[]) AS taken (position_id, package_id)
WHERE positions.position_id = taken.position_id
"""

FREE = "UPDATE positions SET package_id = NULL WHERE package_id = %(package_id)s"


@dataclass(frozen=True, slots=True)
class Wish:
    """A parcel that needs a place at a site: the one of this code, or any."""

    package_id: uuid.UUID
    site_id: uuid.UUID
    code: str | None


@dataclass(frozen=True, slots=True)
class NoPlace:
    """Why a wish isn't met, and which parcel stands in its way."""

    problem: Problem
    blocker: uuid.UUID | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """A position, locked until the transaction ends."""

    position_id: uuid.UUID
    code: str


Allotment = dict[uuid.UUID, Place | NoPlace]
"""By parcel: the place that is its own once TAKE has run, or why there is none."""


async def allot_all(conn: Connection, wishes: Sequence[Wish]) -> Allotment:
    """Find places for the wishes, those for a named one first, in a few statements for any number of them."""
    named = [wish for wish in wishes if wish.code is not None]
    allotted = await _asked_for(conn, named) if named else {}
    held = [place.position_id for place in allotted.values() if isinstance(place, Place)]
    others = sorted((wish for wish in wishes if wish.code is None), key=lambda wish: wish.site_id)
    for site_id, group in groupby(others, key=lambda wish: wish.site_id):
        allotted |= await _any_of(conn, site_id, list(group), held)
    return allotted


async def _asked_for(conn: Connection, wishes: Sequence[Wish]) -> Allotment:
    asked = {"sites": [wish.site_id for wish in wishes], "codes": [wish.code for wish in wishes]}
    rows = await (await conn.execute(ASKED, asked)).fetchall()
    places = {(site_id, code): (position_id, package_id) for site_id, code, position_id, package_id in rows}
    allotted: Allotment = {}
    for wish in wishes:
        code = wish.code or ""
        position_id, standing = places.get((wish.site_id, code), (None, None))
        if position_id is None:
            allotted[wish.package_id] = NoPlace(Invalid({"position": ["the site has no such position"]}))
        elif standing is not None:
            allotted[wish.package_id] = NoPlace(Conflict(f"Position {code} is taken"), standing)
        else:
            allotted[wish.package_id] = Place(position_id, code)
            places[wish.site_id, code] = position_id, wish.package_id
    return allotted


async def _any_of(conn: Connection, site_id: uuid.UUID, wishes: Sequence[Wish], held: Sequence[uuid.UUID]) -> Allotment:
    wanted = {"site_id": site_id, "held": list(held), "count": len(wishes)}
    free = [Place(*row) for row in await (await conn.execute(LOWEST_FREE, wanted)).fetchall()]
    if len(free) < len(wishes):
        locked = [place.position_id for place in free]
        rest = wanted | {"held": [*held, *locked], "count": len(wishes) - len(free)}
        free += [Place(*row) for row in await (await conn.execute(LAST_FREE, rest)).fetchall()]
    full = NoPlace(Conflict("The shelf is full: the site has no free position"))
    places: list[Place | NoPlace] = [*free, *[full] * (len(wishes) - len(free))]
    return dict(zip((wish.package_id for wish in wishes), places, strict=True))


async def allot(conn: Connection, context: Context, package: LockedPackage, code: str | None) -> uuid.UUID:
    """Give a parcel the place of this code, or the lowest that is neither taken nor held by a running command.

    Raises Invalid for a place that the site doesn't have, Conflict for a taken one and for a full shelf.
    """
    wish = Wish(package.package_id, package.site_id, code)
    place = (await allot_all(conn, [wish]))[package.package_id]
    if isinstance(place, NoPlace):
        await _refuse(conn, context, package, place)
    return await _take(conn, package, place)


async def move(conn: Connection, context: Context, package: LockedPackage, code: str) -> uuid.UUID:
    """Give a parcel another place. Nothing is let go before the new one is held: so two who swap can't deadlock."""
    wish = Wish(package.package_id, package.site_id, code)
    place = (await _asked_for(conn, [wish]))[package.package_id]
    if isinstance(place, NoPlace):
        await _refuse(conn, context, package, place)
    await free(conn, package.package_id)
    return await _take(conn, package, place)


async def _take(conn: Connection, package: LockedPackage, place: Place) -> uuid.UUID:
    await conn.execute(TAKE, {"positions": [place.position_id], "packages": [package.package_id]})
    return place.position_id


async def _refuse(conn: Connection, context: Context, package: LockedPackage, place: NoPlace) -> NoReturn:
    if not isinstance(place.problem, Conflict):
        raise place.problem
    await refuse(conn, place.blocker or package.package_id, context, place.problem.detail)


async def free(conn: Connection, package_id: uuid.UUID) -> None:
    """Let go of the package's position."""
    await conn.execute(FREE, {"package_id": package_id})
