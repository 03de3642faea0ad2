"""The policy of a pool file: ``[pool] policy = "…"`` for its name, ``[policy]`` to say more of it.

::

    [policy]
    name = "openai:qwen3-4b"        # or "local:FOLDER", "rules", "static:FILE", "python:…"
    base_url = "http://127.0.0.1:8000/v1"
    dialect = "hermes"
    naming = "numbers"
    temperature = 0.7

What is said here is recorded with each run, so that a replay renders the same prompts. `chosen`
gives the policy that a command means; its name alone finds the table again.
"""

import json
import os
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec

from podium.config import BudgetTable, Positive, Whole
from protocol.actions import MICRO, Json, Spend
from protocol.decisions import SLOTTED, Dialect, Naming, PolicySpec, ReplanOn, asked
from protocol.errors import InvalidData, PodiumError, Usage
from protocol.redaction import Redactor
from protocol.secret_forms import Redaction

MAX_PLAN_BYTES: Final = 32_768
"""Bytes of a plan's file: it is recorded in the first commit, beside the pool and the task."""

MAX_SYSTEM_CHARS: Final = 8_000
"""Characters of a job's description: two pages, in every prompt."""

_ANYONES: Final = frozenset({"name", "serial"})
"""What may be said of any policy; all else is a model's."""

_MODELS: Final = frozenset(
    {"dialect", "naming", "system", "temperature", "max_tokens", "timeout_s", "reserve_tokens"}
    | {"replan_on"}
)
"""What may be said of any model."""

_ENDPOINTS: Final = frozenset(
    {"base_url", "api_key_env", "price_in", "price_out", "extra", "reserve_cost_usd"}
)
"""What may be said of an endpoint, besides."""

_LOCALS: Final = frozenset({"top_p", "top_k", "seed", "template", "batching"})
"""What may be said of a model of ours, besides."""

Price = Annotated[float, msgspec.Meta(ge=0, le=10**6)]


class PolicyTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[policy]``."""

    name: str
    """``rules``, ``conductor``, ``openai:MODEL``, ``local:FOLDER``, ``static:FILE``,
    ``python:module:name``; before each of them ``written:WORKER:``."""
    dialect: Literal["openai", "hermes", "lists", "compact", "slots"] | None = None
    """How the model speaks; native tool calls by default, and ``hermes`` for a model of ours."""
    naming: Naming | None = None
    """Whether it is shown its workers' names, or numbers; numbers by default in lists, and always
    in dialects of slots."""
    system: Annotated[str, msgspec.Meta(max_length=MAX_SYSTEM_CHARS)] | None = None
    """Its job, in place of the dialect's own text; tools and form are added to it."""
    base_url: str | None = None
    api_key_env: str | None = None
    """The environment variable that has the key, where the conductor runs."""
    temperature: Annotated[float, msgspec.Meta(ge=0, le=100)] | None = None
    max_tokens: Annotated[int, msgspec.Meta(ge=1, le=10**7)] | None = None
    price_in: Price | None = None
    """US dollars per million tokens read."""
    price_out: Price | None = None
    """US dollars per million tokens written."""
    extra: dict[str, Json] | None = None
    """Further fields of each request, such as ``top_p``."""
    timeout_s: Positive | None = None
    """Seconds that one reply may take."""
    reserve_tokens: Whole | None = None
    """The most that one reply may spend; held back from the budget while it is waited for."""
    reserve_cost_usd: Price | None = None
    top_p: Annotated[float, msgspec.Meta(gt=0, le=1)] | None = None
    """Of a model of ours, like all up to ``batching``: see `actors.models.question.Sampling`."""
    top_k: Annotated[int, msgspec.Meta(ge=0, le=10**7)] | None = None
    seed: Annotated[int, msgspec.Meta(ge=0, le=2**53)] | None = None
    template: dict[str, Json] | None = None
    """Values for its chat template, such as ``enable_thinking``."""
    batching: dict[str, Json] | None = None
    """How it is hosted, see `actors.models.serving.Batching`."""
    replan_on: ReplanOn | None = None
    """When it is asked although calls go on."""
    serial: bool = False
    """Whether its calls are made one at a time: the same decisions, to see what parallelism
    brings."""


def named(
    name: str, table: PolicyTable | None, path: Path, redact: Redaction | None = None
) -> tuple[str, PolicySpec | None]:
    """Name and description of a pool file's policy; None where its name says it all.

    Args:
        name: As ``[pool]`` has it.
        table: ``[policy]``, if there is one.
        path: The pool file.
        redact: What the file takes for a secret.

    Raises:
        Usage: It can't be made as it stands there.
    """
    if table is None:
        if not asked(name).startswith(("static:", "local:")):
            return name, None
        table = PolicyTable(name=name)
    elif name:
        raise Usage(
            f"{path}: the policy is named twice, in [pool] and in [policy].",
            hint=f"Take policy = {name!r} out of [pool], or the table [policy].",
        )
    try:
        spec = _described(table, path.parent)
        if spec is not None:
            _check_secrets(spec, Redactor(redact or Redaction()))
    except PodiumError as error:
        raise Usage(f"{path}: [policy]: {error.message}", hint=error.hint) from None
    return (table.name, None) if spec is None else (spec.name, spec)


def budget(table: PolicyTable | None, given: BudgetTable, path: Path) -> BudgetTable:
    """The pool file's budget: for a serial policy, of one call at a time."""
    if table is None or not table.serial:
        return given
    if given.parallel not in (None, 1):
        raise Usage(
            f"{path}: [policy] says serial = true, and [budget] parallel = {given.parallel}.",
            hint="Take one of them out: serial is parallel = 1.",
        )
    return msgspec.structs.replace(given, parallel=1)


def chosen(name: str, own: str, spec: PolicySpec | None) -> PolicySpec:
    """The policy that is meant.

    Args:
        name: What a command or the configuration names; "" for the pool's own.
        own: The pool's own.
        spec: Its description, if its name doesn't say it all.

    Raises:
        Usage: There is no such policy.
        NotFound: A policy of the user's own that can't be imported.
    """
    return spec if spec is not None and name in ("", own) else policy_spec(name or own)


def policy_spec(name: str) -> PolicySpec:
    """What a run records of the policy that is asked for by this name.

    Raises:
        Usage: There is no such policy.
        NotFound: A policy of the user's own that can't be imported.
    """
    kind, _, rest = asked(name).partition(":")
    if kind == "openai" and rest:
        # Made without the key: where the run is only queued, there need be none.
        from actors.policies.openai import OpenAIPolicy

        return msgspec.structs.replace(OpenAIPolicy(rest).spec, name=name)
    if kind == "static" and rest:
        return _as_named(name, _planned(rest, Path()))
    if kind == "local" and rest:
        return _as_named(name, _ours(PolicyTable(name=name), rest, Path()))
    from actors.policies import find

    # By its name a conductor finds it again, whatever a policy of the user's own calls itself.
    return msgspec.structs.replace(find(name).spec, name=name)


def hosted(name: str, own: str, spec: PolicySpec | None) -> tuple[PolicySpec, ...]:
    """What a deployment has to host besides the pool's own policy: a model of ours.

    Args:
        name: What a command or the configuration names; "" for the pool's own.
        own: The pool's own.
        spec: Its description.

    Raises:
        Usage: There is no such policy.
    """
    if name in ("", own) or not asked(name).startswith("local:"):
        return ()
    return (chosen(name, own, spec),)


def _described(table: PolicyTable, folder: Path) -> PolicySpec | None:
    kind, _, rest = asked(table.name).partition(":")
    _check_fields(table, kind if rest else "")
    if kind == "openai" and rest:
        return msgspec.structs.replace(_model(table, rest), name=table.name)
    if kind == "local" and rest:
        return _as_named(table.name, _ours(table, rest, folder))
    if kind == "static" and rest:
        return _as_named(table.name, _planned(rest, folder))
    if asked(table.name) in ("rules", "conductor") or (kind == "python" and ":" in rest):
        return None
    from actors.policies import NAMES

    raise Usage(f"there is no policy {table.name!r}", hint=NAMES)


def _check_fields(table: PolicyTable, kind: str) -> None:
    """Raise `Usage` if the table says something that is nothing of its policy."""
    known = _ANYONES
    if kind in ("openai", "local"):
        known |= _MODELS | (_ENDPOINTS if kind == "openai" else _LOCALS)
    for field in PolicyTable.__struct_fields__:
        if field not in known and getattr(table, field) is not None:
            hint = 'It is for a model: name = "openai:MODEL".'
            if field in _LOCALS:
                hint = 'It is for a local model: name = "local:FOLDER"; an endpoint has extra.'
            raise Usage(f"{field} is nothing of the policy {table.name!r}", hint=hint)


def _ours(table: PolicyTable, name: str, folder: Path) -> PolicySpec:
    """The policy that is a model of ours."""
    from actors.models.serving import Batching
    from actors.policies import local

    given = _given(table, local.Options)
    try:
        if unknown := (table.batching or {}).keys() - set(Batching.__struct_fields__):
            raise ValueError(f"unknown: {', '.join(sorted(unknown))}")
        if table.batching:
            given["batching"] = msgspec.convert(table.batching, Batching)
    except ValueError as error:
        keys = ", ".join(Batching.__struct_fields__)
        raise Usage(f"batching: {error}", hint=f"Its keys are {keys}.") from None
    place = (folder / Path(name).expanduser()).absolute()
    options = local.Options(folder=os.path.normpath(place), **given)
    if table.dialect == "openai":
        raise Usage(
            f"the policy {table.name!r} has no native tool calls",
            hint='A local model writes text: dialect = "hermes", "lists" or "slots".',
        )
    reserve = options.reserve.tokens if table.reserve_tokens is None else table.reserve_tokens
    return local.spec_of(
        options, reserve=Spend(tokens=reserve), **_manner(table, "hermes", local.TIMEOUT_S)
    )


def _given(table: PolicyTable, options: type[msgspec.Struct]) -> dict[str, Any]:
    """What a table says of a model's options."""
    said = {name: getattr(table, name, None) for name in options.__struct_fields__}
    return {name: value for name, value in said.items() if value is not None}


def _manner(table: PolicyTable, usual: Dialect, timeout_s: float) -> dict[str, Any]:
    """How any model is asked and speaks: fields of its `PolicySpec`.

    Args:
        table: What says so.
        usual: The dialect, unless it does.
        timeout_s: Seconds that one reply may take, unless it does.
    """
    dialect = table.dialect or usual
    if dialect in {"lists", *SLOTTED} and asked(table.name) != table.name:
        raise Usage(
            f"{table.name!r} has a worker write the answer, which in {dialect} the last step does",
            hint="Make that worker the last step, by what you say in system.",
        )
    return {
        "dialect": dialect,
        "timeout_ms": max(1, round((table.timeout_s or timeout_s) * 1_000)),
        "naming": table.naming or ("numbers" if dialect == "lists" else "names"),
        "system": table.system or "",
        "replan_on": table.replan_on or "never",
    }


def _model(table: PolicyTable, model: str) -> PolicySpec:
    from actors.policies.openai import TIMEOUT_S, Options

    try:
        options = Options(**_given(table, Options))
    except ValueError as error:
        raise Usage(str(error), hint="Take it out of extra.") from None
    reserve = options.reserve
    cost = table.reserve_cost_usd
    return PolicySpec(
        name=f"openai:{model}",
        reserve=Spend(
            tokens=reserve.tokens if table.reserve_tokens is None else table.reserve_tokens,
            cost=reserve.cost if cost is None else round(cost * MICRO),
        ),
        options=msgspec.to_builtins(options),
        **_manner(table, "openai", TIMEOUT_S),
    )


def _as_named(name: str, spec: PolicySpec) -> PolicySpec:
    """A policy, under the name of the worker that writes its answers, if one does."""
    head = name.removesuffix(asked(name))
    return msgspec.structs.replace(spec, name=head + spec.name)


def _planned(name: str, folder: Path) -> PolicySpec:
    """The policy that follows the plan in a file, TOML or JSON."""
    from actors.policies import static

    path = folder / Path(name).expanduser()
    try:
        data = path.read_bytes()
    except OSError as error:
        raise Usage(
            f"the plan {path} can't be read: {error.strerror}", hint="Correct its path."
        ) from None
    if len(data) > MAX_PLAN_BYTES:
        raise Usage(f"the plan {path} has {len(data)} bytes; at most {MAX_PLAN_BYTES} are possible")
    try:
        tree: Any = json.loads(data) if path.suffix == ".json" else msgspec.toml.decode(data)
        return static.spec_of(static.read(tree), path.stem)
    except InvalidData as error:
        raise Usage(f"the plan {path}: {error.message}", hint=error.hint) from None
    except (ValueError, RecursionError) as error:
        kind = "JSON" if path.suffix == ".json" else "TOML"
        raise Usage(f"the plan {path} is no {kind}: {error}", hint="Mend it.") from None


def _check_secrets(spec: PolicySpec, redactor: Redactor) -> None:
    """Raise `Usage` if what is recorded of a policy holds a secret."""
    for what, value in {**spec.options, "system": spec.system}.items():
        written = msgspec.json.decode(msgspec.json.encode({what: value}))
        if redactor.value(written) != written:
            raise Usage(
                f"{what} holds a secret, which no run may record",
                hint='name the variable that has the key: api_key_env = "NAME"',
            )
