"""The engine, and the image as it is shipped."""

from collections.abc import Iterator

import pytest
from docker import DockerClient, from_env

IMAGE = "paqueteria:tested"


@pytest.fixture(scope="session")
def docker() -> Iterator[DockerClient]:
    client = from_env(timeout=600)
    yield client
    client.close()


@pytest.fixture(scope="session")
def image(docker: DockerClient) -> str:
    """Build it as the documentation says."""
    docker.images.build(path=".", dockerfile="infra/deploy/Dockerfile", tag=IMAGE, network_mode="host", rm=True)
    return IMAGE
