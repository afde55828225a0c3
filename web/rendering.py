"""Answers as HTML: a template in the reader's language, under the headers that every page has."""

import functools
import gzip
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from infra.assets import HTML_HEADERS, INSTALLED, Assets
from infra.auth import Caller, Identity
from web import flash, localization
from web.navigation import entries

HERE = Path(__file__).parent
OURS = ("css/*.css", "js/*.js", "*.svg")

SMALL = 1000
"""Bytes under which compressing costs more than it saves."""


@functools.cache
def assets() -> Assets:
    """Read the pages' own files and what npm installed for them, once a process."""
    static = HERE / "static"
    ours = {str(path.relative_to(static)): path for pattern in OURS for path in static.glob(pattern)}
    installed = {
        "htmx.js": INSTALLED / "htmx.org" / "dist" / "htmx.min.js",
        "idiomorph.js": INSTALLED / "idiomorph" / "dist" / "idiomorph-ext.min.js",
        "morph.js": INSTALLED / "idiomorph" / "dist" / "idiomorph.min.js",
    }
    return Assets("/assets", ours | installed)


@functools.cache
def environment(language: str) -> Environment:
    """Give the templates in a language."""
    made = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.i18n"],
    )
    made.install_gettext_translations(  # type: ignore[attr-defined] # the extension adds it
        localization.translations(language), newstyle=True
    )
    made.globals |= {"asset": assets().url, "languages": localization.LANGUAGES, "language": language}
    made.filters |= {
        "pesos": localization.pesos,
        "phone": localization.phone,
        "instant": localization.instant,
        "number": functools.partial(localization.number, language=language),
        "exact": functools.partial(localization.exact, language=language),
        "day": functools.partial(localization.day, language=language),
        "short": functools.partial(localization.short, language=language),
        "ago": functools.partial(localization.ago, language=language),
    }
    return made


def translator(request: Request) -> Callable[[str], str]:
    """Give gettext in the reader's language."""
    return localization.translations(localization.language_of(request)).gettext


@dataclass(frozen=True, slots=True)
class View:
    """What every template may ask about the request."""

    request: Request
    identity: Identity | None
    now: datetime

    @property
    def path(self) -> str:
        """The address without its parameters."""
        return self.request.url.path

    @property
    def batch(self) -> int:
        """The batch after which updates change what is shown."""
        batch: int = self.request.state.shown_batch
        return batch

    @property
    def is_fragment(self) -> bool:
        """Tell whether a part of a page is asked for by a script."""
        return "HX-Request" in self.request.headers

    @property
    def navigation(self) -> list[Any]:
        """The pages that this person may go to."""
        return entries(self.identity.role if self.identity else None)

    def here(self, **changes: str | None) -> str:
        """Give this address with parameters changed, or left out where None."""
        kept = [(name, value) for name, value in self.request.query_params.multi_items() if name not in changes]
        query = urlencode([*kept, *((name, value) for name, value in changes.items() if value is not None)])
        return f"{self.path}?{query}" if query else self.path


def view_of(request: Request) -> View:
    """Make the view of a request; before its guard has looked, nobody is signed in."""
    caller: Caller | None = getattr(request.state, "caller", None)
    return View(request, caller.identity if caller else None, request.app.state.clock())


def render(
    request: Request,
    template: str,
    context: Mapping[str, Any] | None = None,
    *,
    status: int = HTTPStatus.OK,
    headers: Mapping[str, str] | None = None,
) -> HTMLResponse:
    """Answer with a template; what was left to say on the next page is said, and a language asked for is kept."""
    language = localization.language_of(request)
    notice = flash.read(request)
    text = (
        environment(language)
        .get_template(template)
        .render({**(context or {}), "view": view_of(request), "notice": notice, "Markup": Markup})
    )
    response = _compressed(request, text.encode(), status)
    response.headers.update({**HTML_HEADERS, "Cache-Control": "private, no-store", "Content-Language": language})
    response.headers.update(headers or {})
    if notice is not None:
        flash.clear(response)
    if request.query_params.get("lang") == language:
        response.set_cookie(localization.COOKIE, language, max_age=365 * 86400, samesite="lax")
    return response


def _compressed(request: Request, body: bytes, status: int) -> HTMLResponse:
    if len(body) < SMALL or "gzip" not in request.headers.get("Accept-Encoding", ""):
        return HTMLResponse(body, status)
    packed = gzip.compress(body, compresslevel=5, mtime=0)
    return HTMLResponse(packed, status, {"Content-Encoding": "gzip", "Vary": "Accept-Encoding"})


def is_local(address: str) -> bool:
    """Tell whether an address leads to one of our own pages, wherever it came from."""
    parts = urlsplit(address)
    local = not parts.scheme and not parts.netloc and address.startswith("/")
    return local and not address.startswith(("//", "/\\")) and address.isprintable()


def events(**named: Any) -> dict[str, str]:  # noqa: ANN401
    """Give the header by which an answer tells the page's scripts what happened."""
    return {"HX-Trigger": json.dumps(named)}
