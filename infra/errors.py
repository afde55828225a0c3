"""Every refusal has a name, an HTTP status and a sentence; `infra.http` turns them into problem+json."""

from http import HTTPStatus
from typing import Any, ClassVar

PROBLEM_TYPE = "application/problem+json"


class ConfigurationError(Exception):
    """A process can't start with what it was given; the command line prints the sentence and exits non-zero."""


class Problem(Exception):
    """A refusal as RFC 9457 has it: `status` and `title` by class, `detail` and further members by instance."""

    status: ClassVar[int] = HTTPStatus.INTERNAL_SERVER_ERROR
    slug: ClassVar[str] = "internal-error"
    title: ClassVar[str] = "The server failed"

    def __init__(self, detail: str, *, headers: dict[str, str] | None = None, **members: Any) -> None:  # noqa: ANN401
        super().__init__(detail)
        self.detail = detail
        self.headers = headers or {}
        self.members = members

    def body(self, instance: str) -> dict[str, Any]:
        """Give the document's members; `instance` is the path that was asked for."""
        return {
            "type": f"urn:paqueteria:problem:{self.slug}",
            "title": self.title,
            "status": int(self.status),
            "detail": self.detail,
            "instance": instance,
            **self.members,
        }


class Malformed(Problem):
    """JSON syntax, a header, a cursor or a token that nobody could read."""

    status = HTTPStatus.BAD_REQUEST
    slug = "malformed"
    title = "The request can't be read"


class Unauthenticated(Problem):
    """No sign-in, or one that no longer holds."""

    status = HTTPStatus.UNAUTHORIZED
    slug = "unauthenticated"
    title = "Sign in first"

    def __init__(self, detail: str) -> None:
        super().__init__(detail, headers={"WWW-Authenticate": "Bearer"})


class Forbidden(Problem):
    """Signed in, but the role doesn't reach."""

    status = HTTPStatus.FORBIDDEN
    slug = "forbidden"
    title = "Not allowed"


class NotFound(Problem):
    """Nothing is there under that name."""

    status = HTTPStatus.NOT_FOUND
    slug = "not-found"
    title = "Not found"


class Conflict(Problem):
    """The state of things forbids the command; nothing was changed."""

    status = HTTPStatus.CONFLICT
    slug = "conflict"
    title = "The state forbids it"


class PreconditionFailed(Problem):
    """`If-Match` names a version that has passed."""

    status = HTTPStatus.PRECONDITION_FAILED
    slug = "precondition-failed"
    title = "Changed meanwhile"


class TooLarge(Problem):
    """The body, or the number of items in it, is over the limit."""

    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    slug = "too-large"
    title = "Too large"


class TooSlow(Problem):
    """The body didn't come in time."""

    status = HTTPStatus.REQUEST_TIMEOUT
    slug = "too-slow"
    title = "Too slow"

    def __init__(self, detail: str) -> None:
        super().__init__(detail, headers={"Connection": "close"})


class UnsupportedMediaType(Problem):
    """The body is not of a kind that the endpoint reads."""

    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE
    slug = "unsupported-media-type"
    title = "Unsupported media type"


class Invalid(Problem):
    """Fields or parameters that can be read but not accepted; `errors` maps each field to its sentences."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY
    slug = "invalid"
    title = "Invalid fields"

    def __init__(self, errors: dict[str, list[str]]) -> None:
        super().__init__("; ".join(f"{field}: {', '.join(texts)}" for field, texts in errors.items()), errors=errors)


class TooManyRequests(Problem):
    """The throttle's limit is reached; `Retry-After` says for how many seconds."""

    status = HTTPStatus.TOO_MANY_REQUESTS
    slug = "too-many-requests"
    title = "Too many requests"

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"Try again in {retry_after} s", headers={"Retry-After": str(retry_after)})


class Unavailable(Problem):
    """Something the service needs is away for a moment; `Retry-After` says when to come back."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    slug = "unavailable"
    title = "Unavailable for a moment"

    def __init__(self, detail: str, retry_after: int = 1) -> None:
        super().__init__(detail, headers={"Retry-After": str(retry_after)})
