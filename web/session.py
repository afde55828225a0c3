"""What a browser keeps between two requests: who is signed in, and the last change that it must see."""

from datetime import timedelta

from fastapi import Request, Response

from db.consistency import HEADER
from infra.auth import SESSION_COOKIE, SESSION_LENGTH

CONSISTENCY_COOKIE = "paqueteria_seen"

SEEN_FOR = timedelta(hours=1)
"""By then every projector that still runs has caught up."""


def begin(request: Request, response: Response, token: str) -> None:
    """Sign this browser in, for as long as the token holds."""
    response.set_cookie(
        SESSION_COOKIE,
        token,
        max_age=int(SESSION_LENGTH.total_seconds()),
        httponly=True,
        samesite="lax",
        secure=is_encrypted(request),
    )


def end(response: Response) -> None:
    """Sign this browser out."""
    response.delete_cookie(SESSION_COOKIE)


def is_encrypted(request: Request) -> bool:
    """Tell whether the browser reaches us by TLS, here or at the proxy in front."""
    public_url: str = request.app.state.connections.settings.public_url
    return request.url.scheme == "https" or public_url.startswith("https://")


def remember(response: Response, *answers: Response) -> None:
    """Keep the last command's token, so that whatever this browser reads next includes its change."""
    tokens = [answer.headers[HEADER] for answer in answers if HEADER in answer.headers]
    if tokens:
        seconds = int(SEEN_FOR.total_seconds())
        response.set_cookie(CONSISTENCY_COOKIE, tokens[-1], max_age=seconds, httponly=True, samesite="lax")
