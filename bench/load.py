"""As many requests as a server can answer: wrk, with a few connections that are never idle."""

import asyncio
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel

from infra.errors import ConfigurationError
from infra.settings import Settings

CONNECTIONS = 16

SCRIPT = Path(__file__).with_name("load.lua")

NUMBER = "@@@@@@@@@"
"""Where this stands in a request, each one that is sent has another number."""


class Load(BaseModel):
    """What came of it; latencies in milliseconds."""

    answers: int
    seconds: float
    refused: int
    lost: int
    p50: float
    p95: float
    p99: float

    @property
    def rate(self) -> float:
        """Answers a second."""
        return self.answers / self.seconds


def request(path: str, body: object = None, headers: Mapping[str, str] | None = None) -> bytes:
    """Write a request as it goes over the wire: a POST where there is a body."""
    content = b"" if body is None else json.dumps(body).encode()
    given = {"Host": "bench", **(headers or {})}
    if content:
        given |= {"Content-Type": "application/json", "Content-Length": str(len(content))}
    lines = [f"{'POST' if content else 'GET'} {path} HTTP/1.1"]
    return "\r\n".join([*lines, *(f"{name}: {value}" for name, value in given.items()), "", ""]).encode() + content


async def drive(settings: Settings, requests: Sequence[bytes], seconds: float, connections: int = CONNECTIONS) -> Load:
    """Send the requests in turn for so long, each connection the next one as soon as it has its answer.

    A request that is refused or lost is a ConfigurationError: what answers with errors is quick at it.
    """
    with tempfile.NamedTemporaryFile() as file:
        file.write(b"\0".join(requests))
        file.flush()
        url = f"http://{settings.host}:{settings.port}/"
        length = [f"-c{connections}", f"-d{max(1, round(seconds))}s"]
        output = await _run("-t1", *length, "--timeout=20s", f"-s{SCRIPT}", url, file.name)
    load = Load.model_validate_json(output.strip().splitlines()[-1])
    if load.refused or load.lost or not load.answers:
        named = requests[0].partition(b"\r\n")[0].decode()
        raise ConfigurationError(
            f"{named}: of {load.answers} answers {load.refused} were refusals, and {load.lost} were lost"
        )
    return load


async def _run(*arguments: str) -> str:
    program = shutil.which("wrk")
    if program is None:
        raise ConfigurationError("The load generator wrk is missing (Debian: apt-get install wrk)")
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(program, *arguments, stdout=pipe, stderr=asyncio.subprocess.STDOUT)
    output = (await process.communicate())[0].decode()
    if process.returncode:
        raise ConfigurationError(f"wrk failed: {output.strip()}")
    return output
