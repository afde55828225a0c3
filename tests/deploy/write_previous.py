"""Note the statements of this release, for the next one to be held against: `python -m tests.deploy.write_previous`.

They are the constants that the code keeps them in; those that are put together as they are needed are left out.
"""

import importlib
import pkgutil
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg

from db.embedded import PostgresServer
from db.migrate import migrate

PLACE = Path(__file__).with_name("previous_release.sql")
PACKAGES = ("commands", "db", "projections", "queries")
STATEMENT = re.compile(r"\s*(SELECT|INSERT|UPDATE|DELETE|WITH)\s")


def statements() -> Iterator[tuple[str, str]]:
    """Give each statement under its name, with numbers for its parameters."""
    for package in PACKAGES:
        for found in pkgutil.iter_modules(importlib.import_module(package).__path__):
            module = importlib.import_module(f"{package}.{found.name}")
            for name, value in vars(module).items():
                if isinstance(value, str) and name.isupper() and STATEMENT.match(value):
                    yield f"{package}.{found.name}.{name}", numbered(value)


def numbered(statement: str) -> str:
    """Write `%(name)s` as PREPARE has it."""
    names = list(dict.fromkeys(re.findall(r"%\((\w+)\)s", statement)))
    text = re.sub(r"%\((\w+)\)s", lambda found: f"${names.index(found[1]) + 1}", statement)
    return text.replace("%%", "%").strip()


def is_understood(conn: psycopg.Connection, statement: str) -> bool:
    """Tell whether the schema has what the statement names."""
    try:
        with conn.transaction():
            conn.execute(f"PREPARE tried AS {statement}".encode())
            conn.execute("DEALLOCATE tried")
    except psycopg.Error:
        return False
    return True


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        server = PostgresServer(Path(folder) / "postgres", Path(folder) / "run", {"fsync": "off"})
        server.start()
        migrate(server.dsn())
        with psycopg.connect(server.dsn(), autocommit=True) as conn:
            kept = [f"-- {name}\n{text};\n" for name, text in statements() if is_understood(conn, text)]
        server.stop()
    PLACE.write_text("\n".join(kept))
