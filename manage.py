"""The command line, and the one place that puts the parts together: `python manage.py --help`."""

import asyncio
import contextlib
import http.client
import secrets
import shlex
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import psycopg
import redis
import typer
import uvicorn
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from commands.add_staff import add_staff_account
from commands.lapse_announcements import lapse_announcements
from commands.seed import seed as seed_packages
from commands.transaction import forget_idempotency_keys
from db import embedded
from db.budget import check_budget
from db.migrate import migrate as migrate_database
from db.page_cache import EPOCH_KEY
from db.pools import Connection, connect
from infra import logs
from infra.auth import Role
from infra.children import Child
from infra.errors import ConfigurationError, Problem
from infra.settings import Settings
from projections import process
from projections.rebuild import rebuild as rebuild_projections
from projections.verify import verify as verify_projections

HERE = Path(__file__).parent
APPLICATIONS = {"commands": "commands.api:create_app", "queries": "queries.api:create_app", "all": "web.api:create_app"}
JOBS = (
    process.Job("lapse_announcements", 300, lapse_announcements),
    process.Job("forget_idempotency_keys", 600, forget_idempotency_keys),
)

console = Console(highlight=False)
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
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGHUP, _interrupt)
    settings = Settings.load()
    _refuse_taken_port(settings)
    with embedded.owned(settings):
        migrate_database(settings.postgres_dsn)
        check_budget(settings, settings.workers)
        asyncio.run(_first_admin(settings))
        asyncio.run(_run_everything(settings, demo))
    console.print("Stopped.")


@app.command()
def env() -> None:
    """Print the settings in force as NAME=value lines, secrets included, for `eval` or a client's use."""
    settings = Settings.load()
    in_force = settings.model_dump() | {
        "database_url": settings.postgres_dsn,
        "redis_url": settings.redis_dsn,
        "secret_key": settings.signing_key(),
        "replica_urls": ",".join(settings.replica_urls),
        "trusted_proxies": ",".join(settings.trusted_proxies),
    }
    for name, value in in_force.items():
        print(f"PAQUETERIA_{name.upper()}={shlex.quote(str(value))}")  # noqa: T201 (for machines, unwrapped)


@app.command()
def migrate() -> None:
    """Bring the database to this version's schema."""
    with _servers() as settings:
        for name in migrate_database(settings.postgres_dsn) or ["nothing: the database is up to date"]:
            console.print(f"Applied {name}")


@app.command()
def serve(
    application: Application,
    workers: Annotated[int | None, typer.Option(help="Processes; PAQUETERIA_WORKERS where left out.", min=1)] = None,
) -> None:
    """Serve the write API, the read API, or both on one port."""
    with _servers() as settings:
        count = workers or settings.workers
        check_budget(settings, count)
        logs.configure()
        uvicorn.run(
            APPLICATIONS[application],
            factory=True,
            host=settings.host,
            port=settings.port,
            workers=count,
            app_dir=str(HERE),
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,  # who asks is decided by infra.addresses, from TRUSTED_PROXIES alone
            timeout_graceful_shutdown=5,
        )


@app.command()
def project() -> None:
    """Run the projector and the scheduler; of several, one leads and the others stand by."""
    with _servers() as settings:
        logs.configure()
        asyncio.run(_until_signal(process.run(settings, jobs=JOBS)))


@app.command()
def rebuild(
    name: Annotated[str | None, typer.Argument(help="One read model; all of them where left out.")] = None,
) -> None:
    """Fill the read models anew from the normalized tables, while the old ones serve."""
    with _servers() as settings, _progress() as report:
        asyncio.run(rebuild_projections(settings, name, report))
    console.print("Rebuilt.")


@app.command()
def verify(*, repair: Annotated[bool, typer.Option("--repair", help="Derive again what differs.")] = False) -> None:
    """Prove that the read side equals the write side; exit status 1 if it doesn't."""
    with _servers() as settings:
        differences = asyncio.run(verify_projections(settings, repair=repair, report=console.print))
    if not differences:
        console.print("The read side equals the write side.")
    elif repair:
        console.print(f"{differences} differences, repaired.")
    else:
        _fail(f"{differences} differences: the read side is not what the write side says")


@app.command()
def seed(count: Annotated[int, typer.Argument(min=1, max=10_000_000)]) -> None:
    """Put believable packages of the last year into the shop."""
    with _servers() as settings:
        migrate_database(settings.postgres_dsn)
        asyncio.run(_seed(settings, count))


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


@cache_app.command()
def stats() -> None:
    """Tell what Redis says of itself and whether a projector vouches for the pages."""
    with _servers() as settings, redis.Redis.from_url(settings.redis_dsn) as client:
        info: dict[str, Any] = client.info()
        console.print(f"believed        {'yes' if client.exists(EPOCH_KEY) else 'no: no projector vouches for it'}")
        for field in ("used_memory_human", "maxmemory_human", "keyspace_hits", "keyspace_misses", "evicted_keys"):
            console.print(f"{field:<20}{info.get(field)}")


@cache_app.command()
def clear() -> None:
    """Discard every page: the projector begins another epoch within a moment."""
    with _servers() as settings, redis.Redis.from_url(settings.redis_dsn) as client:
        client.delete(EPOCH_KEY)
    console.print("Every page is discarded.")


@contextlib.contextmanager
def _servers() -> Iterator[Settings]:
    settings = Settings.load()
    with embedded.available(settings):
        yield settings


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """Show bars; the function takes what is being done, how much of it is done, and how much there is."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as bars:
        tasks: dict[str, Any] = {}

        def report(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done, total=total)

        yield report


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _refuse_taken_port(settings: Settings) -> None:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            raise ConfigurationError(
                f"Port {settings.port} on {settings.host} can't be used: {error.strerror}"
            ) from None


@contextlib.asynccontextmanager
async def _connection(settings: Settings) -> AsyncIterator[Connection]:
    async with await connect(settings.postgres_dsn, "manage") as conn, conn.transaction():
        yield conn


async def _add_staff(settings: Settings, name: str, role: Role, password: str) -> None:
    async with _connection(settings) as conn:
        await add_staff_account(conn, name, name, role, password)


async def _first_admin(settings: Settings) -> None:
    async with _connection(settings) as conn:
        found = await (await conn.execute("SELECT EXISTS (SELECT FROM staff WHERE role = 'ADMIN')")).fetchone()
        if found is not None and found[0]:
            return
        password = settings.admin_password or secrets.token_urlsafe(12)
        await add_staff_account(conn, "admin", "Administración", Role.ADMIN, password)
    if settings.admin_password:
        console.print("Made the first ADMIN: admin, with the password of PAQUETERIA_ADMIN_PASSWORD")
    else:
        console.print(f"Made the first ADMIN: admin, with the password {password}")


async def _run_everything(settings: Settings, demo: int) -> None:
    projector = Child("projector", [str(HERE / "manage.py"), "project"])
    api = Child("api", [str(HERE / "manage.py"), "serve", "all", "--workers", str(settings.workers)])
    stop = _stop_event()
    running = [asyncio.create_task(projector.keep_running()), asyncio.create_task(api.keep_running())]
    try:
        ready = asyncio.create_task(_say_when_ready(settings, demo))
        await stop.wait()
        ready.cancel()
        await asyncio.gather(ready, return_exceptions=True)
    finally:
        for task in reversed(running):  # first nobody asks any more, then nobody projects
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def _say_when_ready(settings: Settings, demo: int) -> None:
    while not await asyncio.to_thread(_is_ready, settings):  # noqa: ASYNC110 (another process has no event of ours)
        await asyncio.sleep(0.1)
    if demo:
        async with await connect(settings.postgres_dsn, "manage") as conn:
            empty = await (await conn.execute("SELECT NOT EXISTS (SELECT FROM packages)")).fetchone()
        if empty is not None and empty[0]:
            await _seed(settings, demo)
    address = settings.public_url or f"http://{settings.host}:{settings.port}"
    console.print(f"Ready at {address}, described at {address}/docs")
    console.print(f"Data in {settings.data_dir}; Ctrl-C stops everything")


def _is_ready(settings: Settings) -> bool:
    connection = http.client.HTTPConnection(settings.host, settings.port, timeout=2)
    try:
        connection.request("GET", "/health/ready")
        return connection.getresponse().status == http.client.OK
    except OSError:
        return False
    finally:
        connection.close()


async def _seed(settings: Settings, count: int) -> None:
    with _progress() as report:
        await seed_packages(settings, count, report)
        await rebuild_projections(settings, None, report)


def _stop_event() -> asyncio.Event:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


async def _until_signal(work: Coroutine[None, None, None]) -> None:
    """Run the work until it ends or a signal asks for that."""
    stop = asyncio.create_task(_stop_event().wait())
    task = asyncio.create_task(work)
    await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
    stop.cancel()
    if task.done():
        await task
    else:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _fail(sentence: str) -> None:
    Console(stderr=True, highlight=False, soft_wrap=True).print(f"paqueteria: {sentence}", markup=False)
    sys.exit(1)


def main() -> None:
    """Run the command line; what can be foreseen is one line on standard error."""
    try:
        app()
    except (ConfigurationError, Problem) as error:
        _fail(str(error))
    except psycopg.Error as error:
        _fail(f"the database: {str(error).strip().splitlines()[0]}")
    except redis.RedisError as error:
        _fail(f"Redis: {error}")
    except KeyboardInterrupt:
        _fail("interrupted")


if __name__ == "__main__":
    main()
