"""What goes wrong with a request, as an OpenAI-compatible client understands it. Pure.

======  ==========================  ==============================================================
status  code                        when
======  ==========================  ==============================================================
400     ``invalid_value``, …        the request is wrong, or asks for what a run can't give
400     ``context_length_exceeded`` the conversation is too long for a task
401     ``invalid_api_key``         no token, or another one
403     ``wrong_host``              a browser was led here by a foreign name
404     ``model_not_found``         no pool of that name
409     ``run_cancelled``, …        somebody else ended the run, or it could not be begun
413     ``request_too_large``       the body is too large
415     ``not_json``                the body is not said to be JSON
422     ``idempotency_key_reused``  the key belongs to another request
429     ``rate_limit_exceeded``     too many runs at a time
429     ``insufficient_quota``      the run is paused: its budget is used up
500     ``run_failed``, …           the run ended without an answer
503     ``unavailable``, …          broker, policy or this server can't go on now
504     ``timeout``                 the run took too long
======  ==========================  ==============================================================

A client must not try a failed run again by itself: each try would be another run. So every error
that a second request can't mend says ``x-should-retry: false``, which the official clients obey.
"""

from typing import Final

from protocol import errors
from protocol.errors import PodiumError

RUN_HEADER: Final = "x-podium-run"
"""The header that names the run of a request."""

RETRY_AFTER_S: Final = 2
"""Seconds after which a server that is busy may be asked again: a short run takes as long."""

_STATUSES: Final[tuple[tuple[type[PodiumError], int, str], ...]] = (
    (errors.TooLarge, 400, "context_length_exceeded"),
    (errors.Usage, 400, "invalid_value"),
    (errors.InvalidData, 400, "invalid_value"),
    (errors.NotFound, 404, "not_found"),
    (errors.Ambiguous, 404, "not_found"),
    (errors.Conflict, 409, "conflict"),
    (errors.Busy, 503, "busy"),
    (errors.Unreachable, 503, "unavailable"),
    (errors.TimedOut, 504, "timeout"),
)
"""What becomes of our own errors; the first that fits counts, and all others are ours."""


class Problem(Exception):
    """Why a request gets no completion.

    Args:
        status: Of HTTP.
        code: A word for programs.
        message: What happened, to which run, and what to do next.
        param: The field of the request that is wrong, as ``messages[2].content``.
        run: The run, if one was begun.
        again: Whether the same request may be sent again without harm.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        param: str | None = None,
        run: str = "",
        again: bool = False,
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message
        self.param, self.run, self.again = param, run, again

    def body(self) -> dict[str, object]:
        """The error, in OpenAI's shape; ``run`` is ours."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        error: dict[str, object] = {
            "message": self.message,
            "type": "rate_limit_error" if self.status == 429 else kind,
            "param": self.param,
            "code": self.code,
        }
        return {"error": {**error, "run": self.run} if self.run else error}

    def headers(self) -> dict[str, str]:
        """Besides those of every response."""
        found = {"x-should-retry": "true" if self.again else "false"}
        if self.again:
            found["retry-after"] = str(RETRY_AFTER_S)
        if self.status == 401:
            found["www-authenticate"] = "Bearer"
        if self.run:
            found |= named(self.run)
        return found


def named(run: str) -> dict[str, str]:
    """The headers that name a run; the second is where the official clients look for an id."""
    return {RUN_HEADER: run, "x-request-id": run}


def of_error(error: PodiumError, run: str = "") -> Problem:
    """One of our errors, as a problem of the request."""
    said = f"{error.message} ({error.hint})" if error.hint else error.message
    for kind, status, code in _STATUSES:
        if isinstance(error, kind):
            return Problem(status, code, said, run=run, again=status == 503)
    return Problem(500, error.kind, said, run=run)


def bug(error: Exception, run: str = "") -> Problem:
    """What nobody foresaw: its text may hold anything, so only its kind is told."""
    text = f"{type(error).__name__}: this is a bug of the server, and in its log"
    return Problem(500, "internal", text, run=run)


def unsupported(param: str, why: str) -> Problem:
    """The request asks for what a run can't give."""
    return Problem(400, "unsupported_parameter", f"{param}: {why}", param=param)
