"""Processes that we start: they end with us, and what should go on running is started again."""

import asyncio
import contextlib
import os
import shutil
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from infra import logs
from infra.errors import ConfigurationError

log = logs.get("children")

NOBODY = 65534
"""The user with no rights of its own, which every Linux has."""

FIRST_PAUSE = 0.2
LONGEST_PAUSE = 5.0
"""Seconds before a child that died is started again; the pause doubles while it dies young."""

GROWN_UP = 10.0

STOPPED_WITHIN = 8.0
"""Seconds from a child's signal to its end; after that it is killed."""


def bound_to_parent(command: Sequence[str | Path], end_signal: str, *, drop_root: bool = False) -> list[str]:
    """Wrap a command so that it gets `end_signal` when its parent ends in whatever way.

    With `drop_root` it runs as NOBODY where we are root. The one capability that it keeps lets it pass through folders
    closed to others, /root for one; no file's or folder's permissions are changed for it.
    """
    setpriv = shutil.which("setpriv")
    arguments = [str(part) for part in command]
    if drop_root and os.geteuid() == 0:
        if setpriv is None:
            raise ConfigurationError("To run the embedded PostgreSQL as root, setpriv (util-linux) must be installed")
        user = [f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
        passage = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
        return [setpriv, *user, *passage, f"--pdeathsig={end_signal}", *arguments]
    return [setpriv, f"--pdeathsig={end_signal}", *arguments] if setpriv else arguments


@dataclass
class Child:
    """A command of this program that is kept running."""

    name: str
    arguments: Sequence[str]

    async def keep_running(self) -> None:
        """Start it, and start it again when it dies, until cancelled; then end it and wait for that."""
        pause = FIRST_PAUSE
        loop = asyncio.get_running_loop()
        while True:
            command = bound_to_parent([sys.executable, *self.arguments], "TERM")
            # A session of its own: Ctrl-C reaches the parent alone, which ends its children in order.
            process = await asyncio.create_subprocess_exec(*command, start_new_session=True)
            started = loop.time()
            try:
                status = await process.wait()
            except asyncio.CancelledError:
                await _end(process)
                raise
            _end_group(process.pid)
            pause = FIRST_PAUSE if loop.time() - started > GROWN_UP else min(2 * pause, LONGEST_PAUSE)
            log.warning("child_died", child=self.name, status=status, again_in_seconds=pause)
            await asyncio.sleep(pause)


async def _end(process: asyncio.subprocess.Process) -> None:
    try:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(STOPPED_WITHIN):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
    finally:
        _end_group(process.pid)


def _end_group(leader: int) -> None:
    """End what a child has started and left behind: workers whose parent was killed would go on holding the port."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)
