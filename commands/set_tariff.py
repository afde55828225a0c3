"""Set a tariff: it touches only packages that are announced from its instant on."""

from typing import Annotated

from fastapi import Response
from pydantic import ConfigDict, Field

from commands.transaction import CREATED, Context, Outcome, TheTransaction
from db import change_log
from db.documents import BaseFees, Tariff
from db.pools import Connection
from infra.auth import Role, allow
from infra.errors import Conflict, Invalid
from infra.fields import Amount, Instant, Message, instant_text
from infra.http import problems
from infra.routing import router

routes = router("tariffs")


class BaseFeesToSet(Message):
    """The base fee by package type, in pesos."""

    NORMAL: Amount
    EXTRA_SIZED: Amount


class SetTariff(Message):
    """From when on what is charged; from now on where the instant is left out."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"base_fees": {"NORMAL": 1500, "EXTRA_SIZED": 2000}, "daily_storage": 1000}]}
    )

    valid_from: Annotated[Instant, Field(strict=False)] | None = None
    base_fees: BaseFeesToSet
    daily_storage: Amount


# A tariff from this very instant on gives no row.
INSERT = """
INSERT INTO tariffs (valid_from, base_fee_normal, base_fee_extra_sized, daily_storage, created_at)
VALUES (%(valid_from)s, %(NORMAL)s, %(EXTRA_SIZED)s, %(daily_storage)s, %(now)s)
ON CONFLICT (valid_from) DO NOTHING
RETURNING tariff_id
"""


async def handle(conn: Connection, context: Context, command: SetTariff) -> Outcome:
    """Add the tariff; one for the past is Invalid, one from an instant that another begins at is a Conflict."""
    valid_from = command.valid_from or context.now
    if valid_from < context.now:
        raise Invalid({"valid_from": ["must be now or later"]})
    fees = {"daily_storage": command.daily_storage, **command.base_fees.model_dump()}
    row = await (await conn.execute(INSERT, fees | {"valid_from": valid_from, "now": context.now})).fetchone()
    if row is None:
        raise Conflict("There is a tariff from this instant on already")
    data = {"after": fees | {"valid_from": instant_text(valid_from)}}
    await change_log.append(conn, context.change("TariffSet", version=1, data=data))
    tariff = Tariff(
        tariff_id=row[0],
        valid_from=valid_from,
        base_fees=BaseFees(**command.base_fees.model_dump()),
        daily_storage=command.daily_storage,
    )
    return Outcome(CREATED, tariff.model_dump_json(), 1, "/api/v1/tariffs")


@routes.post("/tariffs", status_code=CREATED, response_model=Tariff, responses=problems(401, 403, 409, 413, 415))
@allow(Role.ADMIN)
async def set_tariff(command: SetTariff, transaction: TheTransaction) -> Response:
    """Say what parcels cost that are announced from an instant on."""
    return await transaction.run(command, lambda conn, context: handle(conn, context, command))
