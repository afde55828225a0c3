"""Processes that we start: they end with us, and what should go on running is started again."""

import asyncio
import contextlib
import os
import shutil
import signal
import stat
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from infra import logs
from infra.errors import ConfigurationError

log = logs.get("children")

NOBODY = 65534
"""The user with no rights of its own, which every Linux has."""

PASSING_CAPABILITIES = {"dac_read_search": 2, "dac_override": 1}
"""Each with its bit; the first does no more than is needed, but containers usually lack it."""

FIRST_PAUSE = 0.2
LONGEST_PAUSE = 5.0
"""Seconds before a child that died is started again; the pause doubles while it dies young."""

GROWN_UP = 10.0

STOPPED_WITHIN = 8.0
"""Seconds from a child's signal to its end; after that it is killed."""


def bound_to_parent(
    command: Sequence[str | Path], end_signal: str, *, drop_root: bool = False, uses: Sequence[Path] = ()
) -> list[str]:
    """Wrap a command so that it gets `end_signal` when its parent ends in whatever way.

    With `drop_root` it runs as NOBODY where we are root. If the program or what it `uses` lies beneath folders closed
    to others, /root for one, it keeps the one capability to pass through; no folder's permissions are changed for it.
    """
    setpriv = shutil.which("setpriv")
    arguments = [str(part) for part in command]
    if drop_root and os.geteuid() == 0:
        if setpriv is None:
            raise ConfigurationError("To run the embedded PostgreSQL as root, setpriv (util-linux) must be installed")
        user = [f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
        passage = _passage([Path(command[0]), *uses])
        return [setpriv, *user, *passage, f"--pdeathsig={end_signal}", *arguments]
    return [setpriv, f"--pdeathsig={end_signal}", *arguments] if setpriv else arguments


def _passage(paths: Sequence[Path]) -> list[str]:
    """What setpriv must leave to a process of NOBODY's for it to reach all of the paths."""
    closed = [folder for path in paths for folder in path.resolve().parents if not folder.stat().st_mode & stat.S_IXOTH]
    if not closed and paths[0].stat().st_mode & stat.S_IXOTH:
        return []
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    held = int(status["CapPrm"], 16) & int(status["CapBnd"], 16)
    name = next((name for name, bit in PASSING_CAPABILITIES.items() if held >> bit & 1), None)
    if name is None:
        reason = f"The embedded PostgreSQL, which may not run as root, can't pass through {(closed or paths)[0]}"
        raise ConfigurationError(f"{reason}: move this folder, or run it as an ordinary user")
    # Without the secure bit, access(2), by which PostgreSQL finds its own program, would not count the capability.
    return [f"--inh-caps=+{name}", f"--ambient-caps=+{name}", "--securebits=+no_setuid_fixup"]


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
