"""The settings of every process: read once from `PAQUETERIA_*`, checked together, passed on as one value."""

import hashlib
import os
import re
import secrets
import tempfile
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict
from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from infra.errors import ConfigurationError

LONGEST_SOCKET_FOLDER = 80
"""A Unix socket's whole path may have 107 bytes; the server's own file name takes the rest."""


READ_ROLE, WRITE_ROLE, PROJECT_ROLE = "paqueteria_read", "paqueteria_write", "paqueteria_project"
"""Roles of the database that the processes work as; db.roles says what each may do."""

SCHEMES = {"redis_url": ("redis", "rediss", "redis+cluster", "unix"), "photos_url": ("s3", "file", "memory")}


class Settings(BaseSettings):
    """What the environment says, with the defaults of a single machine on embedded servers."""

    model_config = SettingsConfigDict(env_prefix="PAQUETERIA_", extra="ignore", frozen=True)

    database_url: str = Field(default="", repr=False)
    commands_url: str = Field(default="", repr=False)
    queries_url: str = Field(default="", repr=False)
    projector_url: str = Field(default="", repr=False)
    replica_urls: Annotated[tuple[str, ...], NoDecode] = Field(default=(), repr=False)
    redis_url: str = Field(default="", repr=False)
    photos_url: str = Field(default="", repr=False)
    data_dir: Path = Path(".data")
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=1, le=65535)
    metrics_port: int = Field(default=0, ge=0, le=65535)
    workers: int = Field(default=1, ge=1, le=64)
    secret_key: str = Field(default="", repr=False)
    previous_secret_keys: Annotated[tuple[str, ...], NoDecode] = Field(default=(), repr=False)
    public_url: str = ""
    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = ()
    admin_password: str = Field(default="", repr=False)
    pool_min: int = Field(default=2, ge=0, le=1000)
    pool_max: int = Field(default=10, ge=1, le=1000)
    pool_timeout: float = Field(default=5.0, gt=0, le=60)
    throttle_announce: str = "30/minute"
    throttle_track: str = "60/minute"
    throttle_sign_in: str = "10/minute"
    cache_ttl: float = Field(default=30.0, gt=0, le=30)
    fees_refresh_seconds: float = Field(default=60.0, gt=0)
    verify_seconds: float = Field(default=3600.0, gt=0)
    consistency_wait: float = Field(default=2.0, ge=0, le=30)

    @classmethod
    def load(cls) -> Self:
        """Read the environment; a value that can't be used raises ConfigurationError naming its variable."""
        try:
            return cls()
        except ValidationError as error:
            faults = (_fault(e["loc"], e["msg"]) for e in error.errors())
            raise ConfigurationError("; ".join(faults)) from None

    @field_validator("replica_urls", "trusted_proxies", "previous_secret_keys", mode="before")
    @classmethod
    def _split_at_commas(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("database_url", "commands_url", "queries_url", "projector_url", "replica_urls")
    @classmethod
    def _postgresql(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        """Refuse what no client understands, without repeating it: it may hold a password."""
        for url in (value,) if isinstance(value, str) else value:
            try:
                conninfo_to_dict(url)
            except ProgrammingError:
                message = "is not the address of a PostgreSQL database"
                raise ValueError(message) from None
        return value

    @field_validator("redis_url", "photos_url")
    @classmethod
    def _known_scheme(cls, value: str, info: ValidationInfo) -> str:
        schemes = SCHEMES[info.field_name or ""]
        if value and urlsplit(value).scheme not in schemes:
            message = f"must begin with one of {', '.join(schemes)}"
            raise ValueError(message)
        return value

    @field_validator("data_dir")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().resolve()

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.pool_min > self.pool_max:
            message = "POOL_MIN may not be larger than POOL_MAX"
            raise ValueError(message)
        if (self.database_url or self.redis_url) and not self.secret_key:
            message = "SECRET_KEY must be given once DATABASE_URL or REDIS_URL is"
            raise ValueError(message)
        return self

    @property
    def socket_dir(self) -> Path:
        """Where the embedded servers' Unix sockets are.

        In DATA_DIR, or in the temporary folder where that is too deep or has characters that mean something in an
        address or a list of folders.
        """
        inside = self.data_dir / "run"
        if len(os.fsencode(inside)) <= LONGEST_SOCKET_FOLDER and re.fullmatch(r"[A-Za-z0-9_./-]+", str(inside)):
            return inside
        digest = hashlib.sha256(os.fsencode(self.data_dir)).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"paqueteria-{digest}"

    @property
    def postgres_dsn(self) -> str:
        """The primary's address: the one given, or the embedded server's."""
        return self.database_url or self._embedded("paqueteria")

    def for_commands(self) -> Self:
        """What a process needs that takes commands: the primary by the role that may write, and reads by theirs."""
        return self._for(self.commands_url, WRITE_ROLE)

    def for_queries(self) -> Self:
        """What a process needs that only reads, on the primary too."""
        return self._for(self.queries_url, READ_ROLE)

    def for_projector(self) -> Self:
        """What the projector needs, which owns the read models."""
        return self._for(self.projector_url, PROJECT_ROLE)

    @property
    def queries_dsn(self) -> str:
        """Where queries are read where no replica takes them."""
        return self.queries_url or self.database_url or self._embedded(READ_ROLE)

    def _for(self, url: str, role: str) -> Self:
        own = url or self.database_url or self._embedded(role)
        return self.model_copy(update={"database_url": own, "queries_url": self.queries_dsn})

    def _embedded(self, role: str) -> str:
        return f"postgresql://{role}@/paqueteria?host={self.socket_dir}"

    @property
    def redis_dsn(self) -> str:
        """The address of Redis: the one given, or the embedded Valkey's."""
        return self.redis_url or f"unix://{self.socket_dir}/valkey.sock?db=0"

    @property
    def photos_location(self) -> str:
        """Where photos are kept: the store that was given, or a folder in DATA_DIR."""
        return self.photos_url or (self.data_dir / "photos").as_uri()

    def signing_key(self) -> str:
        """The keys of every signature, as infra.keys has them."""
        return "\n".join((self.secret_key or self._kept_key(), *self.previous_secret_keys))

    def _kept_key(self) -> str:
        """Give the key that embedded servers go with: made once, and kept in DATA_DIR for its owner alone."""
        path = self.data_dir / "secret_key"
        if not path.exists():
            self.data_dir.mkdir(parents=True, exist_ok=True)
            draft = path.with_name(f"secret_key.{os.getpid()}")
            draft.touch(mode=0o600)
            draft.write_text(secrets.token_urlsafe(48))
            try:
                path.hardlink_to(draft)  # the first of several processes wins, and all read the same key
            except FileExistsError:
                pass
            finally:
                draft.unlink()
        return path.read_text().strip()


def _fault(location: tuple[int | str, ...], message: str) -> str:
    sentence = message.removeprefix("Value error, ")
    return f"PAQUETERIA_{str(location[0]).upper()} {sentence}" if location else f"PAQUETERIA_{sentence}"
