"""What a secret looks like: the names under which secrets stand, and the forms of well-known keys.

Only forms that are hardly ever anything else: a text that is changed by mistake is changed for
everybody who reads it, the policy included. Every pattern takes time that is linear in the text,
whatever the text is: each start of a match fails within a bounded number of characters, or takes
what it has read out of the way of the next.
"""

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

from protocol.references import OPENING, REFERENCE

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

UNTOUCHED: Final = rf"(?!\[redacted:|{re.escape(OPENING)})"
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
        rf"://(?:{REFERENCE.pattern}|[^\s/?#@:\"'<>{{\[]){{0,128}}+:"
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
