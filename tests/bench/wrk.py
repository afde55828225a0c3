"""Stands in for wrk: takes the same arguments, sends a few requests of the file, and prints what load.lua would."""

import json
import re
import socket
import sys
import time
from itertools import count, cycle, islice
from pathlib import Path
from urllib.parse import urlsplit

REQUESTS = 24
ABSENT = b"0"


def more_of(connection: socket.socket) -> bytes:
    """Wait for what comes next; a connection that is closed before is an error."""
    received = connection.recv(65536)
    if not received:
        raise ConnectionError
    return received


def answer_to(connection: socket.socket, request: bytes) -> int:
    """Send one request, read its whole answer, and give the status."""
    connection.sendall(request)
    received = b""
    while b"\r\n\r\n" not in received:
        received += more_of(connection)
    head, _, body = received.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: *(\d+)", head)
    while len(body) < int(length[1] if length else ABSENT):
        body += more_of(connection)
    return int(head.split()[1])


def main() -> None:
    """Do as wrk does, but soon be done."""
    url, file = sys.argv[-2:]
    requests, numbers, took, refused = Path(file).read_bytes().split(b"\0"), count(1), [], 0
    with socket.create_connection((urlsplit(url).hostname, urlsplit(url).port)) as connection:
        for request in islice(cycle(requests), REQUESTS):
            numbered = re.sub(rb"@{9}", lambda _: b"%09d" % next(numbers), request)
            started = time.perf_counter()
            refused += answer_to(connection, numbered) >= 400
            took.append((time.perf_counter() - started) * 1000)
    took.sort()
    summary = {"answers": len(took), "seconds": sum(took) / 1000, "refused": refused, "lost": 0}
    summary |= {f"p{percent}": took[len(took) * percent // 100] for percent in (50, 95, 99)}
    sys.stdout.write(f"Running a short test\n{json.dumps(summary)}\n")


main()
