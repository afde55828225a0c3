"""The projector as `manage.py project` runs it, except that at its end its metrics are written into a file."""

import sys
from pathlib import Path

import uvloop
from prometheus_client import generate_latest

from infra import cli, logs
from infra.settings import Settings
from manage import JOBS
from projections import process


def main(metrics: Path) -> None:
    """Project until a signal comes."""
    logs.configure()
    uvloop.run(cli.until_signal(process.run(Settings.load(), jobs=JOBS)))
    metrics.write_bytes(generate_latest())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
