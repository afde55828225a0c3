"""compose.yaml brought up service by service through the engine's interface: for engines that aren't Docker's own too.

What an engine may leave undone is done here: conditions are waited for, and health checks run by hand.
"""

import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from docker import DockerClient
from docker.errors import ImageNotFound
from docker.models.containers import Container
from docker.models.networks import Network
from docker.types import EndpointConfig, IPAMConfig, IPAMPool

FOLDER = Path("infra/deploy").resolve()
STAND_INS = Path(__file__).with_name("stand_ins")

MENDED = {"postgres"}
"""Whose recipe begins with the image itself; those of others are only for where there is none."""

SETTINGS = {
    *("image", "build", "command", "entrypoint", "environment", "volumes", "read_only", "tmpfs", "cap_drop"),
    *("security_opt", "restart", "stop_grace_period", "stop_signal", "shm_size", "ports", "networks", "depends_on"),
    "healthcheck",
}
"""What is known of a service: what isn't would be left out without a word."""

PATIENCE = 180.0
"""Seconds until a service is as those that depend on it want it."""

Service = dict[str, Any]


def interpolated(text: str, environment: Mapping[str, str]) -> str:
    """Fill in `${NAME:?}` and `${NAME:-default}`."""

    def value(found: re.Match[str]) -> str:
        name, default = found[1], found[3]
        return environment[name] if found[2] == ":?" else environment.get(name, default)

    return re.sub(r"\$\{(\w+)(:\?|:-)([^}]*)\}", value, text)


class Project:
    """The services of a compose file under names of a project's own, on a network of theirs."""

    def __init__(self, docker: DockerClient, name: str, environment: Mapping[str, str], image: str) -> None:
        self._docker = docker
        self._name = name
        self._file = yaml.safe_load(interpolated((FOLDER / "compose.yaml").read_text(), environment))
        self._image = image
        self._network: Network | None = None
        self.services: dict[str, Service] = self._file["services"]
        self.containers: dict[str, Container] = {}

    def up(self, *left_out: str) -> None:
        """Start everything but what is left out, each when what it depends on is as it wants it."""
        (address,) = self._file["networks"]["shop"]["ipam"]["config"]
        pool = IPAMConfig(pool_configs=[IPAMPool(subnet=address["subnet"])])
        self._network = self._docker.networks.create(f"{self._name}_shop", driver="bridge", ipam=pool)
        for volume in self._file["volumes"]:
            self._docker.volumes.create(f"{self._name}_{volume}", labels={"project": self._name})
        for name in self._ordered():
            if name not in left_out:
                for other, condition in _dependencies(self.services[name]).items():
                    self._wait(other, condition)
                self.containers[name] = self._start(name, self.services[name])
        for name in self.containers:
            self._wait(name, "service_healthy")

    def down(self) -> None:
        """Take everything away, the volumes too."""
        for container in self._docker.containers.list(all=True, filters={"label": f"project={self._name}"}):
            container.remove(force=True, v=True)
        for volume in self._docker.volumes.list(filters={"label": f"project={self._name}"}):
            volume.remove(force=True)
        for network in self._docker.networks.list(names=[f"{self._name}_shop"]):
            network.remove()

    def run(self, service: str, *command: str) -> str:
        """Run a command in a service's container, to its end; gives what it said."""
        code, said = self.containers[service].exec_run(list(command))
        assert code == 0, (service, command, said)
        return str(said.decode())

    def once(self, service: str, *command: str) -> str:
        """Run a command of ours in a container of its own, with a service's settings; gives what it said."""
        container = self._start("once", self.services[service] | {"command": list(command), "restart": "no"})
        code, said = container.wait(timeout=PATIENCE)["StatusCode"], container.logs().decode()
        container.remove()
        assert code == 0, said
        return str(said)

    def _ordered(self) -> Iterator[str]:
        """Name each service after all that it depends on."""
        waiting = dict(self.services)
        done: set[str] = set()
        while waiting:
            name = next(name for name, service in waiting.items() if done >= _dependencies(service).keys())
            done.add(name)
            del waiting[name]
            yield name

    def _start(self, name: str, service: Service) -> Container:
        """Make a container with the settings that the file gives, and start it."""
        assert service.keys() <= SETTINGS, name
        assert self._network is not None
        ports = {f"{inner}/tcp": (host, int(outer)) for host, outer, inner in map(_published, service.get("ports", ()))}
        container = self._docker.containers.create(
            self._image_of(service["image"]),
            service.get("command"),
            name=f"{self._name}_{name}",
            labels={"project": self._name},
            hostname=name,
            entrypoint=service.get("entrypoint"),
            environment={key: str(value) for key, value in service.get("environment", {}).items()},
            volumes=[self._mounted(volume) for volume in service.get("volumes", ())],
            read_only=service.get("read_only", False),
            tmpfs=dict.fromkeys(service.get("tmpfs", ()), ""),
            cap_drop=service.get("cap_drop"),
            security_opt=[option.removesuffix(":true") for option in service.get("security_opt", ())],
            restart_policy={"Name": service["restart"]},
            shm_size=service.get("shm_size"),
            stop_signal=service.get("stop_signal"),
            ports=ports,
            network=self._network.name,
            networking_config={self._network.name: self._endpoint(name, service["networks"])},
        )
        container.start()
        return container

    def _endpoint(self, name: str, networks: Any) -> EndpointConfig:  # noqa: ANN401
        """Give the service its name on the network, and the address that is kept for it."""
        fixed = networks["shop"]["ipv4_address"] if isinstance(networks, dict) else None
        version = self._docker.api._version  # noqa: SLF001 (the library's own way to it, too)
        return EndpointConfig(version, aliases=[name], ipv4_address=fixed)

    def _image_of(self, image: str) -> str:
        """Give ours as it was built, the engine's own, or what stands in for it."""
        if image == "localhost/paqueteria":
            return self._image
        kind = image.rpartition("/")[2].partition(":")[0]
        recipe = STAND_INS / f"{kind}.Dockerfile"
        if not recipe.exists() or (kind not in MENDED and self._has(image)):
            return image
        tag = f"localhost/stand-in-{kind}"
        self._docker.images.build(path=str(STAND_INS), dockerfile=recipe.name, tag=tag, network_mode="host", rm=True)
        return tag

    def _has(self, image: str) -> bool:
        try:
            self._docker.images.get(image)
        except ImageNotFound:
            return False
        return True

    def _mounted(self, volume: str) -> str:
        source, _, rest = volume.partition(":")
        return f"{FOLDER / source if source.startswith('.') else f'{self._name}_{source}'}:{rest}"

    def _wait(self, name: str, condition: str) -> None:
        """Return once it has been started, is healthy, or has done what it was to do."""
        deadline = time.monotonic() + PATIENCE
        while not self._is(name, condition):
            assert time.monotonic() < deadline, (name, condition, self.containers[name].logs(tail=20).decode())
            time.sleep(0.2)

    def _is(self, name: str, condition: str) -> bool:
        container = self.containers[name]
        container.reload()
        if condition == "service_completed_successfully":
            return bool(container.status == "exited" and container.attrs["State"]["ExitCode"] == 0)
        if condition == "service_healthy" and (check := self._health_check(name)):
            return bool(container.status == "running" and container.exec_run(check)[0] == 0)
        return True

    def _health_check(self, name: str) -> list[str]:
        """Give the file's check, or the image's: that of ours, as its Dockerfile has it."""
        service = self.services[name]
        check = service.get("healthcheck", {})
        if check.get("disable"):
            return []
        if "test" in check:
            kind, command = check["test"]
            assert kind == "CMD-SHELL"
            return ["sh", "-c", command]
        if service["image"] != "localhost/paqueteria":
            return []
        (command,) = re.findall(r"^ +CMD (\[.*\])$", (FOLDER / "Dockerfile").read_text(), re.MULTILINE)
        return list(yaml.safe_load(command))


def _dependencies(service: Service) -> dict[str, str]:
    """Give what a service waits for, and for what of it."""
    told = service.get("depends_on", {})
    if isinstance(told, list):
        return dict.fromkeys(told, "service_started")
    return {name: wanted["condition"] for name, wanted in told.items()}


def _published(port: str) -> tuple[str, str, str]:
    host, outer, inner = port.split(":")
    return host, outer, inner
