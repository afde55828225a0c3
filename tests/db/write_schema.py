"""Write db/schema.sql again after a migration: `.venv/bin/python -m tests.db.write_schema`."""

import tempfile
from pathlib import Path

from db.embedded import PostgresServer
from db.migrate import migrate
from tests.db.test_migrate import SCHEMA, dump

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        server = PostgresServer(Path(folder) / "postgres", Path(folder) / "run", {"fsync": "off"})
        server.start()
        migrate(server.dsn())
        SCHEMA.write_text(dump(server.dsn()))
        server.stop()
