"""Text to query: which family a question belongs to, and what it asks. Never a guess."""

import re
from collections.abc import Iterator
from typing import Final

from actors.policies.rules import arithmetic, frame
from actors.policies.rules.lexer import MAX_QUESTION_CHARS, MAX_TOKENS, Token, tokens
from actors.policies.rules.tree import Query, RunPython, Search

_PUNCTUATION: Final = ".,:;?!()\"'“”\u2018\u2019`"

MAX_SENTENCES: Final = 8
"""Questions asked in one text."""

_CODE: Final = re.compile(
    r"""(?:please\s+|can\s+you\s+|could\s+you\s+)*
    (?:(?:(?:run|execute|evaluate|eval|try)
       | what\s+does | what\s+is\s+the\s+(?:output|result)\s+of)
       (?:\s+(?:this|the|that|following|some))*
       \s+(?:python3?(?:\s+(?:code|script|program|snippet|expression))?|code|script|snippet)\b
       (?:\s+(?:print|output|return|give|do|produce))?(?=\W)
     | python3?(?=\s*[:`]|[ ]*\n)
     | run(?=\s*`)
    )
    (?:\s+(?:for\s+me|in\s+the\s+sandbox
       | and\s+(?:tell|show|give)\s+me\s+(?:the\s+)?(?:output|result)))*
    \s*[:?]?\s*(?P<code>.*)""",
    re.VERBOSE | re.IGNORECASE | re.DOTALL,
)
"""What stands before code. Between two words only white space is matched once: it stays linear."""

_FENCE: Final = re.compile(r"```(?:python3?|py)?[ \t]*\n?(.*?)```|`([^`]+)`", re.DOTALL)

_LIBRARY: Final = re.compile(
    r"\b(?:documents?|docs|documentation|corpus|texts|files|passages?)\b", re.I
)

_SEARCH_VERB: Final = re.compile(r"(?:please\s+)?(?:search|look)\s*(?:for|:|up\s+in)\s*\S", re.I)

_FRAMING: Final = frozenset(
    [
        "a",
        "about",
        "according",
        "all",
        "an",
        "and",
        "any",
        "anything",
        "are",
        "article",
        "as",
        "can",
        "check",
        "concerning",
        "contain",
        "containing",
        "contains",
        "could",
        "describe",
        "described",
        "discuss",
        "do",
        "does",
        "document",
        "documentation",
        "documents",
        "docs",
        "corpus",
        "explain",
        "every",
        "everything",
        "excerpts",
        "extract",
        "file",
        "files",
        "find",
        "folder",
        "for",
        "from",
        "full",
        "full-text",
        "get",
        "give",
        "have",
        "help",
        "i",
        "in",
        "information",
        "inside",
        "into",
        "is",
        "it",
        "know",
        "learn",
        "library",
        "like",
        "look",
        "me",
        "mention",
        "mentioned",
        "mentions",
        "my",
        "of",
        "on",
        "one",
        "our",
        "out",
        "paragraph",
        "paragraphs",
        "passage",
        "passages",
        "please",
        "query",
        "read",
        "regarding",
        "report",
        "reports",
        "say",
        "says",
        "search",
        "see",
        "shipped",
        "show",
        "something",
        "state",
        "stated",
        "tell",
        "text",
        "texts",
        "that",
        "the",
        "their",
        "there",
        "these",
        "they",
        "this",
        "those",
        "through",
        "to",
        "topic",
        "up",
        "us",
        "using",
        "want",
        "we",
        "what",
        "where",
        "whether",
        "which",
        "within",
        "would",
        "written",
        "you",
        "your",
        "said",
        "talk",
        "talks",
        "mentioning",
        "with",
        "how",
    ]
)
"""Words around what is to be searched: "What do the documents say about ..."."""


def parse(text: str) -> Query | tuple[Query, ...] | None:
    """What a text asks; several queries for several sentences; None if it can't be read."""
    stripped = text.strip()
    code = _code(stripped)
    if code is not None:
        return code
    if len(stripped) > MAX_QUESTION_CHARS:
        return None
    search = _search(stripped)
    if search is not None:
        return search
    whole = arithmetic.pure(stripped)
    if whole is not None:
        return whole
    queries = [_sentence(sentence) for sentence in _sentences(tokens(stripped))]
    if not queries or len(queries) > MAX_SENTENCES or not all(queries):
        return None
    read = tuple(query for query in queries if query is not None)
    return read[0] if len(read) == 1 else read


def _sentences(found: list[Token]) -> Iterator[list[Token]]:
    sentence: list[Token] = []
    for token in found:
        if token.kind != "end":
            sentence.append(token)
        elif sentence:
            yield sentence
            sentence = []
    if sentence:
        yield sentence


def _sentence(sentence: list[Token]) -> Query | None:
    if len(sentence) > MAX_TOKENS:
        return None
    return frame.read(sentence) or arithmetic.read(sentence)


def _code(text: str) -> RunPython | None:
    match = _CODE.fullmatch(text)
    if match is None:
        return None
    rest = match["code"].strip()
    fenced = _FENCE.search(rest)
    code = (fenced[1] or fenced[2] or "") if fenced else rest
    return RunPython(code.strip("\n")) if code.strip() else None


def _search(text: str) -> Search | None:
    """What is left of a question about documents without the words around its subject."""
    if not _LIBRARY.search(text) and not _SEARCH_VERB.match(text):
        return None
    words = [word.strip(_PUNCTUATION) for word in text.split()]
    words = [word for word in words if word]
    plain = [word.casefold() for word in words]
    first, last = 0, len(words)
    while first < last and plain[first] in _FRAMING:
        first += 1
    while last > first and plain[last - 1] in _FRAMING:
        last -= 1
    query = " ".join(words[first:last])
    return Search(query) if query else None
