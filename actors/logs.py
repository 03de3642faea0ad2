"""Where processes log to, without secrets: error texts of users' code come through here as well."""

import logging
import sys
from collections.abc import Mapping

from actors.secrets import ambient
from protocol.redaction import Redactor
from protocol.secret_forms import EVERYTHING, Redaction


class RedactingFormatter(logging.Formatter):
    """A formatter that takes secrets out of whole records, their tracebacks included."""

    def __init__(self, text: str, redactor: Redactor) -> None:
        super().__init__(text)
        self._redactor = redactor

    def format(self, record: logging.LogRecord) -> str:
        """The record as one text."""
        return self._redactor.text(super().format(record))


def log_to(
    path: str,
    name: str = "",
    redaction: Redaction = EVERYTHING,
    values: Mapping[str, str] | None = None,
) -> None:
    """Log to a file that many processes share, or to stderr.

    Args:
        path: The file; "" for stderr.
        name: Who logs, before each line.
        redaction: What is taken for a secret.
        values: Secrets that this process holds, by what is put in their place.
    """
    handler = logging.FileHandler(path) if path else logging.StreamHandler(sys.stderr)
    text = f"%(asctime)s {name} %(message)s" if name else "%(asctime)s %(message)s"
    handler.setFormatter(
        RedactingFormatter(text, Redactor(redaction, {**ambient(), **(values or {})}))
    )
    logging.basicConfig(level=logging.INFO, handlers=[handler])
