"""A whole shop on real processes, clerks at work in it, and what must be true once the dust has settled."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import psycopg
from redis import Redis

from db.leadership import IS_LED
from infra.children import bound_to_parent
from infra.settings import Settings
from projections.verify import verify
from tests.chaos.clerks import Api, Clerk
from tests.chaos.equal_sides import assert_equal_sides, lag
from tests.support import wait_until
from tests.test_manage import Shop

PROJECT = ("manage.py", "project")

CACHED_WITHIN = 15.0
"""Seconds until no reader may get a page from before; well under the 30 s after which a page dies of itself."""

Database = psycopg.Connection[tuple[Any, ...]]


class Standby:
    """A projector on another machine, so to say, with a supervisor there that starts it again when it dies.

    Another command, that of one who is meant to die, is run once.
    """

    def __init__(self, environment: dict[str, str], log: Path, command: Sequence[str] = PROJECT) -> None:
        self._environment = environment
        self._ended = threading.Event()
        self._starting = threading.Lock()
        self._wanted = threading.Event()
        self._wanted.set()
        self.log = log
        self.command = tuple(command)
        self.process: subprocess.Popen[bytes] | None = None
        self.statuses: list[int] = []
        self._thread = threading.Thread(target=self._keep)

    @contextlib.contextmanager
    def kept(self) -> Iterator["Standby"]:
        """Keep it running while the block lasts."""
        self._thread.start()
        try:
            yield self
        finally:
            with self._starting:
                self._ended.set()
                self._wanted.set()
                if self.process is not None:
                    self.process.kill()
            self._thread.join()

    @contextlib.contextmanager
    def kept_away(self) -> Iterator[None]:
        """Keep it from running while the block lasts."""
        with self._starting:
            self._wanted.clear()
            if self.process is not None:
                self.process.kill()
        try:
            yield
        finally:
            self._wanted.set()

    def _keep(self) -> None:
        # Bound to the life of this thread, and so to that of the test run.
        command = bound_to_parent([sys.executable, *self.command], "KILL")
        while self._wanted.wait() and not self._ended.is_set():
            with self._starting, self.log.open("ab") as log:
                if self._ended.is_set() or not self._wanted.is_set():
                    continue
                self.process = subprocess.Popen(command, env=self._environment, stdout=log, stderr=log)
            self.statuses.append(self.process.wait())
            if self.command != PROJECT:
                return
            self._ended.wait(0.2)

    def last_lead(self) -> str:
        """When it last took the lead, as its log has it."""
        return last_lead(self.log)

    def running(self) -> psutil.Process | None:
        """The process, if it lives."""
        with contextlib.suppress(psutil.NoSuchProcess):
            if self.process is not None and self.process.returncode is None:
                return psutil.Process(self.process.pid)
        return None

    def has_lost_the_lead(self) -> bool:
        """Tell whether it has noticed."""
        return '"event": "lead_lost"' in self.log.read_text()

    def met(self, fate: str) -> bool:
        """Tell whether it was killed or is stopped."""
        if fate == "KILL":
            return -signal.SIGKILL in self.statuses
        process = self.running()
        return process is not None and process.status() == psutil.STATUS_STOPPED


def last_lead(log: Path) -> str:
    """When one of a log's processes last took the lead; empty if none did."""
    lines = log.read_text().splitlines() if log.exists() else []
    return next((str(json.loads(line)["timestamp"]) for line in reversed(lines) if '"event": "leading"' in line), "")


class House:
    """`manage.py up` on a folder of its own, a standby projector beside it, and clerks."""

    def __init__(self, folder: Path) -> None:
        folder.chmod(0o755)
        self.shop = Shop(folder)
        self.shop.environment |= {f"PAQUETERIA_THROTTLE_{rule}": "" for rule in ("ANNOUNCE", "TRACK", "SIGN_IN")}
        self.folder = folder
        self.standby = Standby(self.shop.environment, folder / "standby.log")
        self.gate = threading.Event()
        self.clerks: list[Clerk] = []
        self.authorization = ""
        self.up: subprocess.Popen[bytes] | None = None

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        """Start everything, and end it."""
        with self.shop.up() as self.up, self.standby.kept():
            self.api = Api(self.shop.port)
            self.authorization = self.api.sign_in("admin", "una-clave-de-prueba")
            for prefix in ("A", *(f"R{number:02}" for number in range(10))):
                last = 9999 if prefix == "A" else 99
                shelf = {"prefix": f"{prefix}-", "first": 0, "last": last, "width": 4 if prefix == "A" else 3}
                answer = self.api.command("POST", "/sites/PRINCIPAL/positions", shelf)
                assert answer.status == 201, answer
            yield
            self.api.close()
        assert self.shop.processes() == []

    @property
    def settings(self) -> Settings:
        """Those that the processes run on."""
        return Settings(data_dir=self.folder, port=self.shop.port)

    @contextlib.contextmanager
    def database(self) -> Iterator[Database]:
        """A connection for looking, and for breaking things."""
        with psycopg.connect(self.settings.postgres_dsn, autocommit=True, application_name="chaos") as conn:
            yield conn

    @contextlib.contextmanager
    def at_work(self, clerks: int = 4, pause: float = 0.01) -> Iterator[None]:
        """Let clerks work while the block lasts; at its end everything is proved once more."""
        first = len(self.clerks)
        new = [Clerk(first + n, self.shop.port, self.authorization, self.gate, pause) for n in range(clerks)]
        self.clerks += new
        self.gate.set()
        for clerk in new:
            clerk.start()
        try:
            yield
            self.settle()
        finally:
            self.gate.set()  # who waits at the gate goes home
            for clerk in new:
                clerk.stop()
        for clerk in new:
            clerk.check()

    def settle(self) -> None:
        """Stop the clerks, wait until it is quiet, prove everything, and let them go on."""
        self.gate.clear()
        for clerk in self.clerks:
            with clerk.at_work:
                clerk.check()
        try:
            wait_until(self.is_quiet)
            with self.database() as conn:
                self.assert_nothing_acknowledged_is_lost(conn)
                assert_equal_sides(conn)
            said: list[str] = []
            assert asyncio.run(verify(self.settings, report=said.append)) == 0, said
            self.assert_pages_are_fresh()
            assert self.up is not None
            assert self.up.poll() is None, "nobody starts it again by hand"
        finally:
            self.gate.set()

    def is_quiet(self) -> bool:
        """Somebody leads and has shown everything."""
        try:
            with self.database() as conn:
                row = conn.execute(f"SELECT {IS_LED}".encode()).fetchone()
                return row is not None and bool(row[0]) and lag(conn) == 0
        except psycopg.OperationalError:
            return False

    def assert_nothing_acknowledged_is_lost(self, conn: Database) -> None:
        """Each command that a clerk was told of is in the tables and the log, and took effect once."""
        told = {entry for clerk in self.clerks for entry in clerk.told}
        log = "SELECT coalesce(package_id, customer_id)::text, version, type FROM change_log WHERE version IS NOT NULL"
        logged = conn.execute(log).fetchall()
        assert len(set(logged)) == len(logged), "a command is in the log twice"
        assert told - set(logged) == set(), "an acknowledged command is lost"
        packages = {key: row for key, *row in conn.execute("SELECT package_id::text, version, status FROM packages")}
        parcels = [parcel for clerk in self.clerks for parcel in clerk.parcels.values()]
        wrong = [parcel for parcel in parcels if packages.get(parcel.package_id) != [parcel.version, parcel.status]]
        assert wrong == [], "a parcel is not what its clerk was told last"
        customers: dict[str, int] = dict(conn.execute("SELECT customer_id::text, version FROM customers").fetchall())
        assert all(customers[key] >= version for clerk in self.clerks for key, version in clerk.customers.items())

    def addresses(self) -> list[str]:
        """A few dozen pages, among them those of the parcels that were worked on last."""
        pages = ["/packages", "/packages?limit=100", "/customers", "/customers?q=zoe", "/summary", "/sites"]
        pages += [f"/packages?status={status}" for status in ("ANNOUNCED", "RECEIVED", "DELIVERED", "CANCELLED")]
        pages += [f"/packages?sort={sort}" for sort in ("oldest", "owed", "days")]
        pages += ["/packages?status=ANNOUNCED&status=RECEIVED&limit=100", "/packages?q=ibanez&status=RECEIVED"]
        for clerk in self.clerks[-2:]:
            pages += [f"/packages?customer_id={customer}" for customer in list(clerk.customers)[-2:]]
            pages += [f"/customers/{customer}" for customer in list(clerk.customers)[-1:]]
            for parcel in list(clerk.parcels.values())[-2:]:
                pages += [f"/packages/{parcel.package_id}", f"/packages/{parcel.package_id}/history"]
                pages += [f"/track/{parcel.tracking_code}", f"/lookup?q={parcel.guide_number}"]
        return pages

    def assert_pages_are_fresh(self) -> None:
        """Each cached page soon is what it is when computed now."""
        for address in self.addresses():
            deadline = time.monotonic() + CACHED_WITHIN
            while self.page(address) != self.page(address, "no-store"):
                assert time.monotonic() < deadline, f"{address} is given as it was"
                time.sleep(0.05)

    def page(self, address: str, cache_control: str = "max-age=0") -> Any:  # noqa: ANN401
        """Give a page, without what tells at which instant it was made: a cursor does so too."""
        answer = self.api.get(address, {"Cache-Control": cache_control, "Authorization": self.authorization})
        assert answer.status == 200, answer
        made_at = {"as_of", "next_cursor"}
        return {name: value for name, value in answer.body.items() if name not in made_at}

    def child(self, name: str) -> psutil.Process | None:
        """A child that `up` keeps running."""
        assert self.up is not None
        with contextlib.suppress(psutil.NoSuchProcess):
            for process in psutil.Process(self.up.pid).children():
                if f"manage.py {name}" in " ".join(process.cmdline()):
                    return process
        return None

    def leader(self) -> psutil.Process:
        """The projector that took the lead last, and still lives."""
        found: list[psutil.Process] = []

        def found_one() -> bool:
            with contextlib.suppress(psutil.NoSuchProcess):
                leads = self.standby.last_lead() > last_lead(self.folder / "up.log")
                process = self.standby.running() if leads else self.child("project")
                if process is not None:
                    found.append(process)
            return bool(found) and found[-1].is_running()

        wait_until(found_one)
        return found[-1]

    def wait_for_another(self, leader: psutil.Process) -> None:
        """Return once somebody else leads."""
        wait_until(lambda: self.leader().pid != leader.pid)

    def kill(self, find: Callable[[], psutil.Process | None]) -> None:
        """Kill a process without a word of warning."""
        wait_until(lambda: find() is not None)
        process = find()
        if process is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    def postmaster(self) -> psutil.Process | None:
        """PostgreSQL's first process."""
        note = self.folder / "postgres" / "postmaster.pid"
        with contextlib.suppress(psutil.NoSuchProcess, FileNotFoundError, IndexError):
            return psutil.Process(int(note.read_text().split()[0]))
        return None

    def valkey(self) -> psutil.Process | None:
        """The server of the page cache."""
        return next((process for process in self.shop.processes() if process.name() == "valkey-server"), None)

    def stop_postgres_immediately(self) -> None:
        """As `pg_ctl stop -m immediate`: no checkpoint, no goodbye; it recovers from its log."""
        wait_until(lambda: self.postmaster() is not None)
        postmaster = self.postmaster()
        assert postmaster is not None
        postmaster.send_signal(signal.SIGQUIT)
        postmaster.wait(60)

    def empty_redis(self) -> None:
        """Take from the page cache all that it knows, while it is used."""
        with Redis.from_url(self.settings.redis_dsn) as redis:
            redis.flushall()

    @contextlib.contextmanager
    def doomed(self, point: str, passes: int, fate: str = "KILL") -> Iterator[Standby]:
        """Let the lead come to a projector that kills or stops itself at a point of its work; given once it has."""
        command = ("-m", "tests.chaos.doomed", point, str(passes), fate)
        doomed = Standby(self.shop.environment, self.folder / "doomed.log", command)
        with doomed.kept():
            with self.standby.kept_away():
                self._let_lead(doomed, fate)
            yield doomed

    def _let_lead(self, doomed: Standby, fate: str) -> None:
        wait_until(lambda: doomed.met(fate) or self.candidates() == 2)
        while not doomed.met(fate):
            assert doomed.statuses == [], doomed.log.read_text()
            if (child := self.child("project")) is not None:
                child.kill()
            deadline = time.monotonic() + 5
            while not (doomed.met(fate) or doomed.statuses) and time.monotonic() < deadline:
                time.sleep(0.02)

    def candidates(self) -> int:
        """How many processes lead or want to."""
        with self.database() as conn:
            row = conn.execute("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'paqueteria leader'")
            return int((row.fetchone() or (0,))[0])


def own_environment(settings: Settings) -> dict[str, str]:
    """The environment of a process that works on these servers, and no other setting of a shop's."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("PAQUETERIA_")}
    return plain | {
        "PAQUETERIA_DATABASE_URL": settings.database_url,
        "PAQUETERIA_COMMANDS_URL": settings.commands_url,
        "PAQUETERIA_QUERIES_URL": settings.queries_url,
        "PAQUETERIA_PROJECTOR_URL": settings.projector_url,
        "PAQUETERIA_REDIS_URL": settings.redis_url,
        "PAQUETERIA_SECRET_KEY": settings.secret_key,
        "PAQUETERIA_DATA_DIR": str(settings.data_dir),
    }
