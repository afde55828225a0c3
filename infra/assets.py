"""Files for browsers: read once, named by their content, and so kept by a browser for as long as it likes."""

import gzip
import hashlib
import mimetypes
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from infra import logs

log = logs.get("assets")

ROOT = Path(__file__).parent.parent
INSTALLED = ROOT / "node_modules"
"""What package-lock.json pins, put there by make."""

FOREVER = "public, max-age=31536000, immutable"
COMPRESSED = ("text/", "application/javascript", "image/svg+xml")

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""The Content-Security-Policy of everything a browser shows: nothing inline, and nothing from elsewhere."""

HTML_HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


@dataclass(frozen=True, slots=True)
class Asset:
    """One file, as it is and compressed."""

    body: bytes
    gzipped: bytes | None
    media_type: str


def _read(path: Path) -> Asset:
    body = path.read_bytes()
    media_type = "text/javascript" if path.suffix == ".js" else mimetypes.guess_type(path.name)[0] or ""
    gzipped = gzip.compress(body, mtime=0) if media_type.startswith(COMPRESSED) else None
    return Asset(body, gzipped, media_type)


class Assets:
    """A set of files under one address, which changes with any of them, so that modules can import each other.

    What isn't installed is told of and left out: the APIs don't need it, and the pages are HTML without it, too.
    """

    def __init__(self, prefix: str, files: Mapping[str, Path]) -> None:
        missing = {name: path for name, path in files.items() if path.is_relative_to(INSTALLED) and not path.exists()}
        if missing:
            log.warning("not_installed", files=sorted(missing), run="make node_modules/.installed")
        self._missing = missing.keys()
        self._files = {name: _read(path) for name, path in sorted(files.items()) if name not in missing}
        digest = hashlib.sha256()
        for name, asset in self._files.items():
            digest.update(f"{name}\0{len(asset.body)}\0".encode() + asset.body)
        self._base = f"{prefix}/{digest.hexdigest()[:16]}"
        self.route = Route(f"{prefix}/{{version}}/{{name:path}}", self.serve, name=f"assets {prefix}")

    def url(self, name: str) -> str:
        """Give the address of a file; a name that isn't there raises KeyError."""
        if name not in self._files and name not in self._missing:
            raise KeyError(name)
        return f"{self._base}/{name}"

    async def serve(self, request: Request) -> Response:
        """Send a file; an address of another version isn't answered with this one's bytes."""
        asset = self._files.get(request.path_params["name"])
        if asset is None or request.url.path != self.url(request.path_params["name"]):
            return Response(status_code=HTTPStatus.NOT_FOUND)
        headers = {"Cache-Control": FOREVER, "X-Content-Type-Options": "nosniff", "Vary": "Accept-Encoding"}
        if asset.gzipped is not None and "gzip" in request.headers.get("Accept-Encoding", ""):
            return Response(asset.gzipped, headers=headers | {"Content-Encoding": "gzip"}, media_type=asset.media_type)
        return Response(asset.body, headers=headers, media_type=asset.media_type)
