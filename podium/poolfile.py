"""A user's own pool: a TOML file that names workers, and Python modules with ``@podium.tool``.

::

    [pool]
    name = "desk"
    policy = "rules"              # or "openai:MODEL", "local:FOLDER"
    module = "desk_tools"         # beside this file; each @podium.tool function is a worker

    [[worker]]                    # further workers, or other settings of a function
    name = "reviewer"
    adapter = "openai"            # or "python", "conductor", "function:module:name", "mcp"
    timeout_s = 60
    [worker.options]
    model = "gpt-5"
    role = "You look for mistakes."

    [budget]
    rounds = 6

`load` gives the `Pool` that a run records. Whatever is wrong with a file is a `Usage` error that
names the place and the cure. `podium.poolcheck` tries the workers out.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple

import msgspec

from podium import policyfile
from podium.config import BudgetTable, Positive, RedactTable, Whole, cure
from podium.policyfile import PolicyTable
from podium.poolmodules import import_from, own, tools
from podium.pooloffers import Offers, discovers
from podium.unhosted import CONDUCTOR, PERSON, unhosted
from protocol.actions import MICRO, Json, Pool, Spend, WorkerSpec
from protocol.decisions import WRITTEN, PolicySpec, asked
from protocol.errors import InvalidData, NotFound, PodiumError, Usage
from protocol.limits import MAX_POOL_BYTES, MAX_WORKERS
from protocol.redaction import Redactor
from protocol.references import is_name, referred
from protocol.schemas import check_schema, check_value_schema, misfit
from protocol.secret_forms import Redaction
from protocol.subjects import check_name

RULES: Final = "rules"
"""The policy that needs no model, and is used when none is named."""

MAX_FILE_BYTES: Final = 4 * MAX_POOL_BYTES
"""Bytes of a pool file: a pool that fits into a commit, with comments."""

FIELDS: Final = (
    "description",
    "parameters",
    "returns",
    "concurrency",
    "replicas",
    "attempts",
    "hedge",
    "secrets",
    "host",
)
"""What a worker's table says just as `WorkerSpec` does."""

AtLeastOne = Annotated[int, msgspec.Meta(ge=1, le=100_000)]


class PoolTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[pool]``."""

    name: str = "pool"
    policy: str = ""
    """What decides when the command names nothing else."""
    module: str = ""
    """A Python module; each of its ``@podium.tool`` functions is a worker."""
    modules: tuple[str, ...] = ()
    """Further ones."""


class WorkerTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[[worker]]``. What is not given is taken from the function, or from the adapter."""

    name: str
    adapter: str = ""
    """``function:module:name``, ``openai``, ``python``, ``mcp:tool``, ``person`` and others; empty
    for a function of that name in the pool's modules. ``mcp`` alone is a worker for each tool."""
    description: str | None = None
    parameters: dict[str, Json] | None = None
    """JSON Schema, in place of the one made from the signature."""
    returns: dict[str, Json] | None = None
    """JSON Schema of the results: one that doesn't fit is a failure."""
    options: dict[str, Json] = {}
    """Of the adapter. A secret is named here, never given: ``api_key_env = "MY_KEY"``."""
    only: tuple[str, ...] | None = None
    """Of what a server offers (tools, operations), that which becomes workers."""
    timeout_s: Positive | None = None
    """Seconds of work that an attempt may take."""
    wait_s: Positive | None = None
    """Seconds that an attempt may wait for a free slot."""
    concurrency: AtLeastOne | None = None
    replicas: AtLeastOne | None = None
    attempts: AtLeastOne | None = None
    reserve_tokens: Whole | None = None
    """The most that one attempt may spend; held back from the budget while it works."""
    reserve_cost_usd: Annotated[float, msgspec.Meta(ge=0, le=10**6)] | None = None
    hedge: bool | None = None
    """Whether a call that takes far longer than others may be tried a second time meanwhile."""
    secrets: tuple[str, ...] | None = None
    """Names of the secrets that may be resolved for it: ``${secret:NAME}``."""
    host: str | None = None
    """The process that it shares with all workers that name the same."""


class PoolFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file, as it stands there."""

    pool: PoolTable = PoolTable()
    policy: PolicyTable | None = None
    worker: tuple[WorkerTable, ...] = ()
    budget: BudgetTable = BudgetTable()
    redact: RedactTable = RedactTable()


class LoadedPool(msgspec.Struct, frozen=True):
    """A pool file, made into what a run needs."""

    path: Path
    name: str
    pool: Pool
    policy: str
    """``rules``, ``openai:MODEL``, ``written:WORKER:POLICY``."""
    budget: BudgetTable
    redact: Redaction = Redaction()
    spec: PolicySpec | None = None
    """What a run records of that policy, where the file says more than its name."""
    policies: tuple[str, ...] = ()
    endpoints: tuple[PolicySpec, ...] = ()
    """Further ones that a deployment has to host: of pools that share it."""
    tables: dict[str, str] = {}
    """The tables that take all that a server offers, by the names of their workers."""

    def also(self, endpoints: tuple[PolicySpec, ...]) -> "LoadedPool":
        """The same, with further policies that a deployment has to host."""
        if not endpoints:
            return self
        return msgspec.structs.replace(self, endpoints=(*self.endpoints, *endpoints))

    @property
    def folder(self) -> Path:
        """Where its modules are; has to be importable in the workers' processes too."""
        return self.path.parent


def read(path: Path) -> PoolFile:
    """The file, its keys and types checked, and nothing imported.

    Raises:
        NotFound: There is no such file.
        Usage: It is no TOML, or a key or a value is wrong.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise NotFound(
            f"The pool file {path} can't be read: {error.strerror}.",
            hint="Give its path with --pool, or leave it out to use the shipped pool.",
        ) from None
    if len(data) > MAX_FILE_BYTES:
        raise Usage(f"{path} has {len(data)} bytes; a pool file has at most {MAX_FILE_BYTES}.")
    try:
        table = msgspec.toml.decode(data)
    except ValueError as error:
        raise Usage(f"{path} is no TOML: {error}", hint="Mend the line it names.") from None
    try:
        file = msgspec.convert(table, PoolFile)
        file.redact.check()
        return file
    except InvalidData as error:
        raise Usage(f"{path}: {error.message}", hint=error.hint) from None
    except msgspec.ValidationError as error:
        raise Usage(
            f"{path}: {_named(str(error), table)}", hint=cure(str(error), PoolFile)
        ) from None


def load(path: str | Path, secrets: str = "") -> LoadedPool:
    """Read a pool file, import its modules, and make its workers.

    The file's folder is added to what Python imports from, in this process and in those that it
    starts. Servers whose tools are workers are asked what they have.

    Args:
        path: The pool file.
        secrets: Folder or file with the secrets that workers declare, besides the environment.

    Raises:
        NotFound: There is no such file.
        Usage: Something in it is wrong; the message has the place, the hint the cure.
    """
    path = Path(path).expanduser().absolute()
    file = read(path)
    workers, problems, tables = build(path, file, secrets)
    for error in problems.values():
        raise error
    if not workers:
        raise Usage(
            f"{path}: the pool has no workers.",
            hint="Add a [[worker]] table, or a module with @podium.tool functions to [pool].",
        )
    if len(workers) > MAX_WORKERS:
        raise Usage(f"{path}: {len(workers)} workers; a pool has at most {MAX_WORKERS}.")
    policy, spec = policyfile.named(file.pool.policy, file.policy, path, file.redact)
    check_writer(policy, workers, path)
    return LoadedPool(
        path,
        file.pool.name,
        Pool(tuple(workers)),
        policy or RULES,
        policyfile.budget(file.policy, file.budget, path),
        file.redact,
        spec,
        tables=tables,
    )


class Built(NamedTuple):
    """What could be made of a pool file."""

    workers: list[WorkerSpec]
    problems: dict[str, Usage]
    """What is wrong with each of the others, by its place."""
    tables: dict[str, str]
    """See `LoadedPool`."""


def build(path: Path, file: PoolFile, secrets: str = "") -> Built:
    """The workers that could be made, and what is wrong with the others."""
    problems: dict[str, Usage] = {}
    tables: dict[str, str] = {}
    try:
        unique(tuple(worker.name for worker in file.worker), str(path))
    except Usage as error:
        return Built([], {"[[worker]]": error}, {})
    import_from(path.parent)
    found: dict[str, WorkerSpec] = {}
    for name in (*filter(None, (file.pool.module,)), *file.pool.modules):
        try:
            for spec in tools(name, path.parent):
                if spec.name in found:
                    raise Usage(
                        f"two functions are the worker {spec.name!r}: {found[spec.name].adapter} "
                        f"and {spec.adapter}",
                        hint="Rename one: @podium.tool(name=...).",
                    )
                found[spec.name] = spec
        except PodiumError as error:
            problems[f"module {name}"] = _placed(error, f"{path}: [pool] module {name!r}")
    redactor = Redactor(file.redact)
    offers = Offers(redactor, secrets)
    offers.ask(asked_of(table) for table in file.worker if discovers(table.adapter))
    named = {table.name for table in file.worker} | set(found)
    for index, table in enumerate(file.worker):
        place = f"{path}: the worker {table.name!r} (worker[{index}])"
        try:
            for single, base in _bases(table, found.get(table.name), path.parent, offers):
                if single.name != table.name and single.name in named:
                    raise Usage(
                        f"{single.adapter} would be the worker {single.name!r}, which is there",
                        hint="Rename one of the tables, or leave the tool out with only = [...].",
                    )
                named.add(single.name)
                if discovers(table.adapter) and ":" not in table.adapter and table.only is None:
                    tables[single.name] = table.name
                made = worker(single, base)
                check_options(made, redactor)
                found[made.name] = made
        except PodiumError as error:
            if not (problems and isinstance(error, _NoAdapter)):
                problems[table.name] = _placed(error, place)
            found.pop(table.name, None)
    return Built(list(found.values()), problems, tables)


def _bases(
    table: WorkerTable, function: WorkerSpec | None, folder: Path, offers: Offers
) -> Iterator[tuple[WorkerTable, WorkerSpec]]:
    """What is known of the workers of a table besides, and the table as it goes for each."""
    check_name(table.name, "the worker's name")
    if not discovers(table.adapter):
        if table.only is not None:
            raise Usage("only goes with a server's tools", hint='such as adapter = "mcp"')
        there = function if function is not None and not table.adapter else _base(table, folder)
        yield table, there
        return
    asked = asked_of(table)
    check_secrets(asked)
    if ":" in table.adapter:
        if table.only is not None:
            raise Usage(f"only: {table.adapter!r} is one tool", hint="Leave only out.")
        each = {table.name: offers.one(asked)}
    else:
        for field in ("description", "parameters"):
            if getattr(table, field) is not None:
                raise Usage(
                    f"{field} can't be the same for all tools of a server",
                    hint=f'Say it in the table of one: adapter = "{table.adapter}:TOOL".',
                )
        each = offers.each(asked, table.only or ())
    host = table.host or offers.host(table.name, table.adapter, table.options)
    for name, spec in each.items():
        single = msgspec.structs.replace(table, name=name, adapter=spec.adapter, host=host)
        yield single, spec


def asked_of(table: WorkerTable) -> WorkerSpec:
    """What is known of a server's workers before it is asked."""
    return WorkerSpec(
        name=table.name,
        adapter=table.adapter,
        options=table.options,
        secrets=table.secrets or (),
    )


def worker(table: WorkerTable, base: WorkerSpec) -> WorkerSpec:
    """One worker, from its table and what is known of it besides."""
    given: dict[str, Any] = {
        name: value for name in FIELDS if (value := getattr(table, name)) is not None
    }
    for seconds, field in ((table.timeout_s, "timeout_ms"), (table.wait_s, "wait_ms")):
        if seconds is not None:
            given[field] = max(1, round(seconds * 1_000))
    if table.reserve_tokens is not None or table.reserve_cost_usd is not None:
        cost = table.reserve_cost_usd
        given["reserve"] = Spend(
            tokens=table.reserve_tokens or 0,
            cost=base.reserve.cost if cost is None else round(cost * MICRO),
        )
    # An adapter's draft may say its options more exactly than the file does.
    options = base.options or table.options
    spec = msgspec.structs.replace(base, name=table.name, options=options, **given)
    if spec.host:
        check_name(spec.host, "its host")
    check_schema(spec.parameters, f"the worker {spec.name!r}")
    check_value_schema(spec.returns, f"what the worker {spec.name!r} returns")
    check_secrets(spec)
    if spec.adapter == "python":  # it knows which settings don't go together, and starts nothing
        from actors.workers import host

        host(spec)
    return spec


def check_writer(policy: str, workers: list[WorkerSpec], path: Path) -> None:
    """Raise `Usage` unless whoever is to write the answers is one of the workers, and able to."""
    kind, _, rest = policy.partition(":")
    writer = rest.partition(":")[0]
    if kind != WRITTEN:
        return
    spec = Pool(tuple(workers)).get(writer)
    if spec is None:
        raise Usage(
            f"{path}: {policy!r} has the worker {writer!r} write the answer, which there is not",
            hint=f"Add a [[worker]] of that name, such as an agent with "
            f'role = "@answer-writer"; or write policy = "{asked(policy)}".',
        )
    if problem := misfit(spec.parameters, {"subtask": ""}):
        raise Usage(
            f"{path}: the worker {writer!r} can't write the answer of {policy!r}: {problem}",
            hint='It has to take {"subtask": text}, as agents do.',
        )


def check_secrets(spec: WorkerSpec) -> None:
    """Raise `Usage` if a worker's options name a secret that it doesn't declare."""
    for name in spec.secrets:
        if not is_name(name):
            raise Usage(
                f"secrets: {name!r} is no secret's name",
                hint="letters, digits and _ make a name, and a letter begins it",
            )
    for name in referred(spec.options):
        if name not in spec.secrets:
            raise Usage(
                f"its options refer to the secret {name!r}, which it does not declare",
                hint=f'add secrets = ["{name}"]',
            )


def check_options(spec: WorkerSpec, redactor: Redactor) -> None:
    """Raise `Usage` if a worker's options hold a secret.

    They are recorded without it, and whoever hosts what was recorded would host another worker.
    """
    for option, value in spec.options.items():
        written = msgspec.json.decode(msgspec.json.encode({option: value}))
        if redactor.value(written) != written:
            raise Usage(
                f"its option {option!r} holds a secret, which no run may record",
                hint='put ${secret:NAME} in its place, add secrets = ["NAME"], and set '
                "PODIUM_SECRET_NAME where the workers run",
            )


class _NoAdapter(Usage):
    """Nothing says what stands behind a worker."""


def _base(table: WorkerTable, folder: Path) -> WorkerSpec:
    kind = table.adapter.partition(":")[0]
    if kind == "":
        raise _NoAdapter(
            "it has no adapter, and no @podium.tool function has that name",
            hint='Add adapter = "function:module:name", "openai", "conductor", or another.',
        )
    if (spec := unhosted(table.name, table.adapter)) is not None:
        if table.options:
            raise Usage(
                f"a worker of the adapter {kind!r} has no options: {', '.join(table.options)}",
                hint="Leave [worker.options] out.",
            )
        return spec
    from actors.workers import ADAPTERS, draft

    if kind not in ADAPTERS:
        others = sorted({*ADAPTERS, CONDUCTOR, PERSON} - {"function", "class"})
        known = ", ".join(["function:module:name", "class:module:name", *others])
        raise Usage(f"there is no adapter {table.adapter!r}", hint=f"Known are: {known}.")
    if kind in ("function", "class"):
        own(table.adapter.split(":")[1] if ":" in table.adapter else "", folder)
    # Who is described here need not be asked what it is.
    given = {"description": table.description} if table.description else {}
    spec = draft(table.adapter, table.options, **given)
    # The address as it was written: a function may be reached by several.
    return msgspec.structs.replace(spec, adapter=table.adapter)


def unique(names: tuple[str, ...], where: str) -> None:
    """Raise `Usage` if a worker's name is used twice."""
    for name, count in Counter(names).items():
        if count > 1:
            places = ", ".join(f"worker[{i}]" for i, each in enumerate(names) if each == name)
            raise Usage(
                f"{where}: the worker name {name!r} is used {count} times ({places}).",
                hint="A policy calls a worker by its name: give each its own.",
            )


def _placed(error: PodiumError, place: str) -> Usage:
    return Usage(f"{place}: {error.message}", hint=error.hint)


def _named(text: str, table: Any) -> str:
    """The text of an error, with the name of the worker whose number it has."""
    head, found, rest = text.partition("`$.worker[")
    number = rest.partition("]")[0]
    try:
        name = table["worker"][int(number)]["name"]
    except (LookupError, TypeError, ValueError):
        return text
    return f"{head}{found}{rest} (the worker {name!r})"
