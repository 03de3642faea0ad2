"""Trying out the workers of a pool file: imports, schemas, keys, endpoints, servers, the sandbox.

`check` does all of it for real and says what each worker lacks; `preflight` does only what is
quick, before a run begins. Both must run where the workers will: keys and addresses are read from
this process's environment.
"""

import asyncio
import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal, TypeAlias
from urllib.parse import urlsplit

import msgspec

from podium import policyfile
from podium.poolfile import LoadedPool, PoolFile, asked_of, build, read
from podium.pooloffers import Offers, discovers
from protocol.actions import Pool, WorkerSpec
from protocol.decisions import PolicySpec, asked
from protocol.errors import Denied, NotFound, PodiumError, Unreachable, Usage
from protocol.redaction import Redactor, well_known
from replay.address import shown

ENDPOINT_LIMIT_S: Final = 20.0
"""Seconds that an endpoint may take for one word: a cold model loads in that time."""

CONNECT_LIMIT_S: Final = 3.0
"""Seconds that a connection may take: across the world it takes a third of one."""

State: TypeAlias = Literal["ok", "warning", "failed"]

Tried: TypeAlias = tuple[State, str, str]
"""A state, what was found, and a hint."""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What was found of one worker, or of the policy."""

    worker: str
    adapter: str
    state: State
    found: str
    """What works, or what doesn't."""
    hint: str = ""


async def check(path: Path, secrets: str = "") -> list[Finding]:
    """Load a pool file and try each of its workers, and its policy.

    Args:
        path: The pool file.
        secrets: Folder or file with the secrets that workers declare, besides the environment.

    Raises:
        NotFound: There is no such file.
        Usage: It can't be read at all.
    """
    file, workers, problems = await asyncio.to_thread(_built, path, secrets)
    findings = [
        Finding(worker=place, adapter="", state="failed", found=error.message, hint=error.hint)
        for place, error in problems.items()
    ]
    findings += await asyncio.gather(*(_try(spec, secrets) for spec in workers))
    if not findings:
        findings.append(
            Finding(
                worker="-",
                adapter="",
                state="failed",
                found="the pool has no workers",
                hint="Add a [[worker]] table, or a module with @podium.tool functions to [pool].",
            )
        )
    if file.pool.policy or file.policy is not None:
        pool = None if problems else Pool(tuple(workers))  # else a plan's worker may be one of them
        findings.append(await _try_policy(file, path, pool))
    return findings


def _built(path: Path, secrets: str) -> tuple[PoolFile, list[WorkerSpec], dict[str, Usage]]:
    path = path.expanduser().absolute()
    file = read(path)
    built = build(path, file, secrets)
    return file, built.workers, built.problems


def servers(path: Path | None, standing: Pool | None, secrets: str) -> list[Finding]:
    """Ask the servers whose tools are workers: of a pool file, and of a standing deployment.

    Args:
        path: A pool file; nothing of it is imported.
        standing: What a deployment hosts.
        secrets: As in `check`.
    """
    file = read(path.expanduser()) if path is not None else PoolFile()
    offers = Offers(Redactor(file.redact), secrets)
    hosted: Sequence[WorkerSpec] = () if standing is None else standing.workers
    asked = [asked_of(table) for table in file.worker if discovers(table.adapter)]
    hosted = [spec for spec in hosted if discovers(spec.adapter)]
    offers.ask((*asked, *hosted))
    return [_offered(spec, offers) for spec in asked] + [
        _as_hosted(spec, offers) for spec in hosted
    ]


def _offered(asked: WorkerSpec, offers: Offers) -> Finding:
    try:
        if ":" in asked.adapter:
            offers.one(asked)
            found = "its server offers it"
        else:
            found = f"its server offers {len(offers.each(asked, ()))}"
    except PodiumError as error:
        return _finding(asked, "failed", error.message, error.hint)
    return _finding(asked, "ok", found)


def _as_hosted(spec: WorkerSpec, offers: Offers) -> Finding:
    """Whether what a deployment hosts is still what its server offers."""
    try:
        there = offers.one(spec)
    except PodiumError as error:
        return _finding(spec, "failed", error.message, error.hint)
    if there.parameters == spec.parameters:
        return _finding(spec, "ok", "its server offers it")
    found = "the deployment has other parameters than its server"
    return _finding(spec, "warning", found, "podium worker apply FILE")


def _finding(spec: WorkerSpec, state: State, found: str, hint: str = "") -> Finding:
    return Finding(worker=spec.name, adapter=spec.adapter, state=state, found=found, hint=hint)


async def preflight(loaded: LoadedPool, policy: str, secrets: str = "") -> None:
    """Look for keys, secrets and listening endpoints, before anything is started.

    Raises:
        Denied: A key or a secret is absent.
        InvalidData: A secret is none that could be kept out of the log.
        Unreachable: Nothing listens at an endpoint's address.
    """
    for spec in loaded.pool.workers:
        need_secrets(spec, secrets)
    from actors.workers.agent.toolbox import within

    endpoints = [
        (f"The worker {spec.name!r}", *_address(each))
        for spec in loaded.pool.workers
        for each in (spec, *within(spec))
        if each.adapter == "openai"
    ]
    if asked(policy).startswith("openai:"):
        described = policyfile.chosen(policy, loaded.policy, loaded.spec)
        endpoints.append((f"The policy {policy}", *_place(described)))
    if asked(policy).startswith("local:"):
        need_model(policyfile.chosen(policy, loaded.policy, loaded.spec))
    for who, _, key_env in endpoints:
        need_key(who, key_env)
    who_asks = {url: who for who, url, _ in reversed(endpoints)}
    await asyncio.gather(*(listens(who, url) for url, who in who_asks.items()))


def need_model(spec: PolicySpec) -> str:
    """Which version of a model of ours would answer, if it were hosted here.

    Raises:
        NotFound: There is no such folder, or what hosts a model is not installed.
        InvalidData: The version can't be read.
    """
    from actors.models.serving import EXTRA, missing
    from actors.policies.local import options_of
    from replay.model_folder import find
    from replay.model_versions import pointed

    if absent := missing():
        raise NotFound(f"The policy {spec.name} needs what is not installed: {absent}.", hint=EXTRA)
    folder = Path(options_of(spec).folder)
    return find(folder, pointed(folder)).name


def _look(spec: PolicySpec) -> str:
    """As `need_model`, and it is seen to be whole. Raises as that does."""
    name = need_model(spec)
    from actors.models import loading
    from actors.policies.local import options_of
    from replay.model_folder import find

    loading.look(find(Path(options_of(spec).folder), name))
    return name


def need_key(who: str, key_env: str) -> None:
    """Raise `Denied` if an endpoint's key is not in the environment."""
    from actors.workers.agent.chat import URL_ENV, key_from

    if not key_from(key_env):
        raise Denied(
            f"{who} needs a key, and {key_env} is not set.",
            hint=f"export {key_env}=...   (any text for a server of your own that needs none; "
            f"its address is base_url in the pool, or {URL_ENV})",
        )


async def listens(who: str, url: str | None, what: str = "endpoint") -> None:
    """Raise `Unreachable` if nothing accepts a connection at an endpoint's address."""
    from actors.workers.agent.chat import OPENAI_HOST, URL_ENV

    where = urlsplit(url or f"https://{OPENAI_HOST}/v1")
    port = where.port or (443 if where.scheme == "https" else 80)
    try:
        async with asyncio.timeout(CONNECT_LIMIT_S):
            _, writer = await asyncio.open_connection(where.hostname or "", port)
    except (OSError, TimeoutError) as error:
        number = getattr(error, "errno", None)
        why = os.strerror(number) if number and number > 0 else str(error)
        why = why or f"no connection within {CONNECT_LIMIT_S:g} s"
        raise Unreachable(
            f"{who} uses the {what} {shown(where.geturl())}, which refuses: {why}.",
            hint="Start the server, or correct base_url in the pool file"
            + (f" ({URL_ENV} otherwise)." if what == "endpoint" else "."),
        ) from None
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


def _address(spec: WorkerSpec) -> tuple[str | None, str]:
    """Address and name of the key of an agent's endpoint."""
    from actors.workers.agent import Options
    from actors.workers.agent.chat import url_from_environment

    options = msgspec.convert(spec.options, Options)
    return options.base_url or url_from_environment(), options.api_key_env


async def _try(spec: WorkerSpec, secrets: str) -> Finding:
    """One worker, tried for real."""
    from actors.secrets import Secrets

    redactor = well_known()
    try:
        need_secrets(spec, secrets)
        own = Secrets.of(spec, redactor, secrets)
        redactor = own.redactor
        state, found, hint = await _tried(own.options(spec))
    except PodiumError as error:
        # The table's first column says whose it is.
        found = error.message.removeprefix(f"The worker {spec.name!r} ")
        state, hint = "failed", error.hint
    return _finding(spec, state, redactor.text(found), redactor.text(hint))


def need_secrets(spec: WorkerSpec, path: str) -> None:
    """Raise `Denied` if a secret that a worker declares has no value here, or no good one."""
    from actors.secrets import PREFIX, find, usable

    for name in spec.secrets:
        value = find(name, path)
        if value is None:
            raise Denied(
                f"The worker {spec.name!r} declares the secret {name}, which has no value here.",
                hint=f"export {PREFIX}{name}=...   (or put it where [secrets] path says)",
            )
        usable(name, value)


async def _tried(spec: WorkerSpec) -> Tried:
    count = len(spec.parameters.get("properties", ()))
    parameters = f"{count} parameter{'' if count == 1 else 's'}"
    match spec.adapter.partition(":")[0]:
        case "function":
            from actors.workers.function import FunctionAdapter

            await FunctionAdapter(spec).close()
            return "ok", f"imported, {parameters}", ""
        case "class":
            from actors.workers import host

            await host(spec).close()
            return "ok", f"imported, {parameters}", ""
        case "python":
            from actors.workers.processes.sandbox import Options, isolation

            offered = await asyncio.to_thread(isolation)
            if offered.level == "namespaces":
                return "ok", "the sandbox works", ""
            if msgspec.convert(spec.options, Options).isolation == "process":
                return (
                    "warning",
                    f"limits, but no walls: {offered.reason}",
                    "For trusted code only.",
                )
            return (
                "failed",
                f"this host can't isolate code: {offered.reason}",
                'Accept limits without walls with [worker.options] isolation = "process".',
            )
        case "shell":
            return _shell(spec)
        case "openapi":
            from actors.workers.openapi import whereabouts

            place, server = await asyncio.to_thread(whereabouts, spec)
            await listens(f"The worker {spec.name!r}", server, "service")
            return "ok", f"{place} at {shown(server)}", ""
        case "a2a":
            return await _agent(spec)
        case "openai":
            url, key_env = _address(spec)
            who = f"The worker {spec.name!r}"
            need_key(who, key_env)
            await listens(who, url)
            answers = await _endpoint(spec.options["model"], url, key_env)
            return await _with_tools(spec, answers)
        case _ if discovers(spec.adapter):  # it was asked when the file was read
            return "ok", f"offered by its server, {parameters}", ""
        case _:
            return "ok", parameters, ""


def _shell(spec: WorkerSpec) -> Tried:
    """Whether the commands can be run here, and whether the list holds anything back."""
    from actors.workers.processes.shell import look

    absent, open_ended, no_folder = look(spec)
    if absent or no_folder:
        lacks = [f"not installed: {', '.join(absent)}"] if absent else []
        lacks += [f"no such folder: {no_folder}"] if no_folder else []
        return "failed", "; ".join(lacks), "Install it where the workers run, or correct the name."
    if open_ended:
        return (
            "warning",
            f"starts whatever it is told to: {', '.join(open_ended)}",
            "Allow the beginning of a command line, and a pattern for the rest (docs/workers.md).",
        )
    return "ok", "every command is installed", ""


async def _agent(spec: WorkerSpec) -> Tried:
    """Ask an A2A agent for its card."""
    from actors.workers.a2a import A2AAdapter

    adapter = A2AAdapter(spec)
    try:
        return "ok", await adapter.check(), ""
    finally:
        await adapter.close()


async def _with_tools(spec: WorkerSpec, own: Tried) -> Tried:
    """An agent, and each tool of its own."""
    from actors.workers.agent import OpenAIAdapter

    state, found, hint = own
    tools = OpenAIAdapter(spec).tools.workers
    for tool in tools:
        state_of, found_of, hint_of = await _tried(tool)
        if state_of != "ok":
            return state_of, f"its tool {tool.name!r}: {found_of}", hint_of
    names = ", ".join(tool.name for tool in tools)
    return state, f"{found}; tools: {names}" if names and state == "ok" else found, hint


def _place(spec: PolicySpec) -> tuple[str | None, str]:
    """Address and name of the key of a policy's endpoint."""
    from actors.policies import ANYWHERE, place
    from actors.workers.agent.chat import url_from_environment

    where = place(spec) or ANYWHERE
    return where.base_url or url_from_environment(), where.key_env


async def _try_policy(file: PoolFile, path: Path, pool: Pool | None) -> Finding:
    """The policy, tried for real; its plan, if it follows one, only where the pool is known."""
    from podium.checks import check_plan

    name = file.policy.name if file.policy is not None else file.pool.policy
    try:
        own, described = policyfile.named(file.pool.policy, file.policy, path, file.redact)
        spec = policyfile.chosen("", own, described)
        if pool is not None:
            check_plan(spec, pool)
        state: State = "ok"
        found, hint = "needs no model", ""
        if asked(name).startswith("local:"):
            found = f"version {await asyncio.to_thread(_look, spec)} is there"
        elif asked(name).startswith("openai:"):
            url, key_env = _place(spec)
            need_key(f"The policy {name}", key_env)
            await listens(f"The policy {name}", url)
            state, found, hint = await _endpoint(asked(name).partition(":")[2], url, key_env)
    except PodiumError as error:
        found = error.message.removeprefix(f"The policy {name} ")
        state, hint = "failed", error.hint
    return Finding(worker="(policy)", adapter=name, state=state, found=found, hint=hint)


async def _endpoint(model: str, url: str | None, key_env: str) -> Tried:
    """Ask for one word."""
    from actors.workers.agent.chat import Endpoint, key_from
    from protocol.exchanges import Failed

    endpoint = Endpoint(model, base_url=url, api_key=key_from(key_env), key_env=key_env)
    try:
        said = await endpoint.ask(
            [{"role": "user", "content": "Reply with the word ok."}],
            timeout_s=ENDPOINT_LIMIT_S,
            max_tokens=16,
        )
    finally:
        await endpoint.close()
    if isinstance(said, Failed):
        return "failed", said.text, ""
    return "ok", f"{said.version or model} answers", ""
