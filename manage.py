"""The command line, and the one place that puts the parts together: `python manage.py --help`."""

import asyncio
import contextlib
import secrets
import shlex
import sys
import uuid
from collections.abc import AsyncIterator, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import psycopg
import redis
import typer
import uvloop
from prometheus_client import start_http_server
from redis.exceptions import RedisClusterException

from commands.add_staff import add_staff_account
from commands.api_keys import add_api_key, list_api_keys, revoke_api_key
from commands.lapse_announcements import lapse_announcements
from commands.seed import seed as seed_packages
from commands.transaction import Context, forget_idempotency_keys
from db import embedded
from db.budget import check_budget
from db.maintenance import analyze_tables, report_indexes
from db.migrate import migrate as migrate_database
from db.monitoring.findings import Thresholds
from db.monitoring.report import make_report, problems
from db.monitoring.table import show, to_json
from db.page_cache import EPOCH_KEY, discard_everything
from db.pools import Connection, connect
from db.redis_clients import make_blocking, make_redis
from db.roles import set_passwords
from infra import cli, keys, logs, serving
from infra.auth import Role
from infra.children import Child
from infra.cli import console
from infra.clock import system_clock
from infra.errors import ConfigurationError, Problem
from infra.exposition import is_shared, share
from infra.settings import Settings
from infra.supervisor import supervise
from infra.tasks import heed_cancellation
from projections import parking, process
from projections.rebuild import rebuild as rebuild_projections
from projections.refresh import refresh_views
from projections.verify import verify as verify_projections

DEFAULT = Thresholds()
HERE = Path(__file__).parent
APPLICATIONS = {"commands": "commands.api:create_app", "queries": "queries.api:create_app", "all": "web.api:create_app"}
JOBS = (
    process.Job("lapse_announcements", 300, lapse_announcements),
    process.Job("forget_idempotency_keys", 600, forget_idempotency_keys),
    process.Job("analyze", 3600, analyze_tables, rests=7 * 86400),
    process.Job("index_report", 3600, report_indexes, rests=30 * 86400),
)

INTERRUPTED = 130
"""Exit status of what goes on until a signal stops it, as a shell has it for Ctrl-C."""

RETRIED_WITHIN = 10.0
"""Seconds that `project --parked --retry` waits for the projector."""

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
staff_app = typer.Typer(help="Who may sign in.", no_args_is_help=True)
cache_app = typer.Typer(help="The page cache in Redis.", no_args_is_help=True)
app.add_typer(staff_app, name="staff")
app.add_typer(cache_app, name="cache")


class Application(StrEnum):
    """What `serve` can serve."""

    COMMANDS = "commands"
    QUERIES = "queries"
    ALL = "all"


@app.command()
def up(
    demo: Annotated[int, typer.Option(help="Believable packages to put into an empty shop.", min=0)] = 0,
) -> None:
    """Run everything on this machine, until Ctrl-C."""
    settings = Settings.load()
    cli.refuse_taken_port(settings)
    cli.interrupt_on_signals()
    with contextlib.suppress(KeyboardInterrupt), embedded.owned(settings) as revive:
        migrate_database(settings.postgres_dsn)
        check_budget(settings, settings.workers)
        asyncio.run(_first_admin(settings))
        share(_figures(settings))  # the projector has no port of its own: the api tells its figures too
        projector = Child("projector", [str(HERE / "manage.py"), "project"])
        api = Child("api", [str(HERE / "manage.py"), "serve", "all", "--workers", str(settings.workers)])
        asyncio.run(supervise([projector, api], revive, _say_when_ready(settings, demo)))  # the api ends first
    console.print("Stopped.")


@app.command()
def env() -> None:
    """Print the settings in force as NAME=value lines, secrets included, for `eval` or a client's use."""
    settings = Settings.load()
    in_force = settings.model_dump() | {
        "database_url": settings.postgres_dsn,
        "redis_url": settings.redis_dsn,
        "secret_key": keys.newest(settings.signing_key()),
        "previous_secret_keys": ",".join(settings.previous_secret_keys),
        "commands_url": settings.for_commands().postgres_dsn,
        "queries_url": settings.queries_dsn,
        "projector_url": settings.for_projector().postgres_dsn,
        "replica_urls": ",".join(settings.replica_urls),
        "trusted_proxies": ",".join(settings.trusted_proxies),
    }
    for name, value in in_force.items():
        print(f"PAQUETERIA_{name.upper()}={shlex.quote(str(value))}")  # noqa: T201 (for machines, unwrapped)


@app.command()
def migrate(
    *,
    is_setting_passwords: Annotated[
        bool,
        typer.Option("--set-passwords", help="Give the roles the passwords of their URLs, and make the first ADMIN."),
    ] = False,
) -> None:
    """Bring the database to this version's schema."""
    with _servers() as settings:
        for name in migrate_database(settings.postgres_dsn) or ["nothing: the database is up to date"]:
            console.print(f"Applied {name}")
        if is_setting_passwords:
            set_passwords(settings.postgres_dsn, [settings.commands_url, settings.queries_url, settings.projector_url])
            asyncio.run(_first_admin(settings))


@app.command()
def serve(
    application: Application,
    workers: Annotated[int | None, typer.Option(help="Processes; PAQUETERIA_WORKERS where left out.", min=1)] = None,
) -> None:
    """Serve the write API, the read API, or both on one port."""
    with _servers() as settings:
        count = workers or settings.workers
        cli.refuse_taken_port(settings)
        check_budget(settings, count)
        logs.configure()
        if count > 1 and not is_shared():
            share(_figures(settings))
        serving.serve(APPLICATIONS[application], str(HERE), settings.host, settings.port, count)


@app.command()
def project(
    *,
    parked: Annotated[bool, typer.Option("--parked", help="List what can't be projected, and end.")] = False,
    retry: Annotated[bool, typer.Option("--retry", help="With --parked: first have it tried again.")] = False,
) -> None:
    """Run the projector and the scheduler; of several, one leads and the others stand by."""
    if retry and not parked:
        raise ConfigurationError("--retry goes with --parked")
    with _servers() as settings:
        if parked:
            asyncio.run(_show_parked(settings, is_retried=retry))
            return
        logs.configure()
        if settings.metrics_port:
            start_http_server(settings.metrics_port, settings.host)
        uvloop.run(cli.until_signal(process.run(settings, jobs=JOBS)))  # most of a small batch is the loop


@app.command()
def rebuild(
    name: Annotated[str | None, typer.Argument(help="One read model; all of them where left out.")] = None,
) -> None:
    """Fill the read models anew from the normalized tables, while the old ones serve."""
    with _servers() as settings, cli.progress() as report:
        asyncio.run(rebuild_projections(settings, name, report))
    console.print("Rebuilt.")


@app.command()
def verify(*, repair: Annotated[bool, typer.Option("--repair", help="Derive again what differs.")] = False) -> None:
    """Prove that the read side equals the write side; exit status 1 if it doesn't."""
    with _servers() as settings:
        differences = asyncio.run(verify_projections(settings, repair=repair, report=cli.say))
    if not differences:
        console.print("The read side equals the write side.")
    elif repair:
        console.print(f"{differences} differences, repaired.")
    else:
        cli.fail(f"{differences} differences: the read side is not what the write side says")


@app.command()
def seed(count: Annotated[int, typer.Argument(min=1, max=10_000_000)]) -> None:
    """Put believable packages of the last year into the shop."""
    with _servers() as settings:
        migrate_database(settings.postgres_dsn)
        asyncio.run(_seed(settings, count))


@app.command()
def bench(
    names: Annotated[list[str] | None, typer.Argument(help="Measurements; all of them where left out.")] = None,
    packages: Annotated[int | None, typer.Option(help="Size of the shop, instead of each one's own.", min=1)] = None,
    seconds: Annotated[float | None, typer.Option(help="Length of each part, instead of each one's own.")] = None,
    rounds: Annotated[int | None, typer.Option(help="Rounds or trials, instead of each one's own.", min=1)] = None,
    output: Annotated[Path | None, typer.Option(help="Folder of the results; docs/performance at full size.")] = None,
    keep: Annotated[Path | None, typer.Option(help="Folder in which the seeded shops stay for the next time.")] = None,
) -> None:
    """Measure, on servers of its own, and write down figures, a page of them and plots."""
    from bench.run import Sizes, run  # noqa: PLC0415 (needs what only development installs)

    asyncio.run(run(names or [], Sizes(packages, seconds, rounds), output, keep))


@app.command()
def monitor(  # noqa: PLR0913 (each is an option)
    *,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a look, on a line of its own.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Look again and again, until Ctrl-C.")] = False,
    every: Annotated[float, typer.Option(help="Seconds between two looks.", min=0.1)] = 5.0,
    slow_ms: Annotated[float, typer.Option(help="An endpoint may take as long.")] = DEFAULT.slow_ms,
    hit_rate: Annotated[float, typer.Option(help="Of the pages, as many must come from a cache.")] = DEFAULT.hit_rate,
    disk: Annotated[float, typer.Option(help="Percent of the disk that may be in use.")] = DEFAULT.disk_percent,
    memory: Annotated[float, typer.Option(help="Percent of the memory that may be.")] = DEFAULT.memory_percent,
    connections: Annotated[
        float, typer.Option(help="Percent of PostgreSQL's connections that may be.")
    ] = DEFAULT.connections_percent,
) -> None:
    """Measure the running service from outside; exit status 1 if something is beyond its threshold or out of reach."""
    settings = Settings.load()  # of what runs: a monitor that started servers would measure itself
    thresholds = Thresholds(slow_ms, hit_rate, disk, memory, connections)
    if not watch:
        sys.exit(asyncio.run(_look(settings, thresholds, as_json=as_json)))
    asyncio.run(cli.until_signal(_look_on(settings, thresholds, every, as_json=as_json)))
    sys.exit(INTERRUPTED)


async def _look(settings: Settings, thresholds: Thresholds, *, as_json: bool) -> bool:
    """Measure once, and tell whether something is beyond its threshold."""
    report = await make_report(settings)
    found = problems(report, thresholds)
    if as_json:
        print(to_json(report, found), flush=True)  # noqa: T201 (for machines, unwrapped)
    else:
        show(console, report, found)
    return bool(found)


async def _look_on(settings: Settings, thresholds: Thresholds, every: float, *, as_json: bool) -> None:
    while True:
        await _look(settings, thresholds, as_json=as_json)
        heed_cancellation()
        await asyncio.sleep(every)


@staff_app.command("add")
def staff_add(
    name: str,
    role: Annotated[Role, typer.Option(case_sensitive=False)] = Role.OPERATOR,
    password: Annotated[str | None, typer.Option(envvar="PAQUETERIA_NEW_PASSWORD", help="Random if left out.")] = None,
) -> None:
    """Let one more person sign in."""
    with _servers() as settings:
        chosen = password or secrets.token_urlsafe(12)
        asyncio.run(_add_staff(settings, name, role, chosen))
    console.print(f"{name.lower()} may sign in as {role}" + ("" if password else f" with the password {chosen}"))


@staff_app.command("key")
def staff_key(
    name: str,
    role: Annotated[Role, typer.Option(case_sensitive=False, help="What the key may do at most.")] = Role.VIEWER,
) -> None:
    """Make a key by which a machine works as this person; it is shown this once."""
    with _servers() as settings:
        key_id, key = asyncio.run(_add_api_key(settings, name, role))
    cli.say(f"Key {key_id} of {name.lower()}, {role}, to send as Authorization: Bearer {key}")


@staff_app.command("keys")
def staff_keys() -> None:
    """List the keys that there are and were."""
    with _servers() as settings:
        asyncio.run(_show_api_keys(settings))


@staff_app.command("revoke-key")
def staff_revoke_key(key_id: uuid.UUID) -> None:
    """End a key at once."""
    with _servers() as settings:
        asyncio.run(_revoke_api_key(settings, key_id))
    console.print("The key is revoked.")


@cache_app.command()
def stats() -> None:
    """Tell what Redis says of itself and whether a projector vouches for the pages."""
    with _servers() as settings, make_blocking(settings) as client:
        info: dict[str, Any] = client.info()
        console.print(f"believed        {'yes' if client.exists(EPOCH_KEY) else 'no: no projector vouches for it'}")
        for field in ("used_memory_human", "maxmemory_human", "keyspace_hits", "keyspace_misses", "evicted_keys"):
            console.print(f"{field:<20}{info.get(field)}")


@cache_app.command()
def clear() -> None:
    """Discard every page: the projector begins another epoch within a moment."""
    with _servers() as settings:
        asyncio.run(_discard_pages(settings))
    console.print("Every page is discarded.")


def _figures(settings: Settings) -> Path:
    """Where the processes of one service keep what they count; a port has one service."""
    return settings.data_dir / "metrics" / str(settings.port)


@contextlib.contextmanager
def _servers() -> Iterator[Settings]:
    settings = Settings.load()
    with embedded.available(settings):
        yield settings


@contextlib.asynccontextmanager
async def _connection(settings: Settings) -> AsyncIterator[Connection]:
    async with await connect(settings.postgres_dsn, "manage") as conn, conn.transaction():
        yield conn


async def _add_staff(settings: Settings, name: str, role: Role, password: str) -> None:
    async with _connection(settings) as conn:
        await add_staff_account(conn, name, name, role, password)


async def _add_api_key(settings: Settings, name: str, role: Role) -> tuple[uuid.UUID, str]:
    async with _connection(settings) as conn:
        return await add_api_key(conn, Context(system_clock()), name, role)


async def _show_api_keys(settings: Settings) -> None:
    async with _connection(settings) as conn:
        for key in await list_api_keys(conn):
            state = f"revoked {key.revoked_at:%Y-%m-%d}" if key.revoked_at else "in force"
            cli.say(f"{key.key_id} {key.username} {key.role} since {key.created_at:%Y-%m-%d}, {state}")


async def _revoke_api_key(settings: Settings, key_id: uuid.UUID) -> None:
    async with _connection(settings) as conn:
        await revoke_api_key(conn, Context(system_clock()), key_id)


async def _show_parked(settings: Settings, *, is_retried: bool) -> None:
    async with await connect(settings.postgres_dsn, "manage") as conn:
        if is_retried and not await parking.retry_and_wait(conn, RETRIED_WITHIN):
            console.print("No projector has tried it again yet: it will, once one leads.")
        waiting = await parking.list_parked(conn)
    for key in waiting:
        since = key.since.isoformat(timespec="seconds")
        cli.say(f"{key.kind} {key.key} since {since}, {key.changes} changes: {key.reason}")
    console.print(f"{len(waiting)} parked." if waiting else "Nothing is parked.")


async def _discard_pages(settings: Settings) -> None:
    async with make_redis(settings) as client:
        await discard_everything(client)


async def _first_admin(settings: Settings) -> None:
    async with _connection(settings) as conn:
        find = "SELECT EXISTS (SELECT FROM staff WHERE role = 'ADMIN' AND active)"  # a sample brings staff of its own
        found = await (await conn.execute(find)).fetchone()
        if found is not None and found[0]:
            return
        password = settings.admin_password or secrets.token_urlsafe(12)
        await add_staff_account(conn, "admin", "Administración", Role.ADMIN, password)
    if settings.admin_password:
        console.print("Made the first ADMIN: admin, with the password of PAQUETERIA_ADMIN_PASSWORD")
    else:
        console.print(f"Made the first ADMIN: admin, with the password {password}")


async def _say_when_ready(settings: Settings, demo: int) -> None:
    while not await asyncio.to_thread(cli.is_ready, settings):  # noqa: ASYNC110 (another process has no event of ours)
        await asyncio.sleep(0.1)
    if demo:
        async with await connect(settings.postgres_dsn, "manage") as conn:
            empty = await (await conn.execute("SELECT NOT EXISTS (SELECT FROM packages)")).fetchone()
        if empty is not None and empty[0]:
            await _seed(settings, demo)
    address = settings.public_url or f"http://{settings.host}:{settings.port}"
    console.print(f"Ready at {address}, described at {address}/docs")
    console.print(f"Data in {settings.data_dir}; Ctrl-C stops everything")


async def _seed(settings: Settings, count: int) -> None:
    with cli.progress() as report:
        if not await seed_packages(settings, count, report):  # with no projector at work
            await rebuild_projections(settings, None, report)
    async with await connect(settings.postgres_dsn, "manage") as conn:
        await refresh_views(conn, system_clock())  # what was paid in the past lies on days that are settled by now


def main() -> None:
    """Run the command line; what can be foreseen is one line on standard error."""
    try:
        app()
    except (ConfigurationError, Problem) as error:
        cli.fail(str(error))
    except psycopg.Error as error:
        cli.fail(f"the database: {str(error).strip().splitlines()[0]}")
    except (redis.RedisError, RedisClusterException) as error:
        cli.fail(f"Redis: {error}")
    except OSError as error:
        if error.filename is None:
            raise
        cli.fail(f"{error.filename}: {error.strerror}")
    except KeyboardInterrupt:
        cli.fail("interrupted")


if __name__ == "__main__":
    main()
