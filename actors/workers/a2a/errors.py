"""What went wrong between us and an A2A agent: whose fault it is, and whether it may pass."""

from typing import TYPE_CHECKING, Final

from actors.workers.agent.chat import ERROR_CHARS
from actors.workers.outcomes import redacted
from protocol.actions import Fault, Status

if TYPE_CHECKING:
    import httpx
    from a2a.client import A2AClientError

Blamed = tuple[Status, Fault, str]
"""Status, fault, and what happened, as the rest of a sentence that begins with the agent."""

WAITS: Final = frozenset({408, 409, 425, 429})
"""HTTP statuses that ask for another try, besides 5xx."""


def unfinished(text: str) -> "A2AClientError":
    """The error of a conversation that stopped before its end."""
    from a2a.client import A2AClientError

    return A2AClientError(text)


def passing(error: BaseException) -> bool:
    """Whether a task may go on beyond this: the connection broke, the agent is busy or starts."""
    import httpx
    from a2a.utils.errors import UnsupportedOperationError

    if isinstance(error, UnsupportedOperationError):
        return True  # there is nothing to listen to: the task has just ended
    match error.__cause__ or error:
        case httpx.HTTPStatusError() as refused:
            return _may_work_later(refused.response.status_code)
        case httpx.RequestError():
            return True
        case _:
            return False


def blamed(error: Exception, named: str = "") -> Blamed:
    """What an error of the SDK means.

    Args:
        error: Whatever an attempt ended with.
        named: The task that the call's arguments named, if they named one.
    """
    import httpx
    from a2a.client import A2AClientError
    from a2a.utils import errors

    match error.__cause__:
        case httpx.HTTPStatusError() as refused if type(error) is A2AClientError:
            return _refused(refused.response)
        case httpx.RequestError() as broken:
            text = f"can't be reached: {type(broken).__name__}: {broken}. Is it running?"
            return "EXEC_ERR", "infrastructure", text
        case _:
            pass
    match error:
        case errors.TaskNotFoundError() if named:
            text = f"knows no task {named!r}. Name one that it asked for, or none."
            return "PARSE_ERR", "policy", text
        case errors.TaskNotFoundError():
            return "EXEC_ERR", "infrastructure", f"lost the task: {error}. Was it started anew?"
        case errors.InternalError() | errors.InvalidAgentResponseError():
            return "EXEC_ERR", "worker", f"failed: {error}"
        case (
            errors.InvalidParamsError()
            | errors.InvalidRequestError()
            | errors.ContentTypeNotSupportedError()
        ):
            text = f"refused the message: {error}. If it takes no context of ours, set "
            return "EXEC_ERR", "worker", text + 'conversation = "call" in the worker\'s options.'
        case errors.UnsupportedOperationError() if named:
            return "EXEC_ERR", "worker", f"refused the message: {error}"
        case errors.A2AError() if isinstance(error, A2AClientError):
            return "EXEC_ERR", "infrastructure", f"did not answer as A2A wants it: {error}"
        case errors.A2AError():  # a version, an extension, a method that it does not have
            return "EXEC_ERR", "infrastructure", f"can't be asked so: {error}"
        case _:
            text = f"did not answer as A2A wants it: {type(error).__name__}: {error}"
            return "EXEC_ERR", "infrastructure", text


def _refused(response: "httpx.Response") -> Blamed:
    code = response.status_code
    said = redacted(response.content.decode(errors="replace"))[:ERROR_CHARS]
    text = f"refused with HTTP {code}: {said}".rstrip(": ")
    if code in (401, 403):
        return "EXEC_ERR", "infrastructure", f"{text}. Correct headers in the worker's options."
    if code == 404:
        return "EXEC_ERR", "infrastructure", f"{text}. Its card names an address that is none."
    if _may_work_later(code):
        return "EXEC_ERR", "infrastructure", f"{text}. It may work later."
    return "EXEC_ERR", "worker", text


def _may_work_later(code: int) -> bool:
    return code in WAITS or code >= 500
