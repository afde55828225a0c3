"""What it would cost to wake the projector from within the write transaction."""

import asyncio
from functools import partial

from bench.measurement import Measurement, in_turn
from bench.pgbench import transactions_a_second
from bench.results import Findings, median, ratio, rounds_plot
from bench.shops import Bench
from db.change_log import CHANNEL
from db.pools import connect
from infra.settings import Settings

CLIENTS = 8

NUMBER_PACKAGES = """
CREATE TABLE numbered (number integer PRIMARY KEY, package_id uuid NOT NULL);
INSERT INTO numbered SELECT row_number() OVER (), package_id FROM packages;
ANALYZE numbered
"""

# What a command comes to: a row changed and its log row, in one transaction.
COMMAND = r"""
\set number random(1, {packages})
BEGIN;
WITH changed AS (
    UPDATE packages SET observations = 'visto ' || :number, version = version + 1
    WHERE package_id = (SELECT package_id FROM numbered WHERE number = :number)
    RETURNING package_id, version)
INSERT INTO change_log (package_id, type, version, data, at)
SELECT package_id, 'PackageCorrected', version, '{{"after": {{"observations": "visto"}}}}', now() FROM changed;
{notify}
COMMIT;
"""

VARIANTS = {"without NOTIFY": "", "with NOTIFY": f"SELECT pg_notify('{CHANNEL}', '');"}


async def notify_in_transaction(bench: Bench) -> Findings:
    """Count the commits of both kinds in turn, with somebody listening."""
    async with bench.open() as settings:
        async with await connect(settings.postgres_dsn, "bench") as conn:
            await conn.execute(NUMBER_PACKAGES.encode())
        scripts = {name: settings.data_dir / f"{name.replace(' ', '-')}.sql" for name in VARIANTS}
        for name, script in scripts.items():
            text = COMMAND.format(packages=bench.packages, notify=VARIANTS[name])
            await asyncio.to_thread(script.write_text, text)
        variants = {
            name: partial(transactions_a_second, settings, script, CLIENTS, bench.seconds)
            for name, script in scripts.items()
        }
        listening = asyncio.create_task(_listen(settings))
        rates = await in_turn(variants, bench.rounds, bench.report)
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
    without, within = rates.values()
    return Findings(
        figures=[
            ratio("commits without, over with NOTIFY", without, within),
            *(median(f"commits {name}", values, "/s") for name, values in rates.items()),
        ],
        plots=[rounds_plot(f"Commits of {CLIENTS} clients", "commits a second", rates)],
    )


async def _listen(settings: Settings) -> None:
    async with await connect(settings.postgres_dsn, "bench") as conn:
        await conn.execute(f"LISTEN {CHANNEL}".encode())
        async for _ in conn.notifies():
            pass


MEASUREMENTS = (
    Measurement(
        "notify",
        "NOTIFY inside the write transaction",
        "8 clients change a package and write its log row, by pgbench, with and without NOTIFY in the same transaction,"
        " in turn; one connection listens all the time. The service signals after the commit instead.",
        notify_in_transaction,
    ),
)
