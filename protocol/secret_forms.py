"""What a secret looks like: the names under which secrets stand, and the forms of keys.

Those that are well-known stand here; `Redaction` is what a configuration, or a run, adds to them.
Only forms that are hardly ever anything else: a text that is changed by mistake is changed for
everybody who reads it, the policy included. Every pattern takes time that is linear in the text,
whatever the text is: each start of a match fails within a bounded number of characters, or takes
what it has read out of the way of the next. Only what a single character repeats is possessive: of
groups, Python 3.11 before its release 5 takes possessive ones for what they are not.
"""

import re
from collections.abc import Iterable
from typing import Final, NamedTuple, Self

import msgspec

from protocol.errors import InvalidData
from protocol.references import OPENINGS, REFERENCE

MAX_KEY_CHARS: Final = 128
"""Characters of the longest key that is taken for the name of a secret."""

MAX_NAMES: Final = 256
"""Names of one configuration: with the patterns, they fit into a run's first commit."""

MAX_PATTERNS: Final = 64
"""Patterns of one configuration: each is tried on every text of every message."""

MAX_PATTERN_CHARS: Final = 1_000
"""Characters of a pattern. A longer one is a list of secrets, or nobody can read it."""

_SPECIAL: Final = re.compile(r"[\\.^$*+?{}\[\]|()]")
"""What makes more of a pattern than the text that it is."""

NAMES: Final = (
    "password",
    "passwd",
    "passphrase",
    "secret",
    "secret key",
    "secret access key",
    "access key",
    "account key",
    "api key",
    "api token",
    "auth token",
    "access token",
    "refresh token",
    "id token",
    "session token",
    "security token",
    "bearer token",
    "private key",
    "authorization",
    "cookie",
    "credential",
    "connection string",
)
"""Under a key that ends with one of these stands a secret: ``db_password``, ``X-Api-Key``,
``clientSecret``. Case and the marks between the words don't matter. ``token`` alone is not here: it
is a page's mark or a piece of a text as often as a secret."""

HEADERS: Final = ("authorization", "cookie", "api key", "auth token", "security token")
"""Names of HTTP headers, which also come as pairs in a list."""

QUERY: Final = ("token", "sig", "signature", "client secret")
"""Further names that mean a secret only as a parameter in a URL."""

UNTOUCHED: Final = rf"(?!\[redacted:|{'|'.join(map(re.escape, OPENINGS.values()))})"
"""Not what stands for a secret already."""


class Form(NamedTuple):
    """One form of secrets."""

    what: str
    """What it is, as it stands in the text from then on: ``[redacted:what]``."""
    anchors: tuple[str, ...]
    """Texts of which a match has at least one."""
    pattern: re.Pattern[str]
    """Its group ``secret`` is what is replaced."""


def _form(what: str, anchors: str, pattern: str) -> Form:
    return Form(what, tuple(anchors.split("|")), re.compile(pattern))


FORMS: Final = (
    _form(
        "private_key",
        "PRIVATE KEY",
        r"(?s)(?P<secret>-----BEGIN (?:[A-Z0-9]{1,16} ){0,4}PRIVATE KEY(?: BLOCK)?-----"
        r".*?(?:-----END [A-Z0-9 ]{0,60}PRIVATE KEY(?: BLOCK)?-----|\Z))",
    ),
    _form("anthropic_key", "sk-ant-", r"(?P<secret>sk-ant-[A-Za-z0-9_-]{16,}+)"),
    _form(
        "openai_key",
        "sk-",
        r"(?<![A-Za-z0-9])(?P<secret>sk-(?!ant-)(?=[A-Za-z_-]{0,120}[0-9])[A-Za-z0-9_-]{20,}+)",
    ),
    _form(
        "github_token",
        "ghp_|gho_|ghu_|ghs_|ghr_|github_pat_",
        r"(?P<secret>gh[pousr]_[A-Za-z0-9]{30,}+|github_pat_[A-Za-z0-9_]{22,}+)",
    ),
    _form(
        "aws_key",
        "AKIA|ASIA",
        r"(?<![A-Za-z0-9])(?P<secret>A[KS]IA[A-Z0-9]{16})(?![A-Za-z0-9])",
    ),
    _form(
        "google_key",
        "AIza|ya29.|GOCSPX-",
        r"(?P<secret>AIza[A-Za-z0-9_-]{35,}+|(?<![A-Za-z0-9])ya29\.[A-Za-z0-9_-]{20,}+"
        r"|GOCSPX-[A-Za-z0-9_-]{20,}+)",
    ),
    _form(
        "slack_token",
        "xox|xapp-",
        r"(?<![A-Za-z0-9])(?P<secret>(?:(?:xoxe\.)?xox[abcdeoprs]|xapp)-"
        r"(?=[A-Za-z-]{0,40}[0-9])[A-Za-z0-9-]{10,}+)",
    ),
    _form(
        "slack_webhook",
        "hooks.slack.com/",
        r"hooks\.slack\.com/(?P<secret>(?:services|workflows|triggers)/[A-Za-z0-9/_-]{20,}+)",
    ),
    _form(
        "stripe_key",
        "k_live_|k_test_|whsec_",
        r"(?<![A-Za-z0-9])(?P<secret>[rs]k_(?:live|test)_[A-Za-z0-9]{10,}+"
        r"|whsec_[A-Za-z0-9+/=]{20,}+)",
    ),
    _form(
        "jwt",
        "eyJ",
        r"(?<![A-Za-z0-9_-])(?P<secret>eyJ[A-Za-z0-9_-]{8,}+\.eyJ[A-Za-z0-9_-]{4,}+"
        r"\.[A-Za-z0-9_-]{8,}+)",
    ),
    _form(
        "bearer_token",
        "bearer|Bearer|BEARER",
        r"(?<![A-Za-z0-9])(?i:bearer)[ \t]{1,4}(?P<secret>(?=[A-Za-z._~+/-]{0,120}[0-9])"
        r"[A-Za-z0-9._~+/-]{16,}+=*+)",
    ),
    _form(
        "url_password",
        "@",
        rf"://(?:{REFERENCE.pattern}|[^\s/?#@:\"'<>{{\[]){{0,128}}:"
        rf"(?P<secret>{UNTOUCHED}[^\s/?#@\"'<>]{{1,256}}+)@",
    ),
)
"""In the order in which they are looked for: the finer before the coarser."""


JOINED: Final = "[-_. ]?"
"""What may stand between the words of a name."""


def parts(name: str) -> list[str]:
    """The words of a name, as they are joined in whatever way."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name.strip("-_. "))
    return [part for part in re.split(r"[-_. ]+", spaced) if part]


def words(name: str) -> str:
    """A pattern for a name, however its words are joined."""
    return JOINED.join(map(re.escape, parts(name)))


def naming(own: Iterable[str], shipped: Iterable[str] = NAMES) -> str:
    """A pattern for the end of a name under which a secret stands.

    The shipped names are found at the end of any other (``dbpassword``), and in the plural; own
    ones only as words of their own: ``pin`` is in ``user_pin``, and not in ``spin``.
    """
    known = [f"{words(name)}s?" if name != "secret" else "secret" for name in shipped]
    known += [f"(?<![A-Za-z0-9]){words(name)}" for name in own]
    # The longer first: what is found is what the marker says.
    return "|".join(sorted(known, key=len, reverse=True)) or r"(?!)"


class Redaction(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """What is taken for a secret: in a configuration, and recorded with a run that was begun so."""

    names: tuple[str, ...] = ()
    """Further names under which secrets stand, in keys, headers and parameters."""
    patterns: tuple[str, ...] = ()
    """Further forms of secrets: regular expressions. Of one with a group ``secret``, that group is
    replaced, and else the whole match."""
    defaults: bool = True
    """Whether the well-known names and forms are looked for, too."""

    def plus(self, other: "Redaction") -> Self:
        """What either says."""
        return msgspec.structs.replace(
            self,
            names=tuple(dict.fromkeys((*self.names, *other.names))),
            patterns=tuple(dict.fromkeys((*self.patterns, *other.patterns))),
            defaults=self.defaults and other.defaults,
        )

    def union(self, other: "Redaction | None") -> Self:
        """All that either hides."""
        if other is None:
            return self
        defaults = self.defaults or other.defaults
        return msgspec.structs.replace(self.plus(other), defaults=defaults)

    def beyond(self, other: "Redaction | None") -> "Redaction | None":
        """What this hides and the other doesn't; None for nothing."""
        if other is None:
            return self
        names = tuple(name for name in self.names if name not in other.names)
        patterns = tuple(each for each in self.patterns if each not in other.patterns)
        more = self.defaults and not other.defaults
        if not (names or patterns or more):
            return None
        return Redaction(names=names, patterns=patterns, defaults=self.defaults)

    def check(self) -> None:
        """Raise `InvalidData`, naming the place, unless a run may record it.

        A name or a pattern may be none, or there may be too many: all are looked for in every text.
        """
        for what, given, most in (
            ("names", self.names, MAX_NAMES),
            ("patterns", self.patterns, MAX_PATTERNS),
        ):
            if len(given) > most:
                raise InvalidData(
                    f"redact.{what}: {len(given)} of them; at most {most} are possible",
                    hint="join some: a pattern may have alternatives",
                )
        self.check_each()

    def check_each(self) -> None:
        """Raise `InvalidData`, naming the place, if a name or a pattern is none."""
        for index, name in enumerate(self.names):
            if not words(name) or len(name) > MAX_KEY_CHARS:
                raise InvalidData(
                    f"redact.names[{index}]: {name[:MAX_KEY_CHARS]!r} is no name",
                    hint="give words, such as 'pin' or 'customer_id'",
                )
        for index, pattern in enumerate(self.patterns):
            _check_pattern(pattern, f"redact.patterns[{index}]")


def _check_pattern(pattern: str, place: str) -> None:
    if len(pattern) > MAX_PATTERN_CHARS:
        raise InvalidData(
            f"{place} has {len(pattern)} characters; at most {MAX_PATTERN_CHARS} are possible",
            hint="make several of it",
        )
    place = f"{place}: {pattern!r}"
    try:
        found = re.compile(pattern)
    except (re.error, ValueError, RecursionError, OverflowError) as error:
        raise InvalidData(
            f"{place} is no regular expression: {error}",
            hint="write it as for Python's re module, between single quotes in TOML",
        ) from None
    if found.search(""):
        raise InvalidData(
            f"{place} fits an empty text, and so would be everywhere",
            hint="have it need a character: + in place of *",
        )
    if not _SPECIAL.search(pattern):
        raise InvalidData(
            f"{place} spells out what it hides, and every run records its patterns",
            hint="give a secret by its value: it is never recorded: export PODIUM_SECRET_NAME=…",
        )


EVERYTHING: Final = Redaction()
"""The well-known names and forms."""
