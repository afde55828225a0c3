"""`/docs`: the OpenAPI document to read and to try, by scripts of our own."""

import functools
import html
import json

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from infra.assets import HTML_HEADERS, INSTALLED, ROOT, Assets

STATIC = ROOT / "infra" / "static"

DOCUMENT = "/openapi.json"
"""Written once a process: FastAPI would write its 340 KB for everybody who asks, in milliseconds that others wait."""


@functools.cache
def assets() -> Assets:
    """Read what Swagger UI is made of, once a process."""
    swagger = INSTALLED / "swagger-ui-dist"
    names = ("swagger-ui.css", "swagger-ui-bundle.js")
    return Assets("/docs/assets", {name: swagger / name for name in names} | {"docs.js": STATIC / "docs.js"})


def document(app: FastAPI) -> None:
    """Add `/docs` and its files to an application."""
    files = assets()
    page = (STATIC / "docs.html").read_text()
    for name, value in {
        "title": app.title,
        "style": files.url("swagger-ui.css"),
        "bundle": files.url("swagger-ui-bundle.js"),
        "script": files.url("docs.js"),
        "document": DOCUMENT,
    }.items():
        page = page.replace(f"{{{name}}}", html.escape(value))

    @functools.cache
    def written() -> bytes:
        return json.dumps(app.openapi(), ensure_ascii=False, separators=(",", ":")).encode()

    async def described(_: Request) -> Response:
        return Response(written(), media_type="application/json")

    async def docs(_: Request) -> HTMLResponse:
        return HTMLResponse(page, headers=HTML_HEADERS)

    app.router.routes += [Route(DOCUMENT, described), Route("/docs", docs), files.route]
