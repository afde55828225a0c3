"""A real Redis Cluster: six nodes, three of them replicas, on ports of this machine."""

import contextlib
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

from db.embedded import valkey_program
from infra.children import bound_to_parent
from tests.support import wait_until

SETTINGS = {
    "cluster-enabled": "yes",
    "cluster-node-timeout": "2000",
    "cluster-require-full-coverage": "no",
    "cluster-replica-validity-factor": "0",
    "save": "",
    "appendonly": "no",
    "bind": "127.0.0.1",
}
SLOTS = 16384


@dataclass
class Node:
    """One server of the cluster."""

    port: int
    folder: Path
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, alone or as the node that it was."""
        self.folder.mkdir(exist_ok=True)
        settings = SETTINGS | {"port": str(self.port), "dir": str(self.folder), "cluster-port": str(self.port + 1)}
        flags = [word for name, value in settings.items() for word in (f"--{name}", value)]
        with (self.folder / "log").open("ab") as log:
            command = bound_to_parent([valkey_program(), *flags], "KILL")
            self.process = subprocess.Popen(command, stdout=log, stderr=log)

    @property
    def client(self) -> redis.Redis:
        """Ask this node alone."""
        return redis.Redis(port=self.port, socket_timeout=5, decode_responses=True)

    def ask(self, *command: str | int) -> Any:  # noqa: ANN401
        """Send a command that the client has no name for."""
        return self.client.execute_command(*command)  # type: ignore[no-untyped-call]

    def answers(self) -> bool:
        """Tell whether it takes commands."""
        with contextlib.suppress(redis.ConnectionError):
            return bool(self.client.ping())
        return False

    def kill(self) -> None:
        """End it without asking."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()


class Cluster:
    """Six nodes."""

    def __init__(self, nodes: list[Node]) -> None:
        self.nodes = nodes

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)

    def master_of(self, key: str) -> Node:
        """Find the node that has a key."""
        for node in self.nodes:
            with contextlib.suppress(redis.ConnectionError):
                (slot,) = (node.client.cluster("keyslot", key),)
                for first, last, master, *_ in node.ask("CLUSTER SLOTS"):
                    if first <= slot <= last:
                        return next(one for one in self.nodes if one.port == master[1])
        raise AssertionError(key)

    def is_whole(self) -> bool:
        """Tell whether every living node finds the cluster well."""
        living = [node for node in self.nodes if node.process is not None and node.process.poll() is None]
        return all(node.client.cluster("info")["cluster_state"] == "ok" for node in living)

    def found(self) -> None:
        """Make one cluster of the nodes: three masters, and a replica of each."""
        first, masters, replicas = self.nodes[0], self.nodes[:3], self.nodes[3:]
        for node in self.nodes[1:]:
            node.ask("CLUSTER MEET", "127.0.0.1", first.port, first.port + 1)
        for number, node in enumerate(masters):
            begins, ends = SLOTS * number // 3, SLOTS * (number + 1) // 3 - 1
            node.ask("CLUSTER ADDSLOTSRANGE", begins, ends)
        wait_until(lambda: all(len(node.client.cluster("nodes")) == len(self.nodes) for node in self.nodes))
        for master, replica in zip(masters, replicas, strict=True):
            replica.ask("CLUSTER REPLICATE", master.client.cluster("myid"))
        wait_until(self.is_whole)
        linked = ("master_link_status", "up")
        wait_until(lambda: all(linked in node.client.info("replication").items() for node in replicas))


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Cluster]:
    """Run a cluster while the block lasts."""
    nodes = [Node(port, folder / str(port)) for port in free_ports(6)]
    try:
        for node in nodes:
            node.start()
        wait_until(lambda: all(node.answers() for node in nodes))
        cluster = Cluster(nodes)
        cluster.found()
        yield cluster
    finally:
        for node in nodes:
            if node.process is not None:
                node.kill()


def free_ports(count: int) -> list[int]:
    """Find so many ports of which the next one is free, too: there the nodes talk to each other."""
    found: list[int] = []
    with contextlib.ExitStack() as stack:
        while len(found) < count:
            probe, beside = stack.enter_context(socket.socket()), stack.enter_context(socket.socket())
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
            with contextlib.suppress(OSError, OverflowError):
                beside.bind(("127.0.0.1", port + 1))
                found.append(port)
    return found
