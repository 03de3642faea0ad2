"""Formats: what is kept of a unit as bytes, one format a module.

A module has `SUFFIX`, of its files; `KINDS`, of which data sets it can be; and `begin`, which gives
a `Writer`. None of them knows where its bytes go.
"""

import importlib
from typing import Any, BinaryIO, Final, Protocol

from protocol.errors import Usage
from trainer.datasets.made import Made
from trainer.datasets.spec import Format, Spec

MODULES: Final[dict[Format, str]] = {
    "parquet": "canonical",
    "trl": "trl",
    "verl": "verl",
    "prime-rl": "prime_rl",
    "verifiers": "verifiers",
    "openai": "openai",
    "atif": "atif",
}


class Writer(Protocol):
    """One file that is written."""

    @property
    def rows(self) -> int:
        """How many it has."""
        ...

    @property
    def bytes(self) -> int:
        """How many it has, roughly, before compression."""
        ...

    def add(self, made: Made) -> None:
        """Write a unit; what can't be written is added to its notes."""
        ...

    def close(self) -> None:
        """Write the end of the file."""
        ...


def module(spec: Spec) -> Any:
    """The module of a spec's format. Raises `Usage` if it has no rows of that kind."""
    found = importlib.import_module(f"trainer.datasets.formats.{MODULES[spec.format]}")
    if spec.kind not in found.KINDS:
        others = [
            name
            for name, each in MODULES.items()
            if spec.kind in importlib.import_module(f"trainer.datasets.formats.{each}").KINDS
        ]
        raise Usage(
            f"the format {spec.format} has no rows of kind {spec.kind!r}",
            hint=f"Use one of: {', '.join(others)}.",
        )
    return found


def writer(file: BinaryIO, spec: Spec) -> Writer:
    """What writes a file of a data set."""
    made: Writer = module(spec).begin(file, spec)
    return made
