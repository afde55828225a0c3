"""One sentence that the next page says, carried over a redirect."""

from urllib.parse import quote, unquote

from fastapi import Request, Response

COOKIE = "paqueteria_notice"


def leave(response: Response, sentence: str) -> None:
    """Let the next page say this, already in the reader's language."""
    response.set_cookie(COOKIE, quote(sentence), max_age=60, httponly=True, samesite="lax")


def read(request: Request) -> str | None:
    """Give what is left to say."""
    text = request.cookies.get(COOKIE)
    return unquote(text) if text else None


def clear(response: Response) -> None:
    """It has been said."""
    response.delete_cookie(COOKIE)
