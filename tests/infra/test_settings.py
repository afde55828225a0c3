"""What the environment may say."""

from pathlib import Path

import pytest

from infra.errors import ConfigurationError
from infra.settings import Settings


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PAQUETERIA_DATA_DIR", str(tmp_path))


def test_a_url_without_a_secret_key_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes on several machines must share the key, so it is never made up for them."""
    monkeypatch.setenv("PAQUETERIA_DATABASE_URL", "postgresql://db/shop")
    with pytest.raises(ConfigurationError, match="SECRET_KEY"):
        Settings.load()


def test_a_value_that_cannot_be_used_names_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The operator is told which variable to mend."""
    monkeypatch.setenv("PAQUETERIA_PORT", "eighty")
    with pytest.raises(ConfigurationError, match="PAQUETERIA_PORT"):
        Settings.load()


def test_the_embedded_key_is_made_once_and_is_the_owners(tmp_path: Path) -> None:
    """A restart keeps every session, and nobody else on the machine can sign one."""
    first = Settings.load().signing_key()
    assert Settings.load().signing_key() == first
    assert (tmp_path / "secret_key").stat().st_mode & 0o077 == 0
    assert [path.name for path in tmp_path.iterdir()] == ["secret_key"]


def test_lists_are_split_at_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    """REPLICA_URLS and TRUSTED_PROXIES hold several values."""
    monkeypatch.setenv("PAQUETERIA_TRUSTED_PROXIES", "10.0.0.0/8, 127.0.0.1")
    assert Settings.load().trusted_proxies == ("10.0.0.0/8", "127.0.0.1")


@pytest.mark.parametrize("name", ["deep" * 30, "my shop", "50%", "a,b", "a&b", "depósito"])
def test_a_deep_or_odd_data_folder_gets_a_plain_socket_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    """A Unix socket's path may have 107 bytes, and stands in addresses and lists, where some characters mean more."""
    monkeypatch.setenv("PAQUETERIA_DATA_DIR", str(tmp_path / name))
    assert "paqueteria-" in str(Settings.load().socket_dir)
    assert name not in str(Settings.load().socket_dir)
    assert len(str(Settings.load().socket_dir)) < 60


def test_a_plain_data_folder_holds_its_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing speaks against it, all of a shop is in one folder."""
    monkeypatch.setenv("PAQUETERIA_DATA_DIR", "/srv/shop")
    assert Settings.load().socket_dir == Path("/srv/shop/run")


def test_secrets_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    """A log line or traceback that prints the settings tells no secret."""
    monkeypatch.setenv("PAQUETERIA_SECRET_KEY", "hidden too")
    monkeypatch.setenv("PAQUETERIA_DATABASE_URL", "postgresql://shop:hidden@db/shop")
    monkeypatch.setenv("PAQUETERIA_PHOTOS_URL", "s3://shop/photos?secret_access_key=hidden")
    assert "hidden" not in repr(Settings.load())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE_URL", "nonsense://shop:hidden@db"),
        ("REDIS_URL", "http://shop:hidden@cache"),
        ("PHOTOS_URL", "ftp://shop:hidden@photos"),
    ],
)
def test_an_address_of_nothing_is_refused_unrepeated(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """The message names the variable and not its value, which may hold a password."""
    monkeypatch.setenv("PAQUETERIA_SECRET_KEY", "key")
    monkeypatch.setenv(f"PAQUETERIA_{name}", value)
    with pytest.raises(ConfigurationError, match=f"PAQUETERIA_{name}") as refusal:
        Settings.load()
    assert "hidden" not in str(refusal.value)
