"""Secrets are found by name, form and value; what is no secret stays; once is enough."""

import json
import re
import string
import time
from base64 import b64encode
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import quote, quote_plus

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.actions import Pool, WorkerSpec
from protocol.commands import Fork, Start
from protocol.decisions import Decision, PlannedCall, PolicySpec, Reply, Task, ToolCall
from protocol.errors import InvalidData
from protocol.events import Edit, Origin
from protocol.inbox import Label, Signal
from protocol.redaction import MARKER, Redactor
from protocol.references import filled, referred
from protocol.schemas import searching
from protocol.secret_forms import NAMES, QUERY, Redaction
from protocol.secret_search import looking

REDACTOR: Final = Redactor()
VALUE: Final = 'p@ss w"ord/1'
KNOWING: Final = Redactor(values={"${secret:DB}": VALUE})

KEYS: Final = {
    "openai": "sk-proj-" + "aB3dEfGh1jKlMnOpQrSt",
    "openai_old": "sk-" + "T3BlbkFJabcdefghijklmnop",
    "anthropic": "sk-ant-" + "api03-abcdefghijklmnop",
    "github": "ghp_" + "0123456789abcdefghijklmnopqrstuvwxyz",
    "github_fine": "github_pat_" + "11ABCDEFG0abcdefghijklmnop",
    "aws": "AKIA" + "IOSFODNN7EXAMPLE",
    "google": "AIza" + "SyA1234567890abcdefghijklmnopqrstuv",
    "google_oauth": "ya29." + "a0AfH6SMBabcdefghijkl",
    "slack": "xoxb-" + "123456789012-abcdefghijkl",
    "stripe": "sk_live_" + "4eC39HqLyjWDarjtT1zdp7dc",
    "stripe_hook": "whsec_" + "abcdefghijklmnopqrstuvwxyz012345",
    "jwt": "eyJhbGciOiJIUzI1NiJ9" + ".eyJzdWIiOiIxMjM0In0" + ".dozjgNryP4J3jVmNHl0w5N",
    "bearer": "Bearer " + "4f3c2b1a0d9e8f7a6b5c",
    "pem": "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\nabc\n-----END RSA PRIVATE KEY-----",
}

SECRET_TEXTS: Final = [
    ("https://user:hunter2@db.example.com/x", "hunter2"),
    ("https://${secret:USER}:hunter2@h", "hunter2"),
    ("redis://:hunter2@cache:6379/0", "hunter2"),
    ("GET https://x.example/a?page=2&api_key=hunter2&b=1", "hunter2"),
    ("https://blob.example/f?sv=1&sig=aGVsbG8%3D", "aGVsbG8"),
    ("https://x.example/a?token=abc", "=abc"),
    ("{'Authorization': 'Token hunter2', 'Accept': '*/*'}", "hunter2"),
    ('{"x-api-key": "hunter2"}', "hunter2"),
    ('"{\\"password\\": \\"hunter2\\"}"', "hunter2"),
    ("Authorization: Basic dXNlcjpwYXNz", "dXNlcjpwYXNz"),
    ("Cookie: sid=hunter2; theme=dark", "hunter2"),
    ("connect(host='db', password='hunter2')", "hunter2"),
    ("DB_PASSWORD=hunter22", "hunter22"),
    ("AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMI7MDENG", "wJalrXUtnFEMI7MDENG"),
    ('api_key = "hunter2"', "hunter2"),
    ('{"pin": 1, "api_key": 12345}', "12345"),
]

INNOCENT: Final = [
    "The password must be at least 8 characters: choose well.",
    "password = getpass.getpass()",
    "if password == 'x': pass",
    "authorization: required for all",
    "cookie: flour, sugar, butter",
    "The secret: patience. The key: practice.",
    "max_tokens=512, next_page_token=abcdefgh1234",
    "risk-free, task-management-of-the-desk, disk-utilisation-2024-report-final",
    "http://localhost:8080/path@2x.png and mailto:a@b.example",
    "https://example.com/?page=2&sort=asc#token",
    "bearer of internationalization standards",
    "AKIA is a prefix; ASIANCONTINENTALAREAS1 is none",
    "https://u:${secret:DB}@db/ with Authorization: Bearer ${secret:T}",
    "the secretary: Anna12345678",
    "https://${secret:TOKEN}@h and ftp://${secret:USER}:${secret:DB}@h",
    "sk-SK is a locale, eyJ is how JSON begins",
]


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
def test_keys_of_known_forms_are_taken_out_wherever_they_stand(key: str) -> None:
    secret = key.removeprefix("Bearer ")
    for text in (key, f"say ({key})", f"a={key}&b", f'{{"x": "{key}"}}', json.dumps({"a": [key]})):
        found = REDACTOR.text(text)
        assert secret not in found, found
        assert MARKER.search(found)
        assert REDACTOR.suspects(msgspec.json.encode(text))
    assert secret not in json.dumps(REDACTOR.value({"deep": [{"er": key}], key: 1}))


@pytest.mark.parametrize(("text", "secret"), SECRET_TEXTS)
def test_secrets_in_texts_are_taken_out_by_the_names_before_them(text: str, secret: str) -> None:
    found = REDACTOR.text(text)
    assert secret not in found, found
    assert REDACTOR.suspects(msgspec.json.encode(text))
    assert REDACTOR.text(found) == found


@pytest.mark.parametrize("text", INNOCENT)
def test_what_is_no_secret_stays(text: str) -> None:
    assert REDACTOR.text(text) == text


def test_values_keep_their_shape() -> None:
    har = [{"name": "X-Api-Key", "value": "q"}, {"name": "Accept", "value": "q"}]
    value = {
        "db_password": "x",
        "pin": 1,
        "api_key": 1234,
        "clientSecret": None,
        "password_hash": "x",
        "headers": [["Authorization", "Bearer x"], ["Accept", "text"]],
        "har": har,
        "cookies": {"sid": "abc", "n": [1]},
        "passwords": ["a", "b"],
        "secret": True,
        "schema": {"properties": {"password": {"type": "string"}}},
    }
    assert REDACTOR.value(value) == {
        "db_password": "[redacted:password]",
        "pin": 1,
        "api_key": "[redacted:api_key]",
        "clientSecret": None,
        "password_hash": "x",
        "headers": [["Authorization", "[redacted:authorization]"], ["Accept", "text"]],
        "har": [{"name": "X-Api-Key", "value": "[redacted:api_key]"}, har[1]],
        "cookies": {"sid": "[redacted:cookies]", "n": ["[redacted:cookies]"]},
        "passwords": ["[redacted:passwords]"] * 2,
        "secret": True,
        "schema": {"properties": {"password": {"type": "string"}}},
    }


def test_references_stay_where_a_secret_would_go() -> None:
    value = {
        "password": "${secret:DB}",
        "authorization": "Bearer ${secret:API}",
        "cookie": "sid=${secret:SID}; lang=${secret:LANG}",
        "url": "https://u:${secret:DB}@db/?api_key=${secret:API}",
    }
    assert REDACTOR.value(value) == value


def test_a_known_value_is_found_as_programs_write_it() -> None:
    for text in (
        VALUE,
        repr(VALUE),
        json.dumps(VALUE),
        "?q=p%40ss+w%22ord%2F1",
        "cEBzcyB3Im9yZC8x",
    ):
        found = KNOWING.text(f"<{text}>")
        assert "${secret:DB}" in found, text
        assert "ord" not in found
    assert Redactor(values={"${secret:N}": "12345678"}).value([12345678, 1]) == ["${secret:N}", 1]


def test_a_value_too_short_to_be_found_again_is_not_looked_for() -> None:
    assert Redactor(values={"${secret:N}": "1"}).text("1 of 21") == "1 of 21"


def test_a_value_that_is_no_text_is_no_trouble() -> None:
    odd = Redactor(values={"${secret:N}": "bytes-\udcff-odd"})
    assert odd.text("bytes-?-odd") == "bytes-?-odd"
    assert not odd.suspects(b'"bytes"')


def test_own_names_and_patterns() -> None:
    own = Redactor(
        Redaction(names=("pin", "customer id"), patterns=(r"EMP-\d+", r"id:(?P<secret>\w+)"))
    )
    assert own.value({"pin": 1234, "user_pin": "x", "spin": 2, "CustomerId": "c"}) == {
        "pin": "[redacted:pin]",
        "user_pin": "[redacted:pin]",
        "spin": 2,
        "CustomerId": "[redacted:customerid]",
    }
    assert own.text("EMP-77 has id:abc") == "[redacted:pattern_1] has id:[redacted:pattern_2]"
    only = Redactor(Redaction(names=("pin",), defaults=False))
    assert only.value({"password": "x", "pin": "y"}) == {"password": "x", "pin": "[redacted:pin]"}


@pytest.mark.parametrize(
    ("redaction", "place"),
    [
        (Redaction(patterns=("ok+", "(")), "redact.patterns[1]"),
        (Redaction(patterns=("x*",)), "redact.patterns[0]"),
        (Redaction(names=("pin", "-")), "redact.names[1]"),
    ],
)
def test_what_is_no_name_or_pattern_is_said_with_its_place(
    redaction: Redaction, place: str
) -> None:
    with pytest.raises(InvalidData, match="redact") as raised:
        redaction.check()
    assert raised.value.message.startswith(place)
    assert raised.value.hint


def test_messages_are_redacted_in_every_part() -> None:
    key = KEYS["openai"]
    task = Task(text=f"use {key}", inputs={"password": "x"}, check={"k": key})
    spec = WorkerSpec(
        name="w",
        description=f"with {key}",
        options={"api_key": "x", "api_key_env": "KEY"},
        parameters={
            "type": "object",
            "properties": {"password": {"type": "string", "title": f"such as {key}"}},
        },
    )
    start = Start(run="r", task=task, pool=Pool((spec,)), policy=PolicySpec(name="p"))
    reply = Reply(
        error=key,
        text=key,
        tool_calls=(
            ToolCall("1", "w", json.dumps({"password": "x", "n": 1})),
            ToolCall(key, key, key),
        ),
        decision=Decision(calls=(PlannedCall(key, {"a": [key]}, ref=key),), answer=key),
        finish=key,
    )
    signal = Signal(id="1", run="r", kind="cancel", by="me", reason=key)
    label = Label(run="r", key="password", value="x", by="me")
    fork = Fork(
        run="f",
        origin=Origin(run="r", events=3, commit=1, hash="h", at=0),
        workers=(spec,),
        edits=(Edit("calls.1-0.value", key), Edit("task.inputs.password", "x")),
        reason=key,
    )
    made: list[Any] = [REDACTOR.start(start), REDACTOR.reply(reply), REDACTOR.task_message(fork)]
    made += [REDACTOR.message(signal), REDACTOR.message(label)]
    data = msgspec.json.encode(made).decode()
    assert key not in data
    assert '"x"' not in data
    assert '\\"x\\"' not in data
    assert made[0].pool.workers[0].parameters == {
        "type": "object",
        "properties": {"password": {"type": "string", "title": "such as [redacted:openai_key]"}},
    }
    assert made[0].pool.workers[0].options == {
        "api_key": "[redacted:api_key]",
        "api_key_env": "KEY",
    }
    assert json.loads(made[1].tool_calls[0].arguments) == {
        "password": "[redacted:password]",
        "n": 1,
    }


def test_what_holds_no_secret_is_the_very_same() -> None:
    task, reply = Task(text="How large is Chad?"), Reply(text="Very.")
    assert REDACTOR.task(task) is task
    assert REDACTOR.reply(reply) is reply


PIECES: Final = st.sampled_from(
    [
        *KEYS.values(),
        *(text for text, _ in SECRET_TEXTS),
        VALUE,
        "sk-",
        "eyJ",
        "://",
        "@",
        ":",
        "=",
        "password",
        "'",
        '"',
        "\\",
        " ",
        "[redacted:x]",
        "${secret:DB}",
        "${secret:",
        "}",
        "]",
        "api_key",
        "Cookie: ",
        "bearer ",
        "Authorization",
        "&",
        "?",
        ";",
        "-----BEGIN PRIVATE KEY-----",
        "a",
        "1",
    ]
)
TEXTS: Final = st.lists(PIECES | st.text(max_size=5), max_size=12).map("".join)
JSON: Final = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


@given(TEXTS)
def test_once_is_enough_for_texts(text: str) -> None:
    once = KNOWING.text(text)
    assert KNOWING.text(once) == once
    assert VALUE not in once


@given(JSON)
def test_once_is_enough_for_values_and_shapes_stay(value: Any) -> None:
    once = KNOWING.value(value)
    assert KNOWING.value(once) == once
    assert shape(once) == shape(value)


OWN: Final = Redaction(
    names=("pin", "customer id", 'say "it"', "grün", "a\tb", "skis"),
    patterns=(r"EMP-\d+", r"id:(?P<secret>\w+)", "^x.y$"),
)
KNOWN: Final = {
    "${secret:DB}": VALUE,
    "${secret:LINES}": "-----BEGIN THING-----\n" + "kéy \\ \U0001f511" * 9,
    "${secret:NUMBER}": "12345678",
}
PAIRS: Final = [
    (Redactor(redaction, values), Redactor(redaction, values))
    for redaction in (
        *(Redaction(), OWN, msgspec.structs.replace(OWN, patterns=())),
        *(msgspec.structs.replace(OWN, defaults=False), Redaction(defaults=False)),
    )
    for values in ({}, KNOWN)
]
for _, plain in PAIRS:
    plain.may_hold = plain._may_name = lambda text: True
"""Redactors that look quickly first, each with one that only ever goes by the definition."""

SAME: Final = str.maketrans({"s": "\u017f", "k": "\u212a", "i": "\u0130"})
"""Letters that Python takes for those of ASCII, where case doesn't matter."""
CASES: Final[list[Callable[[str], str]]] = [str, str.upper, str.title, str.swapcase]
CASES.append(lambda text: text.translate(SAME))
JOINTS: Final = ["", " ", "-", "_", ".", "__"]
WRITTEN: Final[list[Callable[[str], str]]] = [
    str,
    repr,
    json.dumps,
    lambda text: json.dumps(json.dumps(text)),
    lambda text: json.dumps(text, ensure_ascii=False),
    quote,
    quote_plus,
    lambda text: b64encode(text.encode("utf-8", "replace")).decode(),
]
NAMED: Final = st.builds(
    lambda name, joint, case, value: f"{case(name).replace(' ', joint)}{value}",
    st.sampled_from([*NAMES, *QUERY, *OWN.names]),
    st.sampled_from(JOINTS),
    st.sampled_from(CASES),
    st.sampled_from(["='hunter2'", ": hunter22", '": "hunter2"', "=hunter22&", "", "s"]),
)
PLANTS: Final = st.sampled_from([*KEYS.values(), *KNOWN.values(), "EMP-77", "id:x", "x\ny"]) | NAMED
PLANTED: Final = st.lists(
    st.text(max_size=8)
    | st.builds(lambda text, write: write(text), PLANTS, st.sampled_from(WRITTEN))
    | st.sampled_from(["?", "&", " ", "'", "\\", "\ud800", "\n"]),
    max_size=6,
).map("".join)
PLANTED_JSON: Final = st.recursive(
    st.none() | st.integers() | st.just(12345678) | PLANTED | PLANTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(PLANTED | NAMED, inner, max_size=3),
    max_leaves=8,
)


@given(PLANTED | TEXTS)
def test_the_quick_look_finds_in_texts_what_the_definition_finds(text: str) -> None:
    for quick, plain in PAIRS:
        assert quick.text(text) == plain.text(text)


@given(PLANTED_JSON | JSON)
def test_the_quick_look_finds_in_values_what_the_definition_finds(value: Any) -> None:
    try:
        data = msgspec.json.encode(value)
    except UnicodeEncodeError:  # half of a surrogate pair: refused where it is written
        data = b""
    for quick, plain in PAIRS:
        found = plain.value(value)
        assert quick.value(value) == found
        assert not data or found == value or quick.suspects(data)


@pytest.mark.parametrize("name", ['say "it"', "grün", "a\tb", "\\", "schlüssel-wort", "ski"])
def test_own_names_of_any_letters_are_found_in_json_of_any_case(name: str) -> None:
    only = Redactor(Redaction(names=(name,), defaults=False))
    for key in (name, name.upper(), name.title(), name.replace(" ", "_"), f"my {name}"):
        assert only.suspects(msgspec.json.encode({key: "x"}))
        assert only.value({key: "x"}) != {key: "x"}


@pytest.mark.parametrize("write", [str, repr, json.dumps])
def test_a_value_is_found_in_json_however_it_was_written_before(
    write: Callable[[str], str],
) -> None:
    only = Redactor(Redaction(defaults=False), {"${secret:N}": "two\nlines"})
    said = write("two\nlines")
    assert only.suspects(msgspec.json.encode([said]))
    assert "two" not in only.text(said)


def test_letters_that_are_the_same_to_a_pattern_are_so_to_the_quick_look() -> None:
    every = "".join(map(chr, (*range(0xD800), *range(0xE000, 0x110000))))
    same = "".join(re.findall(f"(?i:{'|'.join(string.ascii_lowercase)})", every))
    assert len(same) > 2 * 26
    for letter in string.ascii_letters:
        assert all(map(looking((), [letter]), re.findall(f"(?i:{letter})", same)))


def test_what_is_too_much_for_an_automaton_is_looked_into_everywhere() -> None:
    assert searching("(?:a{1000}){1000}") is None
    assert looking((), ['"' * 9_000 + str(number) for number in range(9)])("nothing at all")
    assert not looking(())("nothing to look for")


def shape(value: Any) -> Any:
    match value:
        case dict():
            return [shape(item) for item in value.values()]
        case list():
            return ["list", *map(shape, value)]
        case _:
            return None


@pytest.mark.parametrize(
    "hostile",
    [
        "sk-",
        "eyJ",
        "eyJabcdefgh.",
        "bearer ",
        "password=",
        'password="',
        "://a:",
        "://aaaaaaaaa@",
        "?&token=",
        "-----BEGIN PRIVATE KEY-----",
        "secret=a",
        "cookie: a=b;",
        "k_live_sk_live_",
        "authorization: bearer ",
        "password='[redacted:x]",
        "[redacted:x]",
        "${secret:",
        'password:\\"',
    ],
)
def test_time_grows_with_the_text_and_no_faster(hostile: str) -> None:
    def took(chars: int) -> float:
        text = (hostile * (chars // len(hostile) + 1))[:chars]
        best = 9.0
        for _ in range(3):
            begun = time.perf_counter()
            KNOWING.text(text)
            KNOWING.value({"password": text})
            best = min(best, time.perf_counter() - begun)
        return best

    # Ten times the text: thirty times the time would still be linear on a machine that stumbles.
    assert took(100_000) < 30 * took(10_000) + 0.05


def test_what_nests_without_end_is_no_trouble() -> None:
    value: list[Any] = []
    value.append(value)
    deep: Any = "x"
    for _ in range(5_000):
        deep = [deep]
    assert "too_deep" in json.dumps(REDACTOR.value(value))
    assert "too_deep" in json.dumps(REDACTOR.value(deep))


def test_references_are_found_and_filled() -> None:
    value = {
        "url": "https://${secret:U}:${secret:P}@db",
        "n": [1, "${secret:U}", "${secret:no name}"],
    }
    assert referred(value) == ["U", "P", "no name"]
    assert filled(value, str.lower) == {"url": "https://u:p@db", "n": [1, "u", "no name"]}
    assert referred({"${secret:KEY}": "$secret:U ${secret:}x"}) == [""]
