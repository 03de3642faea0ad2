"""The configuration: where the servers are, which pool and policy, how durable.

Each layer overrides the one before: defaults < ``podium.toml`` < ``PODIUM_*`` variables < flags. A
variable names its place with two underscores: ``PODIUM_NATS__URL`` is ``url`` of ``[nats]``. An
unknown key is an error that names its path. `Loaded.origins` says where each value came from.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec

from protocol.actions import MICRO
from protocol.budgets import Budget, OnLimit
from protocol.errors import InvalidData, NotFound, Usage
from protocol.secret_forms import Redaction
from protocol.subjects import MAX_SHARDS
from replay.durability import Durability

FILE: Final = "podium.toml"
"""The file that is read from the working folder, if it is there."""

PREFIX: Final = "PODIUM_"
"""Of the environment variables that configure Podium."""

FILE_VARIABLE: Final = "PODIUM_CONFIG"
"""Names another configuration file."""

SERVE_TOKENS: Final = "PODIUM_SERVE_TOKENS"
"""Has the tokens that `podium serve` lets in, if no other variable is named."""

OTHER_VARIABLES: Final = frozenset({FILE_VARIABLE, SERVE_TOKENS, "PODIUM_DOCUMENTS"})
"""Variables with our prefix that are no fields of the configuration."""

SECRETS: Final = "PODIUM_SECRET_"
"""What variables begin with that hold secrets, and configure nothing."""

Whole = Annotated[int, msgspec.Meta(ge=0, le=10**15)]
Age = Annotated[str, msgspec.Meta(pattern=r"^([0-9]{1,6}[smhd])?$")]
"""A length of time as people write it: 90s, 15m, 12h, 30d."""

Positive = Annotated[float, msgspec.Meta(gt=0, le=10**9)]

MIN_LEASE_S: Final = 2
"""Seconds. An owner learns only after `replay.broker.ANSWER_S` that a request of its is lost; a
shorter lease is gone by then, and runs change hands although nobody has failed."""

MAX_LEASE_S: Final = 20
"""Seconds. A run that brings down each of its conductors is stopped, which takes that the next one
has it within `protocol.limits.IDLE_WINDOW_MS` (30 s): lease and start together."""


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the configuration."""


class Nats(_Section, frozen=True, kw_only=True):
    """Where the broker is."""

    url: str = ""
    """Of a running broker, such as ``nats://host:4222``; empty starts one in ``folder``."""
    credentials: str = ""
    """Path of a credentials file for that broker: of a user that may do what a conductor does."""
    worker_credentials: str = ""
    """Of a user that may do what a worker does; empty for the same as ``credentials``."""
    client_credentials: str = ""
    """Of a user that may do what a client does; empty for the same as ``credentials``."""
    system_credentials: str = ""
    """Of a user of its system account, by whom its durability is read; empty if there is none."""

    def credentials_of(self, role: str) -> str:
        """The path for ``conductor``, ``worker``, ``client`` or ``system``."""
        own = {
            "worker": self.worker_credentials,
            "client": self.client_credentials,
            "tracer": self.client_credentials,
            "system": self.system_credentials,
        }
        return own.get(role) or self.credentials


class RayCluster(_Section, frozen=True, kw_only=True):
    """Where Ray is."""

    address: str = ""
    """Of a running cluster, such as ``ray://host:10001`` or ``auto``; empty starts one here."""


class SecretsTable(_Section, frozen=True, kw_only=True):
    """Where workers find the secrets that they declare, besides their environment."""

    path: str = ""
    """A folder with a file for each, or a file with lines ``NAME=value``, where the workers run."""

    def place(self) -> str:
        """`path`, absolute; "" for none."""
        return str(Path(self.path).expanduser().absolute()) if self.path else ""


class RedactTable(Redaction, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[redact]``. What a log records of it may have keys that this version doesn't know."""


class Archive(_Section, frozen=True, kw_only=True):
    """Where finished runs go."""

    url: str = ""
    """Such as ``s3://bucket/podium``; empty for ``archive`` in ``folder``."""
    after: Age = ""
    """How long after its end a standing deployment archives a run, such as ``30d``; empty for
    never by itself."""


class BudgetTable(_Section, frozen=True, kw_only=True):
    """What a run may spend, in the units that people use. What is not given is not changed."""

    rounds: Whole | None = None
    calls: Whole | None = None
    parallel: Whole | None = None
    depth: Whole | None = None
    tokens: Whole | None = None
    cost_usd: Annotated[float, msgspec.Meta(ge=0, le=10**6)] | None = None
    wall_s: Annotated[float, msgspec.Meta(ge=0, le=10**9)] | None = None
    on_limit: OnLimit | None = None

    def over(self, budget: Budget) -> Budget:
        """``budget`` with what is given here in its place."""
        given: dict[str, Any] = {
            name: value
            for name in ("rounds", "calls", "parallel", "depth", "tokens", "on_limit")
            if (value := getattr(self, name)) is not None
        }
        if self.cost_usd is not None:
            given["cost"] = round(self.cost_usd * MICRO)
        if self.wall_s is not None:
            given["wall_ms"] = round(self.wall_s * 1_000)
        return msgspec.structs.replace(budget, **given)


class Trace(_Section, frozen=True, kw_only=True):
    """Traces and metrics by OpenTelemetry. Everything else about it: the ``OTEL_*`` variables."""

    enabled: bool = True
    """False exports nothing, whatever the variables say."""
    endpoint: str = ""
    """Where an OTLP backend takes HTTP, such as ``http://localhost:4318``; empty for what
    ``OTEL_EXPORTER_OTLP_ENDPOINT`` says, and for nothing if it says nothing."""
    content: bool = False
    """Whether tasks, arguments, results and answers are part of the spans."""
    messages: bool = False
    """Whether each attempt has the spans of its message, too: published, processed."""
    metrics: bool = True


class Config(_Section, frozen=True, kw_only=True):
    """All that can be configured."""

    nats: Nats = Nats()
    ray: RayCluster = RayCluster()
    budget: BudgetTable = BudgetTable()
    """Over what the pool's file says, under the flags."""
    redact: RedactTable = RedactTable()
    """What is taken for a secret besides what the pool's file says."""
    secrets: SecretsTable = SecretsTable()
    trace: Trace = Trace()
    archive: Archive = Archive()
    folder: str = ".podium"
    """Where the embedded broker keeps its data, and a standing deployment its record."""
    durability: Durability = "process"
    """What acknowledged data survive: any process's crash, a power cut, the loss of a machine."""
    policy: str = ""
    """``rules``, or ``openai:MODEL``; empty takes the pool's own."""
    pool: str = ""
    """Path of a pool file; empty takes the pool that is shipped."""
    lease_s: Annotated[float, msgspec.Meta(ge=MIN_LEASE_S, le=MAX_LEASE_S)] = 10.0
    """Seconds after which a silent conductor's runs, and a silent worker's calls, go to another."""
    shards: Annotated[int, msgspec.Meta(ge=1, le=MAX_SHARDS)] = 1
    """Streams over which the runs of a new deployment are spread."""

    def path(self) -> Path:
        """`folder`, absolute."""
        return Path(self.folder).expanduser().absolute()


class Loaded(msgspec.Struct, frozen=True):
    """A configuration, and where each of its values came from."""

    config: Config
    origins: dict[str, str]
    """By dotted path: ``default``, a file's path, a variable's name, or ``flag``."""


Tree = dict[str, Any]

_UNITS_MS: Final = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def age_ms(text: str) -> int:
    """Milliseconds of an `Age`. Raises `Usage` for a text that is none."""
    number, unit = text[:-1], text[-1:]
    if not (number.isascii() and number.isdecimal()) or len(number) > 6 or unit not in _UNITS_MS:
        raise Usage(f"{text!r} is no length of time.", hint="Write 90s, 15m, 12h or 30d.")
    return int(number) * _UNITS_MS[unit]


def load(
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
) -> Loaded:
    """Read the configuration.

    Args:
        folder: Where ``podium.toml`` is looked for; the working folder by default.
        environment: The variables; those of the process by default.
        flags: Values of flags by dotted path, such as ``{"nats.url": "nats://…"}``. None and
            empty texts are not given.

    Raises:
        NotFound: ``PODIUM_CONFIG`` names a file that isn't there.
        Usage: A file or a variable can't be read; the message has the place.
    """
    variables = os.environ if environment is None else environment
    tree: Tree = {}
    origins = {path: "default" for path, _ in leaves(msgspec.to_builtins(Config()))}
    file = _file(folder or Path.cwd(), variables)
    if file is not None:
        table = _checked(_read(file), str(file), strict=True)
        _merge(tree, table, str(file), origins)
    for name in sorted(variables):
        if name.startswith(PREFIX) and not name.startswith(SECRETS) and name not in OTHER_VARIABLES:
            _merge(tree, _from_variable(name, variables[name]), name, origins)
    for path, value in (flags or {}).items():
        if value is not None and value != "":
            table = _checked(_nested(path.split("."), value), f"flag for {path}", strict=False)
            _merge(tree, table, "flag", origins)
    return Loaded(msgspec.convert(tree, Config, strict=False), origins)


def _file(folder: Path, variables: Mapping[str, str]) -> Path | None:
    named = variables.get(FILE_VARIABLE)
    if named:
        path = Path(named).expanduser()
        if not path.is_file():
            raise NotFound(
                f"{FILE_VARIABLE} names {named}, which is no file.",
                hint=f"Write that file, or unset {FILE_VARIABLE}.",
            )
        return path
    path = folder / FILE
    return path if path.is_file() else None


def _read(file: Path) -> Tree:
    try:
        table: Tree = msgspec.toml.decode(file.read_bytes())
    except (OSError, ValueError) as error:
        raise Usage(f"{file} can't be read: {error}", hint="Mend the line it names.") from None
    return table


def _checked(table: Tree, where: str, *, strict: bool) -> Tree:
    """The table, if it fits `Config`; its values as they stand there."""
    try:
        made = msgspec.convert(table, Config, strict=strict)
        made.redact.check()
    except msgspec.ValidationError as error:
        raise Usage(f"{where}: {error}", hint=cure(str(error), Config)) from None
    except InvalidData as error:
        raise Usage(f"{where}: {error.message}", hint=error.hint) from None
    return table


def _from_variable(name: str, value: str) -> Tree:
    keys = name.removeprefix(PREFIX).lower().split("__")
    return _checked(_nested(keys, value), f"environment variable {name}", strict=False)


def _nested(keys: list[str], value: Any) -> Tree:
    for key in reversed(keys):
        value = {key: value}
    tree: Tree = value
    return tree


def _merge(into: Tree, table: Tree, origin: str, origins: dict[str, str]) -> None:
    for path, value in leaves(table):
        *keys, last = path.split(".")
        place = into
        for key in keys:
            place = place.setdefault(key, {})
        place[last] = value
        origins[path] = origin


def leaves(table: Mapping[str, Any], above: str = "") -> list[tuple[str, Any]]:
    """The values of nested tables by dotted path, in their order."""
    found: list[tuple[str, Any]] = []
    for key, value in table.items():
        if isinstance(value, Mapping):
            found += leaves(value, f"{above}{key}.")
        else:
            found.append((f"{above}{key}", value))
    return found


def cure(error: str, kind: type[msgspec.Struct]) -> str:
    """What to do about a `msgspec.ValidationError`: the keys that are known where one isn't."""
    if missing := re.search("missing required field `(?P<key>[^`]+)`", error):
        return f"Add to it: {missing['key']} = …"
    if "unknown field" not in error:
        return "Change that value."
    path = error.rpartition("`$")[2].strip("`") if "- at `$" in error else ""
    known: Any = kind
    for key in path.replace("[...]", "").split("."):
        name = key.partition("[")[0]
        if name:
            known = _struct(_types(known).get(name))
    keys = list(_types(known))
    return f"Known there: {', '.join(keys)}." if keys else "Remove that key."


def _types(kind: Any) -> dict[str, Any]:
    if not isinstance(kind, type) or not issubclass(kind, msgspec.Struct):
        return {}
    return {field.encode_name: field.type for field in msgspec.structs.fields(kind)}


def _struct(kind: Any) -> Any:
    """The struct inside of ``tuple[Struct, ...]`` or ``Struct | None``."""
    for inner in getattr(kind, "__args__", ()):
        if isinstance(inner, type) and issubclass(inner, msgspec.Struct):
            return inner
    return kind
