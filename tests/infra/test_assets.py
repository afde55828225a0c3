"""Files for browsers."""

from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from infra import assets
from infra.assets import Assets


def test_what_is_not_installed_is_an_address_without_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The APIs serve on a machine where nobody ran npm; a name that was never meant to be there is a mistake."""
    monkeypatch.setattr(assets, "INSTALLED", tmp_path / "node_modules")
    (tmp_path / "own.js").write_text("1;")
    served = Assets("/assets", {"own.js": tmp_path / "own.js", "theirs.js": assets.INSTALLED / "theirs.js"})
    client = TestClient(Starlette(routes=[served.route]))
    assert client.get(served.url("own.js")).text == "1;"
    assert client.get(served.url("theirs.js")).status_code == 404
    with pytest.raises(KeyError):
        served.url("nobody.js")


def test_what_is_our_own_must_be_there(tmp_path: Path) -> None:
    """A file of the repository that is missing is no matter of installing."""
    with pytest.raises(FileNotFoundError):
        Assets("/assets", {"own.js": tmp_path / "own.js"})
