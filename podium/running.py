"""The simplest way to have a task done from Python: `run`, and `run_async` within a loop."""

import asyncio
from pathlib import Path

from podium import policyfile, poolfile
from podium.config import Config, load
from podium.host import Host
from podium.pools import OFFLINE
from podium.rows import Result
from podium.while_hosted import while_hosted
from protocol.budgets import Budget
from protocol.decisions import Task
from protocol.errors import Usage


async def run_async(
    task: Task | str,
    *,
    pool: str | Path | None = None,
    policy: str = "",
    budget: Budget | None = None,
    config: Config | None = None,
) -> Result:
    """Have a task done, and return what came of it.

    Attaches to the standing deployment (``podium up``) if there is one, and else hosts one for as
    long as the run takes.

    Args:
        task: A question, or a `Task` with inputs.
        pool: Path of a pool file; as configured by default, and else the pool that is shipped.
        policy: ``rules``, ``openai:MODEL``, ``local:FOLDER``; as configured by default, and else
            the pool's own.
        budget: What the run may spend; as configured by default, and else the pool's own.
        config: Instead of ``podium.toml`` and the environment.

    Raises:
        Usage, InvalidData: Task, pool, policy or configuration are wrong; nothing was begun.
        Unreachable, ...: The deployment can't be had. A run that fails is no error but a `Result`.
    """
    chosen = config or (await asyncio.to_thread(load)).config
    path, secrets = pool or chosen.pool or OFFLINE, chosen.secrets.place()
    loaded = await asyncio.to_thread(poolfile.load, path, secrets)
    named = policy or chosen.policy
    spec = await asyncio.to_thread(policyfile.chosen, named, loaded.policy, loaded.spec)
    ours = policyfile.hosted(named, loaded.policy, spec)
    allowed = budget or chosen.budget.over(loaded.budget.over(Budget()))
    async with Host.open(chosen, loaded.also(ours)) as host:
        run = await host.client.submit(task, loaded.pool, spec, allowed)
        again = f"start a deployment, and it goes on: podium up   or: podium run --continue {run}"
        return await while_hosted(host, host.client.result(run), f"run {run}", again)


def run(
    task: Task | str,
    *,
    pool: str | Path | None = None,
    policy: str = "",
    budget: Budget | None = None,
    config: Config | None = None,
) -> Result:
    """As `run_async`, where no event loop runs: ``print(podium.run("How large is France?"))``.

    Raises:
        Usage: An event loop is running; await `run_async` there.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(run_async(task, pool=pool, policy=policy, budget=budget, config=config))
    raise Usage(
        "podium.run was called inside an event loop, which it would block.",
        hint="Use: await podium.run_async(...)",
    )
