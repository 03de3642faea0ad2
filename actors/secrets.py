"""Secrets in a worker's process: resolved here and nowhere else, and taken out of all that leaves.

A worker's entry in the pool declares the names that may be resolved for it. Their values come from
the environment (``PODIUM_SECRET_NAME``), or from the folder or file that the configuration names.
"""

import os
from collections.abc import Mapping
from copy import copy
from pathlib import Path
from typing import Final

import msgspec

from actors.ports import Attempt, Outcome
from actors.workers.outcomes import failure
from protocol.actions import WorkerSpec
from protocol.errors import Denied, InvalidData
from protocol.limits import MAX_FILLED_BYTES
from protocol.redaction import Redactor, well_known
from protocol.references import filled, is_name, reference, referred
from protocol.schemas import filled_arguments, misfit
from protocol.secret_forms import Redaction
from protocol.secret_search import MIN_SECRET_CHARS

PREFIX: Final = "PODIUM_SECRET_"
"""Of the environment variables that hold secrets."""

MAX_SECRET_BYTES: Final = 65_536
"""Bytes of one secret, and of a file with several: a certificate's chain is a few thousand."""


class Outputs:
    """Gives the outputs that are put into arguments, as long as there is room.

    Args:
        fill: Their texts by call, see `Attempt.fill`.
    """

    def __init__(self, fill: Mapping[str, str | None]) -> None:
        self._fill = fill
        self.room = MAX_FILLED_BYTES
        """Bytes that are left; below 0, there was too much."""

    def __call__(self, call: str) -> str:
        """The text that stands in place of a reference; of one that is none, the reference."""
        if call not in self._fill:
            return reference(call, "output")
        text = self._fill[call]
        self.room = -1 if text is None else self.room - len(msgspec.json.encode(text))
        return text if text is not None and self.room >= 0 else ""


class Secrets:
    """The secrets of one worker.

    Args:
        redactor: What else is taken out of what the worker says.
        declared: Names that may be resolved.
        values: The values, by name; of names that have none, nothing.
        keys: Further values that never leave, by what is said in their place.
    """

    def __init__(
        self,
        redactor: Redactor | None = None,
        declared: tuple[str, ...] = (),
        values: Mapping[str, str] | None = None,
        keys: Mapping[str, str] | None = None,
    ) -> None:
        self._declared = declared
        self._values = dict(values or {})
        self.known = {reference(name): value for name, value in self._values.items()}
        """All that never leaves, by what is said in its place."""
        self.known |= keys or {}
        base = redactor or well_known()
        self.redactor = Redactor(base.redaction, self.known) if self.known else base

    @classmethod
    def of(cls, spec: WorkerSpec, redactor: Redactor, path: str = "") -> "Secrets":
        """Those that a worker declares, as far as they are there, and the key of its endpoint.

        Raises:
            InvalidData: One can't be a secret: too short to be found again, no text.
        """
        values = {}
        for name in spec.secrets:
            value = find(name, path)
            if value is not None:
                values[name] = usable(name, value)
        # Of the others, too, none may leave: a tool can read its environment.
        return cls(redactor, spec.secrets, values, ambient() | endpoint_keys(spec))

    def also(self, recorded: Redaction | None, run: str) -> "Secrets":
        """These, for a run that recorded what else is a secret. Raises as `Redactor.also`."""
        redactor = self.redactor.also(recorded, run)
        if redactor is self.redactor:
            return self
        made = copy(self)
        made.redactor = redactor
        return made

    def options(self, spec: WorkerSpec) -> WorkerSpec:
        """The worker as its adapter needs it: with the values in its options.

        Raises:
            Denied: One is not declared, or has no value here.
        """
        problem = self._problem(referred(spec.options), f"the options of the worker {spec.name}")
        if problem is not None:
            what, hint, _ = problem
            raise Denied(what, hint=hint)
        return msgspec.structs.replace(spec, options=filled(spec.options, self._values.__getitem__))

    def attempt(self, attempt: Attempt, spec: WorkerSpec) -> Attempt | Outcome:
        """The attempt with the values in its arguments, and the outputs that these refer to.

        Or what is wrong with a reference. All are filled in one pass: no output spells a secret's.
        """
        names = referred(attempt.arguments)
        if not names and not attempt.fill:
            return attempt
        problem = self._problem(names, f"the arguments of the worker {spec.name}")
        if problem is not None:
            what, hint, declared = problem
            text = f"{what[0].upper()}{what[1:]}: {hint}."
            if declared:
                return failure("EXEC_ERR", "infrastructure", text)
            return failure("PARSE_ERR", "policy", text)
        outputs = Outputs(attempt.fill)
        arguments = filled_arguments(
            spec.parameters, attempt.arguments, outputs, self._values.__getitem__
        )
        if outputs.room < 0:
            text = (
                f"The outputs that the arguments refer to have more than {MAX_FILLED_BYTES} "
                "bytes. Have a worker see them instead, or find a shorter one."
            )
            return failure("PARSE_ERR", "policy", text)
        if attempt.fill and (wrong := misfit(spec.parameters, arguments)):
            return failure("PARSE_ERR", "policy", f"With the outputs put in: {wrong}.")
        return msgspec.structs.replace(attempt, arguments=arguments)

    def _problem(self, names: list[str], where: str) -> tuple[str, str, bool] | None:
        """What is wrong, how to mend it, and whether the name is declared."""
        for name in names:
            if not is_name(name):
                what = f"{where} refer to a secret {name!r}, which is no secret's name"
                return what, "letters, digits and _ make a name, and a letter begins it", False
            if name not in self._declared:
                what = f"{where} refer to the secret {name}, which the worker does not declare"
                return what, f'add secrets = ["{name}"] to its entry in the pool file', False
            if name not in self._values:
                what = f"{where} refer to the secret {name}, which has no value where it runs"
                return what, f"set {PREFIX}{name} there, and start the deployment again", True
        return None


def ambient(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """The secrets in the environment, by their references: no process may say one."""
    variables = os.environ if environment is None else environment
    return {
        reference(variable.removeprefix(PREFIX)): value
        for variable, value in variables.items()
        if variable.startswith(PREFIX) and is_name(variable.removeprefix(PREFIX))
    }


def find(name: str, path: str, environment: Mapping[str, str] | None = None) -> str | None:
    """A secret's value; None if there is none.

    Args:
        name: Its name.
        path: A folder with one file for each secret, or a file with lines ``NAME=value``; "" for
            neither.
        environment: The variables; those of the process by default. They come first.

    Raises:
        InvalidData: The file can't be read.
    """
    variables = os.environ if environment is None else environment
    if (value := variables.get(f"{PREFIX}{name}")) is not None:
        return value
    if not path:
        return None
    place = Path(path).expanduser()
    try:
        if place.is_dir():
            file = place / name
            return _read(file).strip("\r\n") if file.is_file() else None
        return _lines(_read(place)).get(name) if place.exists() else None
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidData(
            f"the secret {name} can't be read from {place}: {error}",
            hint="it must be a text, and readable for whoever runs the workers",
        ) from None


def usable(name: str, value: str) -> str:
    """The value, if it can be kept out of the log. Raises `InvalidData`."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidData(f"the secret {name} is no text", hint="give it as base64") from None
    if len(value) < MIN_SECRET_CHARS:
        raise InvalidData(
            f"the secret {name} has {len(value)} characters, and could not be found again in what "
            "the worker says",
            hint=f"use one of at least {MIN_SECRET_CHARS} characters",
        )
    return value


def endpoint_keys(spec: WorkerSpec) -> dict[str, str]:
    """The key of an agent's endpoint, by what is said in its place, and of its tools' endpoints."""
    from actors.workers.agent import KIND
    from actors.workers.agent.chat import KEY_ENV, key_from
    from actors.workers.agent.toolbox import within

    keys: dict[str, str] = {}
    for each in (spec, *within(spec)):
        variable = each.options.get("api_key_env", KEY_ENV)
        if each.adapter.partition(":")[0] == KIND and isinstance(variable, str):
            keys |= named_keys(variable, key_from(variable))
    return keys


def named_keys(variable: str, value: str) -> dict[str, str]:
    """A key from an environment variable, by what is said in its place."""
    return {f"[redacted:{variable}]": value} if value else {}


def _read(file: Path) -> str:
    with file.open("rb") as opened:
        data = opened.read(MAX_SECRET_BYTES + 1)
    if len(data) > MAX_SECRET_BYTES:
        raise OSError(f"{file} has more than {MAX_SECRET_BYTES} bytes")
    return data.decode()


def _lines(text: str) -> dict[str, str]:
    """``NAME=value`` lines; a value may stand in quotes, and ``#`` begins a comment's line."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        name, between, value = line.strip().removeprefix("export ").partition("=")
        if between and not name.startswith("#"):
            value = value.strip()
            if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
                value = value[1:-1]
            found[name.strip()] = value
    return found
