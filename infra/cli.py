"""What every command of the command line shares: its words, its bars, its signals and its refusals."""

import asyncio
import contextlib
import http.client
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from infra.errors import ConfigurationError
from infra.memory import settle
from infra.settings import Settings
from infra.tasks import cancel

console = Console(highlight=False)


def fail(sentence: str) -> None:
    """End the process with one line on standard error."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(f"paqueteria: {sentence}", markup=False)
    sys.exit(1)


def say(sentence: str) -> None:
    """Print one line as one line, however long: it may be read by a program."""
    console.print(sentence, markup=False, soft_wrap=True)


@contextlib.contextmanager
def progress() -> Iterator[Callable[[str, int, int], None]]:
    """Show bars; the function takes what is being done, how much of it is done, and how much there is."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as bars:
        tasks: dict[str, Any] = {}

        def report(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done, total=total)

        yield report


def refuse_taken_port(settings: Settings) -> None:
    """Tell early that nobody can listen there, before anything has been started."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
            probe.listen()
        except OSError as error:
            reason = f"Port {settings.port} on {settings.host} can't be used: {error.strerror}"
            raise ConfigurationError(reason) from None


def is_ready(settings: Settings) -> bool:
    """Ask the service whether it can serve."""
    connection = http.client.HTTPConnection(settings.host, settings.port, timeout=2)
    try:
        connection.request("GET", "/health/ready")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def interrupt_on_signals() -> None:
    """Take SIGTERM and a closed terminal for Ctrl-C, so that what was begun is undone."""

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)


def stop_event() -> asyncio.Event:
    """An event that a signal sets: within the running loop, a signal interrupts nothing."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


async def until_signal(work: Coroutine[None, None, None]) -> None:
    """Run the work until it ends or a signal asks for that."""
    settle()
    stop = asyncio.create_task(stop_event().wait())
    task = asyncio.create_task(work)
    await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
    stop.cancel()
    if task.done():
        await task
    else:
        await cancel({task})
        await asyncio.gather(task, return_exceptions=True)
