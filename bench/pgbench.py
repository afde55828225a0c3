"""Statements run by pgbench: what the database alone makes of them, with next to no client."""

import asyncio
import re
from pathlib import Path

from psycopg.conninfo import make_conninfo

from db.embedded import program
from db.pools import PLANNED_ONCE
from infra.errors import ConfigurationError
from infra.settings import Settings


def as_script(statement: str, **values: str) -> str:
    """Write a statement of the service for pgbench: each value as the SQL that stands for it."""
    text = re.sub(r"%\((\w+)\)s", lambda found: values[found[1]], statement).replace("%%", "%")
    return re.sub(r"^\s*--.*$", "", text, flags=re.MULTILINE).strip()


async def transactions_a_second(
    settings: Settings, script: Path, clients: int, seconds: float, **variables: int
) -> float:
    """Run a script for so long, with these variables at first. A script that fails is a ConfigurationError."""
    defined = [f"-D{name}={value}" for name, value in variables.items()]
    length = ["-c", str(clients), "-T", str(max(1, round(seconds)))]
    arguments = ["-n", "-j", "2", "-M", "prepared", *length, *defined, "-f"]
    process = await asyncio.create_subprocess_exec(
        program("pgbench"),
        *arguments,
        script,
        make_conninfo(settings.postgres_dsn, options=PLANNED_ONCE),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output = (await process.communicate())[0].decode()
    found = re.search(r"^tps = ([0-9.]+)", output, re.MULTILINE)
    if process.returncode or found is None:
        raise ConfigurationError(f"pgbench failed: {output.strip()}")
    return float(found[1])
