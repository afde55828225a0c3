"""What a command costs beside its own SQL, and how much less a parcel costs in a batch."""

import asyncio
import secrets
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

from bench.load import CONNECTIONS, NUMBER, drive, request
from bench.measurement import Measurement, Variant, in_turn
from bench.peers.bare_command import CHANGES
from bench.pgbench import as_script, transactions_a_second
from bench.programs import peering, projecting, serving
from bench.results import Findings, median, ratio, rounds_plot
from bench.shops import Bench
from bench.traffic import sign_in
from commands.packages import DOCUMENTS
from commands.positions import LOWEST_FREE
from commands.prepared import BEGIN_FOR_ANYONE
from commands.receive_by_guide import FIND, STORE
from db.pools import connect
from infra.errors import ConfigurationError
from infra.settings import Settings

CUSTOMERS = "SELECT phone FROM customers WHERE phone IS NOT NULL ORDER BY md5(phone) LIMIT 500"
"""Known ones, to whom the parcels come."""

BATCH = 1000
LANES = 2
"""Batches at a time: as many as there are processors."""

MOST_A_SECOND, MOST_BY_BATCHES = 5000, 20_000
"""Parcels, and so positions, that a measurement may need."""

FREE_POSITIONS = """
SELECT count(*) FROM positions JOIN sites USING (site_id) WHERE sites.code = 'PRINCIPAL' AND package_id IS NULL
"""

ADD_POSITIONS = """
INSERT INTO positions (site_id, code, ordinal)
SELECT site_id, 'BENCH-' || n, 1000000 + n FROM sites, generate_series(1, %(count)s) AS n WHERE code = 'PRINCIPAL'
"""

KNOWN_PHONES = """
CREATE TABLE known_phones AS
SELECT (n - 1)::integer AS n, phone FROM unnest(%(phones)s::text[]) WITH ORDINALITY AS known (phone, n)
"""

NUMBERS_OF_ONE = 2**28
"""Numbers that each client of pgbench has for its parcels."""

NUMBERS_OF_A_ROUND = 1_000_000

# Each number is a guide and a code of its own.
NUMBERED = f"""\\set n :n + 1
\\set number :client_id * {NUMBERS_OF_ONE} + :first + :n
\\set known :number % :customers
"""

CODE = "translate(lpad(to_hex(:number::bigint), 8, '0'), '01abcdef', 'GHABCDEF')"

IDS = "'package_id', :f_new_id::text, 'customer_id', :f_customer_known::text"

NEW = f"""jsonb_build_array(jsonb_build_object({IDS}, 'guide_number', 'PGBENCH' || :number::bigint,
    'tracking_code', {CODE}, 'customer_name', 'María Peña', 'site_id', :f_site_there::text, 'package_type', 'NORMAL',
    'condition', 'GOOD', 'position_id', :p_position_id::text, 'tariff_id', :f_tariff_id::text))"""

CHANGE = f"""jsonb_build_object({IDS}, 'type', '{{type}}', 'version', 1, 'at', now(), 'data',
    jsonb_build_object('after', jsonb_build_object('status', 'RECEIVED', 'position', :p_code::text, 'package_type',
    'NORMAL', 'condition', 'GOOD')))"""

ASKED = {
    "guide_keys": "ARRAY['PGBENCH' || :number::bigint]",
    "sites": "ARRAY['PRINCIPAL']",
    "phones": "ARRAY(SELECT k.phone FROM known_phones AS k WHERE k.n = :known::int)",
    "now": "now()",
}
WANTED = {"site_id": ":f_site_there::uuid", "held": "'{}'::uuid[]", "count": "1"}
STORED = {
    "positions": "ARRAY[:p_position_id]",
    "packages": "ARRAY[:f_new_id]",
    "new": NEW,
    "announced": "'[]'::jsonb",
    "changes": f"jsonb_build_array({', '.join(CHANGE.format(type=type_) for type_ in CHANGES)})",
    "now": "now()",
    "consenting": "'{}'::uuid[]",
    "consented": "'{}'::uuid[]",
    "policy_version": "NULL",
    "channel": "NULL",
}
SHOWN = {"package_ids": "ARRAY[:f_new_id::uuid]", "now": "now()"}


def reception_script() -> str:
    """Write the statements of a reception for pgbench."""
    steps = [
        NUMBERED + as_script(BEGIN_FOR_ANYONE) + ";",
        as_script(FIND, **ASKED) + " \\gset f_",
        as_script(LOWEST_FREE, **WANTED) + " \\gset p_",
        as_script(STORE, **STORED) + ";",
        as_script(DOCUMENTS, **SHOWN) + ";",
        "COMMIT;",
    ]
    return "\n".join(steps) + "\n"


def parcel(phone: str) -> dict[str, Any]:
    """Make the body of a reception of a known customer's parcel."""
    return {
        "guide_number": f"{secrets.token_hex(4).upper()}-{NUMBER}",
        "customer_name": "María Peña",
        "customer_phone": phone,
        "package_type": "NORMAL",
        "condition": "GOOD",
    }


async def prepare(settings: Settings, positions: int) -> list[str]:
    """Give the shop as many free places as will be needed, and choose the customers by their phones."""
    async with await connect(settings.postgres_dsn, "bench") as conn:
        await conn.execute(ADD_POSITIONS, {"count": positions})
        phones = [phone for (phone,) in await (await conn.execute(CUSTOMERS)).fetchall()]
        await conn.execute(KNOWN_PHONES, {"phones": phones})
        await conn.execute("VACUUM (ANALYZE) positions, known_phones")
    return phones


async def require_free_positions(settings: Settings) -> None:
    """Refuse figures of a shelf that got full: a parcel without a place is refused, and quickly."""
    async with await connect(settings.postgres_dsn, "bench") as conn:
        row = await (await conn.execute(FREE_POSITIONS.encode())).fetchone()
    if row is None or not row[0]:
        raise ConfigurationError("The shelf was full before the measurement was over")


async def receptions(settings: Settings, phones: list[str], headers: dict[str, str], seconds: float) -> float:
    """Give the receptions a second, one by one."""
    requests = [request("/api/v1/receptions", parcel(phone), headers) for phone in phones]
    return (await drive(settings, requests, seconds)).rate


async def command(bench: Bench) -> Findings:
    """Receive parcels through HTTP, and by the same statements without the service around them."""
    async with bench.open() as settings, AsyncExitStack() as stack:
        phones = await prepare(settings, round(bench.rounds * max(1, bench.seconds) * MOST_A_SECOND))
        headers = {"Authorization": f"Bearer {await sign_in(settings)}"}
        script = settings.data_dir / "reception.sql"
        await asyncio.to_thread(script.write_text, reception_script())
        await stack.enter_async_context(projecting(settings))
        api = await stack.enter_async_context(serving(settings, "commands"))
        bare = await stack.enter_async_context(peering(settings, "bare_command"))
        done = 0

        async def by_pgbench() -> float:
            nonlocal done
            done += 1
            variables = {"first": done * NUMBERS_OF_A_ROUND, "n": 0, "customers": len(phones)}
            return await transactions_a_second(settings, script, CONNECTIONS, bench.seconds, **variables)

        variants: dict[str, Variant] = {
            "commands": partial(receptions, api, phones, headers, bench.seconds),
            "its SQL by a bare ASGI application": partial(receptions, bare, phones, {}, bench.seconds),
            "its SQL by pgbench": by_pgbench,
        }
        rates = await in_turn(variants, bench.rounds, bench.report)
        await require_free_positions(settings)
    commands, own, alone = rates.values()
    return Findings(
        figures=[
            ratio("command over its own SQL by bare ASGI", commands, own, at_least=0.5, aim=0.75),
            ratio("command over its own SQL by pgbench", commands, alone),
            *(median(name, values, "/s") for name, values in rates.items()),
        ],
        plots=[rounds_plot("Receptions", "a second", rates)],
    )


async def batch_reception(bench: Bench) -> Findings:
    """Receive parcels one by one, and a thousand at a time."""
    async with bench.open() as settings:
        phones = await prepare(settings, round(bench.rounds * max(2, bench.seconds) * MOST_BY_BATCHES))
        headers = {"Authorization": f"Bearer {await sign_in(settings)}"}
        async with projecting(settings), serving(settings, "commands") as api:

            async def batches() -> float:
                bodies = [[parcel(phones[number % len(phones)]) for number in range(BATCH)] for _ in range(LANES)]
                requests = [request("/api/v1/receptions/batch", body, headers) for body in bodies]
                return (await drive(api, requests, bench.seconds, LANES)).rate * BATCH

            variants: dict[str, Variant] = {
                "one by one": partial(receptions, api, phones, headers, bench.seconds),
                "a thousand at a time": batches,
            }
            rates = await in_turn(variants, bench.rounds, bench.report)
            await require_free_positions(settings)
    single, batch = rates.values()
    return Findings(
        figures=[
            ratio("packages a second by batches over single commands", batch, single, at_least=5, aim=15),
            *(median(f"packages, {name}", values, "/s") for name, values in rates.items()),
        ],
        plots=[rounds_plot("Packages received", "a second", rates)],
    )


MEASUREMENTS = (
    Measurement(
        "command",
        "The cost of a command",
        "Parcels of known customers, received by the guide on their label through the write API; by a bare ASGI"
        " application that runs the same statements in the same transaction; and by pgbench. The projector is at work"
        " in all three. One worker each, 16 connections.",
        command,
    ),
    Measurement(
        "batch-reception",
        "Receptions in batches",
        "The same receptions one by one (16 connections), and a thousand in a request (2 connections).",
        batch_reception,
    ),
)
