"""Pictures as cameras make them, for the tests that send some."""

import io
from typing import Any

from PIL import Image

PLACE = (4.0, 38.0, 53.4)
"""Degrees, minutes and seconds north, as a camera writes them."""


def taken(colour: str = "red", size: tuple[int, int] = (60, 40), kind: str = "JPEG") -> bytes:
    """Take a photo on its side, which says where it was taken, by what, and what somebody thought of it."""
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    exif[0x0110] = "Telephone of Zoë"
    exif.get_ifd(0x8825).update({1: "N", 2: PLACE})
    target = io.BytesIO()
    Image.new("RGB", size, colour).save(target, kind, exif=exif, comment=b"a secret")
    return target.getvalue()


def form_of(*photos: bytes, **fields: str) -> dict[str, Any]:
    """Write a form as a browser sends it, in which a photo that wasn't chosen has no name: what a client takes."""
    parts = [f'name="{name}"\r\n\r\n{value}'.encode() for name, value in fields.items()]
    parts += [f'name="photo"; filename="{"x" if photo else ""}"\r\n\r\n'.encode() + photo for photo in photos]
    body = b"".join(b"--limit\r\nContent-Disposition: form-data; " + part + b"\r\n" for part in parts)
    return {"content": body + b"--limit--\r\n", "headers": {"Content-Type": "multipart/form-data; boundary=limit"}}
