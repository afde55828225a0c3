"""Where the photos' bytes are: a folder, or a bucket of anything that speaks S3, by the address in the settings.

An object is written before the row that names it is committed, and is never changed: a row without its file takes a
power cut or somebody's hand in the store, and is answered as not found, and logged. A file without a row is what a
refused or lost command leaves; it is harmless: nobody can ask for it, and the same photo sent again is the same object.
"""

import functools
import hashlib
import uuid
from datetime import timedelta
from urllib.parse import parse_qsl, unquote, urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, MemoryStore, ObjectStore, S3Store

from infra import logs
from infra.errors import NotFound, Unavailable

log = logs.get("photos")

PATIENCE = timedelta(seconds=5)
"""How long one request to a store may take, and how long it is tried again."""


class PhotoStore:
    """Keeps each photo under a key of its own."""

    def __init__(self, location: str) -> None:
        self._location = location

    @functools.cached_property
    def _store(self) -> ObjectStore:
        return _open(self._location)

    async def put(self, key: str, photo: bytes) -> None:
        """Keep a photo. Raises Unavailable."""
        try:
            await obstore.put_async(self._store, key, photo)
        except (BaseError, OSError) as error:
            raise _away(error) from None

    async def get(self, key: str) -> bytes:
        """Give a photo. Raises Unavailable, and NotFound for what somebody took out of the store."""
        try:
            found = await obstore.get_async(self._store, key)
            return bytes(await found.bytes_async())
        except FileNotFoundError:
            log.error("photo_lost", key=key)  # noqa: TRY400 (the key says it all)
            raise NotFound("The photo is no longer in its store") from None
        except (BaseError, OSError) as error:
            raise _away(error) from None


def _away(error: Exception) -> Unavailable:
    log.warning("photo_store_away", error=type(error).__name__, detail=str(error).splitlines()[:1])
    return Unavailable("The photos' store can't be reached right now")


def _open(location: str) -> ObjectStore:
    """Open `file:///a/folder`, `memory:///` (a process's own, for trials), or `s3://bucket/folder?endpoint=…`.

    What stands behind the `?` are S3's own options: endpoint, region, access_key_id, secret_access_key …; what is left
    out is looked for in the usual `AWS_*` of the environment.
    """
    parts = urlsplit(location)
    if parts.scheme == "memory":
        return MemoryStore()
    if parts.scheme == "file":
        return LocalStore(unquote(parts.path), mkdir=True)
    options = dict(parse_qsl(parts.query))
    is_plain = options.get("endpoint", "").startswith("http://")
    return S3Store(
        parts.netloc,
        prefix=parts.path.strip("/") or None,
        config=options,  # type: ignore[arg-type] # whatever S3Config knows; a name that it doesn't know is refused
        client_options={"timeout": PATIENCE, "connect_timeout": PATIENCE, "allow_http": is_plain},
        retry_config={"max_retries": 2, "retry_timeout": PATIENCE},
    )


photo_store = functools.lru_cache(maxsize=16)(PhotoStore)
"""Gives the store at a location, the same one each time; it is opened when it is first used."""


def key_of(package_id: uuid.UUID, photo: bytes) -> str:
    """Name a photo by its parcel and its content."""
    return f"{package_id}/{hashlib.sha256(photo).hexdigest()}.jpg"
