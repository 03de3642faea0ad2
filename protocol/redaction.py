"""Redaction: secrets are taken out of whatever a run says, before anybody acts on it.

Whoever first says a thing redacts it: the client a task, the worker a report, the conductor a
policy's reply. So what is stored is what is used: a run that is recovered, replayed or forked sees
the same texts as the one that ran. `Redactor` does it; `Redaction` says what besides the well-known
is a secret: the configuration, and each run what it was begun with.

A secret is found by the name under which it stands (``password``, ``X-Api-Key``), by its form (a
key of a known provider, a token in a header, a password in a URL), and by its value, where this
process knows it (a secret that it has resolved). What is put in its place says what it was:
``[redacted:api_key]``, or the reference ``${secret:NAME}``.
"""

import json
import re
from collections.abc import Callable, Mapping
from functools import cache, lru_cache
from typing import Final, TypeVar

import msgspec

from protocol.actions import Json, Pool, WorkerSpec
from protocol.commands import Fork, Start, TaskMessage
from protocol.decisions import Decision, Reply, Task, ToolCall
from protocol.errors import InvalidData
from protocol.events import Edit
from protocol.inbox import Label, Message, Signal
from protocol.limits import MAX_NESTING
from protocol.references import MAX_REFERENCE_CHARS, OPENINGS, REFERENCE
from protocol.secret_forms import (
    EVERYTHING,
    FORMS,
    HEADERS,
    MAX_KEY_CHARS,
    NAMES,
    QUERY,
    UNTOUCHED,
    Redaction,
    naming,
)
from protocol.secret_search import looking, variants

MAX_LEVELS: Final = MAX_NESTING + 16
"""Levels of lists and objects that are looked into. Nothing that nests deeper is stored."""

MAX_ROUNDS: Final = 8
"""Looks at one text. A second one hardly ever finds anything, a third one only in texts that are
made for it."""

MAX_REDACTORS: Final = 64
"""Redactors kept for what runs recorded: a deployment meets the pools of a few projects."""

MARKER: Final = re.compile(r"\[redacted:[^\[\]\s]{1,80}\]")
"""What stands in the place of a secret."""

_ONLY_STANDINS: Final = re.compile(
    r"(?:[A-Za-z][A-Za-z0-9-]{0,20} +)?"
    rf"(?:(?:[\w.-]{{1,80}}=)?(?:{MARKER.pattern}|{REFERENCE.pattern})[;,:]?\s*)+"
)
"""A value in which no secret is left: references and markers, perhaps after a scheme's name."""

_WORD: Final = r"[^\s\"'<>,;&()\[\]{}\\]"
"""A character of a value that stands in a text without quotes."""

_QUOTED: Final = re.compile(
    r"[bru]{0,2}(?P<quote>\\{0,3}[\"'])(?P<secret>(?:(?!(?P=quote))[^\r\n])*)(?P=quote)"
)
_SCHEME: Final = re.compile(
    r"(?i:basic|bearer|token|digest|negotiate|apikey|aws4-hmac-sha256)[ \t]{1,4}"
    rf"(?P<secret>{UNTOUCHED}[^\s\"'<>\\]{{4,}}+)"
)
_PLAIN: Final = re.compile(
    rf"(?P<secret>{UNTOUCHED}(?={_WORD}{{0,120}}[0-9])(?={_WORD}{{0,120}}[A-Za-z])"
    rf"{_WORD}{{8,}}+)(?![(\[{{])"
)
_COOKIES: Final = re.compile(
    rf"(?P<secret>(?!\[redacted:)[\w.-]{{1,80}}+={UNTOUCHED}[^\s;\"']++(?:;[ \t]*[^\r\n;\"']++)*)"
)
_NUMBER: Final = re.compile(r"(?P<secret>-?[0-9]{1,40}(?:\.[0-9]{1,20})?)(?![\w.])")

_T = TypeVar("_T", bound=msgspec.Struct)


class Redactor:
    """Takes secrets out of texts and JSON values. Pure, total, and done when done once.

    Args:
        redaction: What is taken for a secret.
        values: Secrets that this process holds, by what is put in their place.

    Raises:
        InvalidData: A name or a pattern of ``redaction`` is none.
    """

    def __init__(
        self, redaction: Redaction = EVERYTHING, values: Mapping[str, str] | None = None
    ) -> None:
        redaction.check_each()
        self.redaction = redaction
        self._known = values
        shipped = NAMES if redaction.defaults else ()
        self._forms = FORMS if redaction.defaults else ()
        self._own = [
            (re.compile(each), _replacing(f"pattern_{number}"))
            for number, each in enumerate(redaction.patterns, 1)
        ]
        names = naming(redaction.names, shipped)
        self._key = re.compile(rf"(?i:{names})\Z")
        self._header = re.compile(rf"(?i:{naming(redaction.names, HEADERS if shipped else ())})\Z")
        self._head = re.compile(
            rf"(?P<name>(?i:{names}))(?:\\{{0,3}}[\"'])?[ \t]{{0,4}}+[:=](?!=)[ \t]{{0,4}}+"
        )
        query = naming((*QUERY, *redaction.names) if shipped else redaction.names, shipped)
        self._query = re.compile(
            rf"[?&;](?P<prefix>[A-Za-z0-9_.-]{{0,40}}?)(?P<name>(?i:{query}))="
            rf"(?P<secret>{UNTOUCHED}[^&\s#\"'<>\\;]++)"
        )
        self._values = variants(values or {})
        self._numbers = {value: stand_in for value, stand_in in self._values if value.isdigit()}
        named = (*shipped, *redaction.names), QUERY if shipped else ()
        anchors = [anchor for form in self._forms for anchor in form.anchors]
        anchors += [value for value, _ in self._values]
        self.may_hold = looking(anchors, *named)
        """Whether a text, or JSON, may hold a secret other than by the patterns of the
        configuration. Quick, and never wrong in saying no."""
        self._may_name = looking((), *named)
        self._named = lru_cache(4_096)(self._name_of)
        self._with = lru_cache(MAX_REDACTORS)(self._made_with)
        self._last = redaction, self

    def also(self, recorded: Redaction | None, run: str) -> "Redactor":
        """One that takes out, too, what a run was begun with; this one, if that is no more.

        Args:
            recorded: What the run recorded; None for nothing.
            run: Its id.

        Raises:
            InvalidData: A name or a pattern of it is none.
        """
        if recorded is None:
            return self
        last, redactor = self._last
        if recorded != last:
            try:
                redactor = self._with(recorded)
            except InvalidData as error:
                raise InvalidData(
                    f"run {run} records what can't be looked for: {error.message}",
                    hint="nothing that it says could be kept clean: begin another run in its place",
                ) from None
            self._last = recorded, redactor
        return redactor

    def _made_with(self, recorded: Redaction) -> "Redactor":
        recorded.check()
        if recorded.beyond(self.redaction) is None:
            return self
        return Redactor(recorded.union(self.redaction), self._known)

    def suspects(self, data: bytes) -> bool:
        """Whether JSON with these bytes may hold a secret. Quick, and never wrong in saying no."""
        return bool(self._own) or self.may_hold(data.decode("utf-8", "replace"))

    def text(self, text: str) -> str:
        """The text without secrets."""
        for _ in range(MAX_ROUNDS):
            before, text = text, self._once(text)
            if text == before:  # what was taken out may have hidden the end of something else
                break
        return text

    def _once(self, text: str) -> str:
        if self.may_hold(text):
            text = self._without(text)
        for pattern, replaced in self._own:
            text = pattern.sub(replaced, text)
        return text

    def _without(self, text: str) -> str:
        """The text without all but what the patterns of the configuration find."""
        for value, stand_in in self._values:
            if value in text:
                text = text.replace(value, stand_in)
        for form in self._forms:
            if any(anchor in text for anchor in form.anchors):
                text = form.pattern.sub(_replacing(form.what), text)
        if ("=" in text or ":" in text) and self._may_name(text):
            text = self._query.sub(_replacing(""), text)
            text = self._pairs(text)
        return text

    def value(self, value: Json) -> Json:
        """The JSON value without secrets: lists and objects as they were, texts redacted.

        Numbers go only where they stand under the name of a secret, or are one.
        """
        return self._walk(value, "", 0)

    # ------------------------------------------------------------------------- JSON

    def _name_of(self, key: str) -> str:
        found = self._key.search(key)
        return _label(found[0]) if found else ""

    def name_of(self, key: object) -> str:
        """What a key names, if it is the name of a secret; else ""."""
        return self._named(key) if isinstance(key, str) and len(key) <= MAX_KEY_CHARS else ""

    def _walk(self, value: Json, name: str, depth: int) -> Json:
        match value:
            case str():
                return self._under(value, name) if name else self.text(value)
            case bool() | None:
                return value
            case int() | float():
                if name:
                    return f"[redacted:{name}]"
                return self._numbers.get(str(value), value) if self._numbers else value
            case dict():
                return self._object(value, name, depth)
            case list() | tuple():
                return self._list(value, name, depth)
            case _:
                return value

    def _under(self, text: str, name: str) -> str:
        """A text that stands under the name of a secret."""
        for value, stand_in in self._values:
            text = text.replace(value, stand_in)
        if not text or _ONLY_STANDINS.fullmatch(text):
            return text
        return f"[redacted:{name}]"

    def _object(self, value: dict[Json, Json], name: str, depth: int) -> Json:
        if depth > MAX_LEVELS:
            return "[redacted:too_deep]"
        jar = name if name.startswith("cookie") else ""
        made: dict[Json, Json] = {}
        for key, item in value.items():
            new = self.text(key) if isinstance(key, str) else key
            named = self.name_of(new)
            while new in made:
                new = f"{new}#"
            made[new] = self._walk(item, named or jar, depth + 1)
        # An object that says a name and a value, as tools that record HTTP do.
        named = self.name_of(value.get("name") or value.get("key"))
        if named and isinstance(value.get("value"), str):
            made["value"] = self._under(value["value"], named)
        return made

    def _list(self, value: list[Json] | tuple[Json, ...], name: str, depth: int) -> Json:
        if depth > MAX_LEVELS:
            return "[redacted:too_deep]"
        match value:
            case [str() as head, str() as item] if not name and self._header.search(
                head[:MAX_KEY_CHARS]
            ):
                return [head, self._under(item, self.name_of(head) or _label(head))]
            case _:
                return [self._walk(item, name, depth + 1) for item in value]

    # ------------------------------------------------------------------------- names in texts

    def _pairs(self, text: str) -> str:
        """``name=value``, ``"name": "value"`` and the like, wherever they stand in a text."""
        parts: list[str] = []
        done = 0
        for head in self._head.finditer(text):
            if head.start() < done:
                continue
            found = _value_after(text, head)
            if found is None:
                continue
            begin, end = found.span("secret")
            if _ONLY_STANDINS.fullmatch(found["secret"]) or not found["secret"]:
                continue
            parts += [text[done:begin], f"[redacted:{_label(head['name'])}]"]
            done = end
        return "".join([*parts, text[done:]]) if parts else text

    # ------------------------------------------------------------------------- messages

    def task(self, task: Task) -> Task:
        """A task, its check included."""
        return self._struct(
            task,
            lambda: Task(
                text=self.text(task.text),
                inputs=self._mapping(task.inputs),
                sees=tuple(
                    msgspec.structs.replace(each, value=self.value(each.value))
                    for each in task.sees
                ),
                check=self.value(task.check),
            ),
        )

    def start(self, start: Start) -> Start:
        """A run to begin: its task, and the descriptions and options of its pool."""
        return msgspec.structs.replace(
            start, task=self.task(start.task), pool=self.pool(start.pool)
        )

    def task_message(self, message: TaskMessage) -> TaskMessage:
        """What a conductor takes: its task only. Whoever made the run has looked at the pool."""
        match message:
            case Start():
                return msgspec.structs.replace(message, task=self.task(message.task))
            case Fork():
                return self.fork(message)
            case _:
                return message

    def fork(self, fork: Fork) -> Fork:
        """A fork to begin: its reason, what is replaced, and the workers that are."""
        return self._struct(
            fork,
            lambda: msgspec.structs.replace(
                fork,
                reason=self.text(fork.reason),
                workers=tuple(map(self._worker, fork.workers)),
                edits=tuple(map(self._edit, fork.edits)),
            ),
        )

    def _edit(self, edit: Edit) -> Edit:
        name = self.name_of(edit.path.rpartition(".")[2])
        return Edit(edit.path, self._walk(edit.value, name, 0))

    def pool(self, pool: Pool) -> Pool:
        """A pool as a run records it. In schemas names are names of parameters, not of secrets."""
        return self._struct(pool, lambda: Pool(tuple(map(self._worker, pool.workers))))

    def _worker(self, spec: WorkerSpec) -> WorkerSpec:
        parameters = self._texts(spec.parameters, 0)
        return msgspec.structs.replace(
            spec,
            description=self.text(spec.description),
            options=self._mapping(spec.options),
            parameters=parameters if isinstance(parameters, dict) else spec.parameters,
        )

    def _texts(self, value: Json, depth: int) -> Json:
        """A schema: the texts in it without secrets, whatever the names under which they stand."""
        match value:
            case str():
                return self.text(value)
            case dict() if depth <= MAX_LEVELS:
                return {key: self._texts(item, depth + 1) for key, item in value.items()}
            case list() | tuple() if depth <= MAX_LEVELS:
                return [self._texts(item, depth + 1) for item in value]
            case _:
                return value

    def reply(self, reply: Reply) -> Reply:
        """A policy's reply: text, arguments, decision, error.

        Tokens would spell what was taken out of the text: they go as a whole.
        """
        return self._struct(
            reply,
            lambda: msgspec.structs.replace(
                reply,
                error=self.text(reply.error),
                text=(text := self.text(reply.text)),
                sampled=reply.sampled if text == reply.text else None,
                tool_calls=tuple(map(self._tool_call, reply.tool_calls)),
                decision=reply.decision and self._decision(reply.decision),
                version=self.text(reply.version),
                finish=self.text(reply.finish),
            ),
        )

    def _tool_call(self, call: ToolCall) -> ToolCall:
        return ToolCall(
            id=self.text(call.id),
            name=self.text(call.name),
            arguments=self._written(call.arguments),
        )

    def _written(self, text: str) -> str:
        """Arguments as a model wrote them: as they were, where nothing has to be taken out."""
        try:
            arguments = json.loads(text)
        except (ValueError, RecursionError):
            return self.text(text)
        made = self.value(arguments)
        return text if made == arguments else msgspec.json.encode(made).decode()

    def _decision(self, decision: Decision) -> Decision:
        calls = tuple(
            msgspec.structs.replace(
                call,
                worker=self.text(call.worker),
                arguments=self._mapping(call.arguments),
                ref=self.text(call.ref),
            )
            for call in decision.calls
        )
        answer = None if decision.answer is None else self.text(decision.answer)
        answers = self.text(decision.answers)
        return msgspec.structs.replace(decision, calls=calls, answer=answer, answers=answers)

    def message(self, message: Message) -> Message:
        """What a person says to a run: a signal's reason, a label's value."""
        match message:
            case Signal():
                return msgspec.structs.replace(message, reason=self.text(message.reason))
            case Label():
                value = self._walk(message.value, self.name_of(message.key), 0)
                return msgspec.structs.replace(message, value=value)
            case _:
                return message

    def _mapping(self, value: dict[str, Json]) -> dict[str, Json]:
        made = self.value(value)
        return made if isinstance(made, dict) else value

    def _struct(self, value: _T, redacted: Callable[[], _T]) -> _T:
        """The struct itself, where its bytes show that nothing has to be taken out."""
        try:
            data = msgspec.json.encode(value)
        except (TypeError, ValueError, RecursionError):  # refused where it is written
            return redacted()
        return redacted() if self.suspects(data) else value


@cache
def well_known() -> Redactor:
    """The redactor of well-known names and forms, made once: their patterns take long to join."""
    return Redactor()


def _value_after(text: str, head: re.Match[str]) -> re.Match[str] | None:
    """The secret after a name, if there is one: in quotes, after a scheme, or by its looks."""
    place = head.end()
    if found := _QUOTED.match(text, place):
        return found
    if found := _SCHEME.match(text, place):
        return found
    if head["name"].lower().startswith("cookie"):
        return _COOKIES.match(text, place)
    quoted = head[0].rstrip(" \t:=")[-1:] in "\"'"
    return _PLAIN.match(text, place) or (_NUMBER.match(text, place) if quoted else None)


def _replacing(what: str) -> Callable[[re.Match[str]], str]:
    def replaced(match: re.Match[str]) -> str:
        group = "secret" if "secret" in match.re.groupindex and match["secret"] is not None else 0
        secret = match[group]
        if not secret or _ONLY_STANDINS.fullmatch(secret) or _cuts(match, group):
            return match[0]
        begin, end = (place - match.start() for place in match.span(group))
        label = what or _label(match["name"])
        return f"{match[0][:begin]}[redacted:{label}]{match[0][end:]}"

    return replaced


def _cuts(match: re.Match[str], group: str | int) -> bool:
    """Whether what was found begins within a reference."""
    begin = match.start(group)
    low = max(0, begin - MAX_REFERENCE_CHARS)
    opened = max(match.string.rfind(each, low, begin) for each in OPENINGS.values())
    found = REFERENCE.match(match.string, opened) if opened >= 0 else None
    return found is not None and found.end() > begin


def _label(name: str) -> str:
    """How a name stands in a marker."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_") or "secret"
