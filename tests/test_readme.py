"""The README tells the truth: its walk is run as it is printed."""

import re
import subprocess
from pathlib import Path

import pytest

from infra.settings import Settings
from tests.test_manage import Shop

pytestmark = pytest.mark.xdist_group("manage")

README = Path("README.md").read_text(encoding="utf-8")


def test_the_walk_prints_what_its_arrows_say(tmp_path: Path) -> None:
    """One parcel's life by curl, from its announcement to the day's money."""
    (walk,) = re.findall(r"^```bash\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    shop = Shop(tmp_path / "data")
    shop.folder.mkdir()
    with shop.up():
        walked = subprocess.run(
            ["/usr/bin/env", "bash", "-euo", "pipefail", "-c", walk],
            env=shop.environment | {"SHOP": f"http://127.0.0.1:{shop.port}"},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
    assert walked.returncode == 0, walked.stderr
    assert walked.stdout.splitlines() == re.findall(r"^# → (.*)$", walk, re.MULTILINE)


def test_every_path_in_the_readme_is_there() -> None:
    """A step of the path that moved would lead a newcomer nowhere."""
    paths = re.findall(r"`((?:[a-z_]+/)+(?:[a-z_]+\.(?:py|sql))?)`", README)
    assert len(paths) > 12
    assert [path for path in paths if not Path(path).exists()] == []


def test_every_setting_is_in_the_table() -> None:
    """The table of settings is whole."""
    assert [name for name in Settings.model_fields if f"`{name.upper()}`" not in README] == []
