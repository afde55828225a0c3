"""Photos: up to three of a parcel in storage, of which nothing is kept but what can be seen."""

import asyncio
import io
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar

import httpx2
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image

from commands.add_photo import LARGEST_PHOTO
from commands.api import create_app
from db.photo_store import PhotoStore
from infra.errors import NotFound, Unavailable
from infra.settings import Settings
from tests.commands.conftest import Counter, Headers, Serve, Sql
from tests.pictures import taken
from tests.support import Clock


def send(counter: Counter, package: dict[str, Any], photo: bytes, **headers: str) -> httpx2.Response:
    """Send a photo as a form does."""
    path = f"/api/v1/packages/{package['package_id']}/photos"
    return counter.client.post(path, files={"photo": ("x.jpg", photo)}, headers=counter.headers | headers)


@pytest.fixture
def folder(settings: Settings) -> Path:
    """Where photos are unless the settings say otherwise."""
    return settings.data_dir / "photos"


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_photo_is_kept_without_what_stood_beside_it(
    counter: Counter, folder: Path, sql: Sql, changes: Callable[..., Any], kind: str
) -> None:
    """Neither place nor camera nor comment; upright and small; with its row, its change, and an address."""
    package = counter.receive()
    original = taken(size=(2400, 1200), kind=kind)
    assert Image.open(io.BytesIO(original)).getexif().get_ifd(0x8825)
    answer = send(counter, package, original)
    assert (answer.status_code, answer.json()["version"], answer.headers["ETag"]) == (201, 2, '"2"')
    (file,) = files(folder)
    kept = Image.open(io.BytesIO(file.read_bytes()))
    assert (kept.format, kept.size) == ("JPEG", (800, 1600))
    assert not kept.getexif()
    assert kept.info.keys() <= {"jfif", "jfif_version", "jfif_unit", "jfif_density", "progressive", "progression"}
    for secret in (b"Telephone", b"secret", b"Exif", b"GPS"):
        assert secret not in file.read_bytes()
    (row,) = sql("SELECT photo_id::text, media_type, object_key, bytes FROM package_photos")
    assert answer.headers["Location"] == f"/api/v1/photos/{row['photo_id']}"
    assert (folder / row["object_key"], row["bytes"]) == (file, file.stat().st_size)
    change = changes(package["package_id"])[-1]
    after = {"photo_id": row["photo_id"], "media_type": "image/jpeg", "bytes": row["bytes"]}
    assert (change["type"], change["username"], change["data"]) == (
        "PackagePhotographed",
        "operator",
        {"after": after},
    )


def test_what_is_transparent_is_white(counter: Counter, folder: Path) -> None:
    picture = io.BytesIO()
    Image.new("RGBA", (8, 8), (255, 0, 0, 0)).save(picture, "PNG")
    assert send(counter, counter.receive(), picture.getvalue()).status_code == 201
    assert Image.open(io.BytesIO(files(folder)[0].read_bytes())).getpixel((4, 4)) == (255, 255, 255)


def test_three_and_no_more(counter: Counter, sql: Sql) -> None:
    """Of one parcel: the fourth is refused, and so is the same one again; another parcel has three of its own."""
    package, other = counter.receive(), counter.receive()
    for colour in ("red", "green", "blue"):
        assert send(counter, package, taken(colour)).status_code == 201
        again = send(counter, package, taken(colour))
        assert (again.status_code, again.json()["package"]["package_id"]) == (409, package["package_id"])
    fourth = send(counter, package, taken("white"))
    assert (fourth.status_code, fourth.json()["detail"]) == (409, "The package has 3 photos already")
    assert send(counter, other, taken("red")).status_code == 201
    assert sql("SELECT count(*) AS n FROM package_photos WHERE package_id = %s", package["package_id"])[0]["n"] == 3


@pytest.mark.anyio
async def test_never_more_than_three_at_once(app: FastAPI, serve: Serve, operator: Headers, sql: Sql) -> None:
    """Of those who act at the same instant one wins, whoever else is refused has added nothing."""
    parcel = {"guide_number": "GUIDE-1", "customer_name": "Ana", "package_type": "NORMAL", "condition": "GOOD"}
    statuses: list[int] = []
    async with serve(app) as client:
        package = (await client.post("/api/v1/receptions", json=parcel, headers=operator)).json()
        path = f"/api/v1/packages/{package['package_id']}/photos"
        for round_ in range(4):
            photos = [taken(f"#{round_}{number}0") for number in range(3)]
            sent = (client.post(path, files={"photo": ("x", photo)}, headers=operator) for photo in photos)
            statuses += [answer.status_code for answer in await asyncio.gather(*sent)]
    assert set(statuses) == {201, 409}
    assert statuses.count(201) == sql("SELECT count(*) AS n FROM package_photos")[0]["n"] == 3


def test_sent_twice_under_one_key(counter: Counter, sql: Sql, folder: Path) -> None:
    """It is one photo, and another one under that key is refused."""
    package = counter.receive()
    first, second = (send(counter, package, taken(), **{"Idempotency-Key": "photo-0001"}) for _ in range(2))
    assert (first.status_code, second.status_code) == (201, 201)
    assert second.headers["Idempotent-Replayed"] == "true"
    assert second.headers["Location"] == first.headers["Location"]
    assert send(counter, package, taken("blue"), **{"Idempotency-Key": "photo-0001"}).status_code == 409
    assert sql("SELECT count(*) AS n FROM package_photos")[0]["n"] == 1
    assert sql("SELECT version FROM packages")[0]["version"] == 2
    assert len(files(folder)) == 2, "a file without a row is all that a refusal leaves"


def test_it_is_for_what_is_in_storage_and_for_what_was_seen(counter: Counter, nobody: str) -> None:
    announced, delivered = counter.announce(), counter.deliver(counter.receive())
    for package in (announced, delivered):
        assert send(counter, package, taken()).status_code == 409
    assert send(counter, {"package_id": nobody}, taken()).status_code == 404
    assert send(counter, counter.receive(), taken(), **{"If-Match": '"2"'}).status_code == 412


def test_who_may(counter: Counter, staff: dict[str, Headers]) -> None:
    """The counter may, who only reads may not, and nobody without signing in."""
    package = counter.receive()
    for headers, status in ((staff["viewer"], 403), ({"Authorization": ""}, 401), (staff["admin"], 201)):
        assert send(counter, package, taken(), **headers).status_code == status


def test_what_is_no_photo(counter: Counter, folder: Path) -> None:
    """Drawings, animations and other files are of another kind; what is cut off, or unfolds to too much, is invalid."""
    package = counter.receive()
    gif, bomb, larger_bomb = io.BytesIO(), io.BytesIO(), io.BytesIO()
    Image.new("P", (9, 9)).save(gif, "GIF")
    Image.new("1", (9000, 9000)).save(bomb, "PNG")
    Image.new("1", (14_000, 14_000)).save(larger_bomb, "PNG")
    for photo in (b"", b"%PDF-1.7", b"<svg xmlns='http://www.w3.org/2000/svg'/>", gif.getvalue()):
        assert send(counter, package, photo).status_code == 415, photo
    for photo in (taken()[:-60], bomb.getvalue(), larger_bomb.getvalue()):
        answer = send(counter, package, photo)
        assert (answer.status_code, answer.json()["errors"].keys()) == (422, {"photo"})
    assert files(folder) == []


def test_what_is_no_form_for_a_photo(counter: Counter) -> None:
    """Another kind of body, too large a one, fields that it doesn't have, and two photos at once."""
    path = f"/api/v1/packages/{counter.receive()['package_id']}/photos"
    post, headers = counter.client.post, counter.headers
    assert post(path, json={"photo": "x"}, headers=headers).status_code == 415
    assert post(path, data={"photo": "x"}, headers=headers).status_code == 415
    large = {"photo": ("x", b"x" * LARGEST_PHOTO)}
    assert post(path, files=large, headers=headers).status_code == 413
    assert post(path, files={"picture": ("x", taken())}, headers=headers).status_code == 422
    for more in (("note", (None, "x")), ("photo", ("y", taken("blue")))):
        sent = [("photo", ("x", taken())), more]
        assert post(path, files=sent, headers=headers).status_code == 422
    broken = {"Content-Type": "multipart/form-data"}
    assert post(path, content=b"x", headers=headers | broken).status_code == 400


class Bucket(BaseHTTPRequestHandler):
    """As much of S3 as a photo needs, for whoever signs."""

    kept: ClassVar[dict[str, bytes]] = {}

    def do_PUT(self) -> None:
        self.kept[self.path] = self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(200 if self.headers["Authorization"].startswith("AWS4-HMAC-SHA256 Credential=ours/") else 403)

    def do_GET(self) -> None:
        body = self.kept.get(self.path)
        self._answer(404 if body is None else 200, body or b"")

    def _answer(self, status: int, body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in (
            ("ETag", '"1"'),
            ("Last-Modified", "Tue, 24 Nov 2026 15:00:00 GMT"),
            ("Content-Length", str(len(body))),
        ):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def bucket() -> Iterator[str]:
    """The address of a bucket on this machine."""
    Bucket.kept.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Bucket) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        endpoint = f"http://127.0.0.1:{server.server_port}"
        yield f"s3://shop/photos?endpoint={endpoint}&region=x&access_key_id=ours&secret_access_key=secret"
        server.shutdown()
        thread.join()


@pytest.mark.anyio
async def test_every_store_gives_what_it_was_given(bucket: str, tmp_path: Path) -> None:
    """A folder, a bucket, or memory; what isn't there is not found."""
    for location in ((tmp_path / "a folder").as_uri(), bucket, "memory:///"):
        store = PhotoStore(location)
        await store.put("a/b.jpg", b"photo")
        assert await store.get("a/b.jpg") == b"photo"
        with pytest.raises(NotFound):
            await store.get("a/c.jpg")
    assert Bucket.kept == {"/shop/photos/a/b.jpg": b"photo"}
    assert (tmp_path / "a folder/a/b.jpg").read_bytes() == b"photo"


@pytest.mark.anyio
async def test_a_store_that_is_away_is_said(tmp_path: Path) -> None:
    """Refused for a moment, and nothing has happened: a folder that can't be made, an option that S3 doesn't know."""
    (tmp_path / "file").touch()
    for location in ((tmp_path / "file" / "folder").as_uri(), "s3://shop?colour=red"):
        with pytest.raises(Unavailable):
            await PhotoStore(location).put("a", b"photo")
        with pytest.raises(Unavailable):
            await PhotoStore(location).get("a")


def test_a_store_away_is_503_and_adds_nothing(counter: Counter, folder: Path, sql: Sql) -> None:
    """No row without its file."""
    package = counter.receive()
    folder.write_text("in the way")
    answer = send(counter, package, taken())
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    assert sql("SELECT count(*) AS n FROM package_photos")[0]["n"] == 0


def test_the_settings_name_a_bucket(settings: Settings, bucket: str, clock: Clock, operator: Headers) -> None:
    """A photo goes where `PAQUETERIA_PHOTOS_URL` says."""
    with TestClient(create_app(settings.model_copy(update={"photos_url": bucket}), clock)) as client:
        counter = Counter(client, operator)
        assert send(counter, counter.receive(), taken()).status_code == 201
    assert [path.endswith(".jpg") for path in Bucket.kept] == [True]
