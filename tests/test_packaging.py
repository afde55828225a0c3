"""What is installed, and that none of it stands in the way of our own names."""

import re
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

OURS = {"infra", "db", "commands", "queries", "projections", "web", "bench", "tests", "manage"}


def test_no_dependency_ships_one_of_our_names() -> None:
    """The application runs from its folder; a package of the same name would be imported in its place."""
    assert OURS.isdisjoint(packages_distributions())


def test_the_lock_pins_every_dependency_with_hashes() -> None:
    """What is installed is what was locked, wherever it comes from."""
    lock = Path("requirements.lock").read_text()
    project = tomllib.loads(Path("pyproject.toml").read_text())
    wanted = [*project["project"]["dependencies"], *project["dependency-groups"]["dev"]]
    pinned = set(re.findall(r"^([a-z0-9.-]+)==", lock, re.MULTILINE))
    assert {re.split(r"[\[>=<]", requirement)[0] for requirement in wanted} <= pinned
    requirements = re.split(r"\n(?=[a-z])", lock.strip())
    assert all("--hash=sha256:" in requirement for requirement in requirements)
    assert "://" not in lock
