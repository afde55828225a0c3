"""Pictures from cameras, made into what the shop keeps: upright, of a bounded size, and with nothing but pixels.

Where a photo was taken, by which telephone and when stands in its file, and is nobody's business.
"""

import io

from PIL import Image, ImageOps, UnidentifiedImageError

from infra.errors import Invalid, UnsupportedMediaType

FORMATS = ("JPEG", "PNG", "WEBP")
"""What cameras and browsers make; nothing that is drawn from instructions, as SVG is."""

EDGE = 1600
"""Pixels of the longer side at most: a label can be read, in some 300 KB."""

MOST_PIXELS = 64_000_000
"""More than any telephone's camera takes by itself; a small file that unfolds to more is an attack on our memory."""

QUALITY = 82

UNREADABLE = (OSError, SyntaxError, ValueError, TypeError, ArithmeticError, LookupError)
"""What Pillow raises, by format, for a file that is cut off or was made wrong on purpose."""


def reencoded(file: bytes) -> bytes:
    """Give a picture as a JPEG of ours. Raises UnsupportedMediaType for another kind, Invalid for what can't be shown.

    It takes tens of milliseconds of one core, off the event loop if you please.
    """
    try:
        with Image.open(io.BytesIO(file), formats=FORMATS) as picture:
            _refuse_bombs(picture.size)
            picture.draft("RGB", (EDGE, EDGE))
            return _encoded(picture)
    except UnidentifiedImageError:
        raise UnsupportedMediaType(f"A photo must be one of {', '.join(FORMATS)}") from None
    except Image.DecompressionBombError:
        raise _bomb() from None
    except UNREADABLE:
        raise Invalid({"photo": ["can't be read as a picture"]}) from None


def _refuse_bombs(size: tuple[int, int]) -> None:
    if size[0] * size[1] > MOST_PIXELS:
        raise _bomb()


def _bomb() -> Invalid:
    return Invalid({"photo": [f"may have {MOST_PIXELS} pixels"]})


def _encoded(picture: Image.Image) -> bytes:
    """Draw the pixels anew on white, so that not a word of what stood beside them comes along."""
    upright = ImageOps.exif_transpose(picture).convert("RGBA")
    upright.thumbnail((EDGE, EDGE))
    drawn = Image.new("RGB", upright.size, "white")
    drawn.paste(upright, mask=upright.getchannel("A"))
    target = io.BytesIO()
    drawn.save(target, "JPEG", quality=QUALITY, optimize=True, progressive=True)
    return target.getvalue()
