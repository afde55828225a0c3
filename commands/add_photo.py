"""Add a photo to a parcel in storage: what it looked like when it came."""

import asyncio
import hashlib
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Annotated

from fastapi import File, Request, Response, UploadFile

from commands.packages import PACKAGE_REFUSALS, answer_package, lock_package, log_package, refuse, require_status
from commands.pictures import reencoded
from commands.transaction import CREATED, Context, Outcome, TheVersionedTransaction, Transaction
from db.package_document import Package
from db.photo_store import key_of, photo_store
from db.pools import Connection
from infra.auth import Role, allow
from infra.errors import Invalid
from infra.routing import router, takes_up_to

routes = router("packages")

MOST_PHOTOS = 3

LARGEST_PHOTO = 12 * 1024 * 1024
"""Bytes; a telephone's camera makes three to eight million."""

MEDIA_TYPE = "image/jpeg"

DARKROOM = ThreadPoolExecutor(1, "photos")
"""One picture at a time in each process: unfolded it may take some hundred megabytes of memory."""


@dataclass(frozen=True, slots=True)
class StoredPhoto:
    """A photo that the store has, about to get its row."""

    object_key: str
    size: int


KEPT = "SELECT object_key FROM package_photos WHERE package_id = %(package_id)s"

INSERT = """
WITH photographed AS (UPDATE packages SET version = version + 1 WHERE package_id = %(package_id)s)
INSERT INTO package_photos (package_id, media_type, object_key, bytes, staff_id, at)
VALUES (%(package_id)s, %(media_type)s, %(object_key)s, %(size)s, %(staff_id)s, %(now)s)
RETURNING photo_id
"""


async def handle(conn: Connection, context: Context, package_id: uuid.UUID, photo: StoredPhoto) -> Outcome:
    """Give the parcel one photo more, up to three; the same one twice is a Conflict, like a fourth."""
    package, context = await lock_package(conn, context, package_id)
    await require_status(conn, package, context, "RECEIVED")
    kept = {key for (key,) in await (await conn.execute(KEPT, {"package_id": package_id})).fetchall()}
    if photo.object_key in kept:
        await refuse(conn, package_id, context, "The package has this photo already")
    if len(kept) >= MOST_PHOTOS:
        await refuse(conn, package_id, context, f"The package has {MOST_PHOTOS} photos already")
    row = {
        "package_id": package_id,
        "media_type": MEDIA_TYPE,
        "object_key": photo.object_key,
        "size": photo.size,
        "staff_id": context.staff_id,
        "now": context.now,
    }
    added = await (await conn.execute(INSERT, row)).fetchone()
    photo_id = str(added and added[0])
    data = {"after": {"photo_id": photo_id, "media_type": MEDIA_TYPE, "bytes": photo.size}}
    await log_package(conn, "PackagePhotographed", package, context, data)
    return answer_package(package, context, status=CREATED, location=f"/api/v1/photos/{photo_id}")


async def run(package_id: uuid.UUID, file: bytes, transaction: Transaction) -> Response:
    """Re-encode and store the file, then give it its row: so a slow store holds neither lock nor connection."""
    photo = await asyncio.get_running_loop().run_in_executor(DARKROOM, reencoded, file)
    stored = StoredPhoto(key_of(package_id, photo), len(photo))
    await photo_store(transaction.connections.settings.photos_location).put(stored.object_key, photo)
    command = {"photo": hashlib.sha256(file).hexdigest()}
    return await transaction.run(command, lambda conn, context: handle(conn, context, package_id, stored))


@routes.post("/packages/{package_id}/photos", status_code=CREATED, response_model=Package, responses=PACKAGE_REFUSALS)
@allow(Role.OPERATOR)
@takes_up_to(LARGEST_PHOTO)
async def add_photo(
    package_id: uuid.UUID,
    request: Request,
    photo: Annotated[UploadFile, File(description="JPEG, PNG or WebP, of up to 64 million pixels.")],
    transaction: TheVersionedTransaction,
) -> Response:
    """Add a photo of a parcel in storage, up to three; it is made smaller, and all but its pixels is taken away.

    `Location` is the photo's address.
    """
    sent = [name for name, _ in (await request.form()).multi_items()]
    if sent != ["photo"]:
        raise Invalid({name: ["there is one field, and it is given once"] for name in sent})
    return await run(package_id, await photo.read(), transaction)
