"""A page as it goes out, plain and compressed: complete header lists and bytes, the same whichever way it is found."""

import functools
import gzip
import re
from dataclasses import dataclass

from fastapi import Response

from db.consistency import HEADER, Token, TokenSigner
from db.page_cache import Page
from infra.headers import SECURITY_HEADERS, Head, Headers

ENTITY_TAG = re.compile(r'(?:W/)?("[^"]*")|(\*)')

SMALLEST_COMPRESSED = 1000
"""Bytes; what fits into a packet anyway isn't compressed."""

COMPRESSION = 5


def is_named_by(etag: str, if_none_match: str) -> bool:
    """Tell whether a reader's If-None-Match has this tag."""
    return if_none_match == etag or any(star or tag == etag for tag, star in ENTITY_TAG.findall(if_none_match))


@dataclass(frozen=True, slots=True)
class Form:
    """A page in one encoding, with a tag of its own and what its headers say of its bytes."""

    body: bytes
    etag: str
    content: Headers

    def is_named_by(self, if_none_match: str) -> bool:
        """Tell whether a reader has these bytes already."""
        return is_named_by(self.etag, if_none_match)


def _plain(page: Page) -> Form:
    return Form(page.body, page.etag, [*_length(page.body), (b"content-type", b"application/json")])


def _gzipped(page: Page) -> Form:
    body = gzip.compress(page.body, COMPRESSION, mtime=0)
    kind = [(b"content-type", b"application/json"), (b"content-encoding", b"gzip")]
    return Form(body, f'{page.etag[:-1]}-gzip"', [*_length(body), *kind])


def _length(body: bytes) -> Headers:
    return [(b"content-length", str(len(body)).encode())]


@dataclass(frozen=True, slots=True)
class Hot:
    """A form as it goes out from memory: its headers for 304, and for 200."""

    form: Form
    unchanged: Head
    whole: Head


class Finished:
    """A page with the token that names its batch; the compressed form is made when it is first asked for.

    `digest` names its question, where it may be asked again.
    """

    def __init__(self, page: Page, tokens: TokenSigner, digest: str = "") -> None:
        self.page = page
        self.digest = digest
        self._token = tokens.sign(Token(page.checkpoint.incarnation, batch=page.checkpoint.batch)).encode()
        self._plain = _plain(page)
        self._gzipped: Form | None = None
        self._hot: dict[bool, Hot] = {}

    @property
    def size(self) -> int:
        """How many bytes of memory it takes, more or less."""
        return 2 * len(self.page.body) + 3000  # the compressed form, too, which is made later and never larger

    def form(self, *, is_gzipped: bool) -> Form:
        """Give the form for a reader who takes gzip, or for one who doesn't."""
        if not is_gzipped or len(self.page.body) < SMALLEST_COMPRESSED:
            return self._plain
        if self._gzipped is None:
            self._gzipped = _gzipped(self.page)
        return self._gzipped

    def hot(self, *, is_gzipped: bool) -> Hot:
        """Give the form for such a reader with the headers that it has when it comes from the process's memory."""
        hot = self._hot.get(is_gzipped)
        if hot is None:
            form = self.form(is_gzipped=is_gzipped)
            head = self.head(form, "L1")
            hot = self._hot[is_gzipped] = Hot(form, Head(head), Head([*head, *form.content]))
        return hot

    def head(self, form: Form, outcome: str, age: int | None = None) -> Headers:
        """Give the headers of a form, but for those that tell of its content."""
        headers = [
            (b"etag", form.etag.encode()),
            (b"cache-control", b"private, no-cache"),
            (b"x-cache", outcome.encode()),
            (HEADER.lower().encode(), self._token),
            (b"vary", b"Accept-Encoding"),
            *SECURITY_HEADERS,
        ]
        return headers if age is None else [*headers, (b"age", str(age).encode())]


class Sent(Response):
    """An answer whose headers are complete."""

    def __init__(self, status: int, headers: Headers, body: bytes = b"") -> None:
        self.status_code = status
        self.raw_headers = headers
        self.body = body
        self.background = None


@functools.lru_cache(maxsize=1000)
def takes_gzip(accept_encoding: str) -> bool:
    """Tell whether a reader would rather have gzip than nothing of the kind, by RFC 9110."""
    weights = dict(_weighed(part) for part in accept_encoding.lower().split(","))
    weight = weights.get("gzip", weights.get("x-gzip", weights.get("*", 0.0)))
    return weight > 0 and weight >= weights.get("identity", 0.0)


def _weighed(part: str) -> tuple[str, float]:
    name, _, parameters = part.partition(";")
    weight = re.fullmatch(r"\s*q\s*=\s*(0(\.\d{0,3})?|1(\.0{0,3})?)\s*", parameters)
    return name.strip(), float(weight[1]) if weight else float(not parameters.strip())
