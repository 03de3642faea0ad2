"""What a server's answer means: an outcome, by its status and what it holds. Pure."""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from actors.ports import Outcome
from actors.workers.openapi.declared import JSON, Declared
from actors.workers.outcomes import EVERY_MISFIT_BYTES, Unrepresentable, failure, json_value
from protocol.actions import Fault, Spend, Status
from protocol.views import short

SHOWN_CHARS: Final = 1_200
"""Characters kept of a refusal's text: what servers say of wrong arguments, not an error's page."""

LATER: Final = frozenset({408, 425, 429})
"""Statuses besides 5xx that say: not now."""

OURS: Final = frozenset({401, 402, 403, 405, 407, 501, 505})
"""Statuses that say that the worker is set up wrongly: credentials, address, document."""

NOT_THERE: Final = frozenset({404, 410})

STATE: Final = frozenset({409, 412, 423, 424})
"""Statuses that say that the request is right, and things are not as it supposes."""

PLAIN: Final = ("text/", "application/xml", "application/yaml", "application/javascript")
"""Media types whose content is text, by their beginning."""


def answered(
    code: int,
    headers: Mapping[str, str],
    body: bytes,
    *,
    where: str,
    chosen: bool,
    asks: Sequence[str],
    declared: Declared,
    spend: Spend,
) -> Outcome:
    """The outcome of an attempt that was answered.

    Args:
        code: The HTTP status.
        headers: The answer's, names in any case.
        body: All of it.
        where: The operation, for texts.
        chosen: Whether an argument is part of the path, so that it chose what is asked for.
        asks: The security schemes that the document names for it.
        declared: What JSON is held to.
        spend: What the attempt cost.
    """
    if 200 <= code < 300:
        kind = headers.get("content-type", "")
        outcome = _value(kind, body, where, spend)
        if outcome.status == "OK" and body:
            every = len(body) <= EVERY_MISFIT_BYTES
            if wrong := declared.wrong(code, _media(kind), outcome.value, every=every):
                text = f"{where}: the answer is not what its document says: {wrong}. It was "
                return failure("EXEC_ERR", "worker", text + short(outcome.value), spend)
        return outcome
    status, fault = _meaning(code, chosen=chosen)
    text = f"{where}: HTTP {code}{_advice(code, headers, asks)}. {_said(headers, body)}".rstrip()
    return failure(status, fault, text, spend)


def _meaning(code: int, *, chosen: bool) -> tuple[Status, Fault]:
    if code >= 500 or code in LATER or code in OURS or code < 400:
        return "EXEC_ERR", "infrastructure"
    if code in NOT_THERE:
        return "EXEC_ERR", "worker" if chosen else "infrastructure"
    if code in STATE:
        return "EXEC_ERR", "worker"
    return "PARSE_ERR", "policy"


def _advice(code: int, headers: Mapping[str, str], asks: Sequence[str]) -> str:
    """What the status means for who reads it."""
    later = headers.get("retry-after", "").strip()[:100]
    match code:
        case _ if later:
            unit = " seconds" if later.isdigit() else ""
            return f" (it asks to be tried again after {later}{unit})"
        case 401 | 403 | 407:
            named = f", and the document asks for {' or '.join(asks)}" if asks else ""
            return f" (the worker's credentials won't do{named}: see its options)"
        case _ if 300 <= code < 400:
            return f" (sent on to {headers.get('location', 'nowhere')!r}, which is not followed)"
        case 405 | 501:
            return " (the document and the server don't agree: see base_url)"
        case _:
            return ""


def _said(headers: Mapping[str, str], body: bytes) -> str:
    text = body.decode(_charset(headers.get("content-type", "")), "replace").strip()
    if (
        "html" in headers.get("content-type", "").lower()
        or text.count("\N{REPLACEMENT CHARACTER}") > 20
    ):
        return ""  # a page for people's eyes, or no text at all
    return (
        text
        if len(text) <= SHOWN_CHARS
        else f"{text[:SHOWN_CHARS]} … [cut: {len(text)} characters]"
    )


def _value(kind: str, body: bytes, where: str, spend: Spend) -> Outcome:
    if not body:
        return Outcome(spend=spend)
    media = _media(kind)
    if media.endswith(JSON):
        try:
            return Outcome(value=json_value(msgspec.json.decode(body)), spend=spend)
        except (ValueError, RecursionError, Unrepresentable) as error:
            text = f"{where} answered with what says it is JSON and is none: {error}."
            return failure("EXEC_ERR", "worker", text, spend)
    if not media:
        try:
            return Outcome(value=json_value(msgspec.json.decode(body)), spend=spend)
        except (ValueError, RecursionError):
            pass
    charset = _charset(kind) if media.startswith(PLAIN) or media.endswith("+xml") else "utf-8"
    try:
        text = body.decode(charset)
        if "\0" in text:
            raise ValueError("it holds NUL")
    except ValueError:
        what = media or "an unknown type"
        text = f"{where} answered with {len(body)} bytes of {what}, which are no text."
        return failure("EXEC_ERR", "worker", text, spend)
    return Outcome(value=text, spend=spend)


def _media(kind: str) -> str:
    """The media type in a content type."""
    return kind.partition(";")[0].strip().lower()


def _charset(kind: str) -> str:
    """The charset that a content type names; UTF-8 if none or none that is known."""
    for parameter in kind.split(";")[1:]:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset":
            try:
                charset = value.strip().strip("\"'")
                b" ".decode(charset)
            except (LookupError, ValueError):
                return "utf-8"
            return charset
    return "utf-8"
