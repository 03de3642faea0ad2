"""`podium runs`: the list, one run, and following one. Reads take the beginning of an id."""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from podium.cli.follow import Follower, done, failure_hints
from podium.cli.interrupts import EXIT_INTERRUPTED, Interrupts
from podium.cli.options import COMMON, LISTING, PAGE, Common, Listing, Status
from podium.cli.output import Output, iso
from podium.cli.source import names_event, names_file, no_file, run_log
from podium.cli.world import current
from podium.render_text import ago, duration, money, one_line
from podium.resting import pause_error, paused
from protocol.errors import NotFound, Usage
from protocol.subjects import is_run

if TYPE_CHECKING:
    from podium.client import Client
    from podium.reading import Found
    from podium.render import CallNode, RunTree, TurnNode
    from podium.rows import RunRow
    from replay.chain import RunLog


def list_(*, listing: Listing = LISTING, common: Common = COMMON) -> int:
    """List the runs, the newest first."""
    status, limit, cursor = listing.status, listing.limit, listing.cursor
    if limit < 1:
        raise Usage("--limit must be at least 1.", hint=f"Leave it out for a page of {PAGE}.")
    output = Output(common.json)
    config = common.load().config

    async def read() -> "Found[RunRow]":
        from podium.reading import Found

        try:
            async with current().deployments.connect(config) as host:
                return await host.client.listed()
        except NotFound:  # nothing was ever run here
            return Found([], {})

    rows, unread = asyncio.run(read())
    counts: dict[str, int] = {}
    for row in rows:
        counts[status_of(row)] = counts.get(status_of(row), 0) + 1
    chosen = [row for row in rows if status is None or status_of(row) == status]
    if cursor is not None:
        ids = [row.run for row in chosen]
        if cursor not in ids:
            raise NotFound(f"there is no run {cursor!r} to go on after", hint="podium runs")
        chosen = chosen[ids.index(cursor) + 1 :]
    page = chosen[:limit]
    after = page[-1].run if len(chosen) > limit else None
    if output.as_json or page:
        shown = [row_json(row) for row in page]
        output.read(shown, _table(page, output), counts=counts, cursor=after, unread=unread)
    elif rows or not unread:
        output.say("no such runs" if rows else "no runs yet")
    code = output.unread(unread)
    if after:
        output.hint(f"{len(chosen) - limit} more: podium runs list --cursor {after}")
    elif page:
        output.hint(f"look at one: podium runs show {page[0].run}")
    else:
        output.hint('begin one: podium run "…"')
    return code


def status_of(row: "RunRow | RunTree") -> str:
    """A run's status in one word; ``archived`` for one whose archive can't be read here."""
    others: dict[str, Status] = {"new": "queued", "ended": "archived"}
    return row.outcome or others.get(row.phase) or row.phase


def row_json(row: "RunRow") -> dict[str, Any]:
    """A run's row, for programs."""
    end = row.ended or row.last
    return {
        "run": row.run,
        "status": status_of(row),
        "task": row.task,
        "policy": row.policy,
        "rounds": row.rounds,
        "calls": row.calls,
        "tokens": row.spent.tokens,
        "cost_usd": row.spent.cost / 1e6,
        "started": iso(row.started),
        "ended": iso(row.ended),
        "took_ms": max(0, end - row.started) if row.started else 0,
        "limited_by": row.limited_by or None,
        "waits_for": row.waits_for or None,
        "detail": row.detail or None,
        "parent": row.parent or None,
        "forked_from": row.forked_from or None,
        "aside": row.aside,
    }


def _table(page: list["RunRow"], output: Output) -> Any:
    from podium.render_rich import table

    now = output.world.now()
    paid = any(row.spent.cost for row in page)
    forks = any(row.forked_from for row in page)
    below = any(row.parent for row in page)
    rows = []
    for row in page:
        took = duration((row.ended or now) - row.started) if row.started else ""
        begun = ago(now - row.started) if row.started else ""
        cells = [row.run, status_of(row), begun, took, str(row.rounds), str(row.calls)]
        cells += [money(row.spent.cost)] if paid else []
        cells += [row.forked_from] if forks else []
        cells += [row.parent] if below else []
        rows.append([*cells, one_line(row.task or row.detail)])
    heads = ["run", "status", "began>", "took>", "rounds>", "attempts>"]
    heads += ["cost>"] if paid else []
    heads += ["forked from"] if forks else []
    heads += ["child of"] if below else []
    return table([*heads, "task"], rows, "task", cut=output.console().width)


def show(
    run: str,
    /,
    *,
    content: Annotated[
        bool, Parameter(help="Show what agents wrote: arguments, values, the answer.")
    ] = False,
    events: Annotated[bool, Parameter(help="List the commits with their events instead.")] = False,
    common: Common = COMMON,
) -> int:
    """Show one run: every round and call.

    Parameters
    ----------
    run
        Its id, the beginning of it, or an exported file.
    """
    if names_event(run):
        raise Usage(
            f"{run} is one event, and `runs show` shows a whole run",
            hint=f"see the run as it stood then: podium state {run}",
        )
    output = Output(common.json)
    config = common.load().config

    log = run_log(common, run)
    if events:
        _show_events(output, log)
    else:

        def served() -> bool:
            elsewhere = names_file(run) or bool(config.nats.url)
            return elsewhere or current().deployments.standing(config) is not None

        _show_tree(output, log, content, served)
    return 0


def _show_events(output: Output, log: "RunLog") -> None:
    from podium.render_rich import table

    rows = [
        {
            "run": log.run,
            "n": commit.n,
            "at": iso(commit.at),
            "epoch": commit.epoch,
            "causes": commit.causes,
            "events": [type(event).__name__ for event in commit.events],
        }
        for commit in log.commits
    ]
    begun = log.commits[0].at if log.commits else 0
    lines = [
        [
            str(commit.n),
            duration(commit.at - begun),
            ", ".join(type(event).__name__ for event in commit.events),
        ]
        for commit in log.commits
    ]
    picture = table(["n>", "after>", "events"], lines, wide="events")
    output.read(rows, picture, counts={"commits": len(rows), "aside": log.set_aside.total()})


def _show_tree(output: Output, log: "RunLog", content: bool, served: Callable[[], bool]) -> None:
    from podium.render import decided, fork_text, judged_text, tree
    from podium.render_lines import tree_lines
    from podium.render_rich import run_picture

    run = tree(log)
    if output.as_json:
        output.read([tree_json(run, content)], counts={status_of(run): 1})
        return
    now = output.world.now()
    console = output.console()
    if output.world.stdout.isatty():
        output.show(run_picture(run, now, content=content, width=console.width))
    else:
        output.text(f"{run.run}  {one_line(run.task)}")
        for line in filter(None, (fork_text(run), *tree_lines(run, now, content=content))):
            output.text(line)
        for line in judged_text(run):
            output.text(line)
        output.text(status_of(run))
    if content and run.outcome == "finished":
        output.text("")
        output.answer(run.answer)
    if who := decided(run):
        output.hint(f"decided by {who}")
    if run.aside:
        output.hint(f"{run.aside} messages of its log don't count: podium doctor")
    if not content:
        output.hint(f"with what was said: podium runs show {run.run} --content")
    failure_hints(output, run)
    if paused(log):
        output.hint(pause_error(run).hint)
    elif run.phase != "ended" and not served():
        output.hint(f"no deployment stands here; go on with it: podium run --continue {run.run}")


def tree_json(run: "RunTree", content: bool) -> dict[str, Any]:
    """A run with its turns and calls, for programs."""
    return {
        "run": run.run,
        "status": status_of(run),
        "task": run.task,
        "policy": run.policy,
        "started": iso(run.started),
        "ended": iso(run.ended),
        **{key: value for key, value in done(run).items() if key not in ("run_id", "answer")},
        "parent": run.parent or None,
        "forked_from": run.forked_from or None,
        "aside": run.aside,
        "signals": run.signals,
        "labels": [
            {"key": each.key, "value": each.value, "by": each.by, "head": each.head or None}
            for each in run.labels
        ],
        "rewards": [
            {"channel": each.channel, "value": each.value, "by": each.by, "head": each.head or None}
            for each in run.rewards
        ],
        "turns": [_turn_json(turn, content) for turn in run.turns],
        **({"answer": run.answer} if content and run.outcome == "finished" else {}),
    }


def _turn_json(turn: "TurnNode", content: bool) -> dict[str, Any]:
    return {
        "turn": turn.turn,
        "asker": turn.asker,
        "asked": iso(turn.asked),
        "replied": iso(turn.replied),
        "latency_ms": turn.latency_ms,
        "version": turn.version or None,
        "tokens": turn.spent.tokens,
        "cost_usd": turn.spent.cost / 1e6,
        "error": turn.error or None,
        "rejected": turn.reason or None,
        "round": turn.round or None,
        "calls": [_call_json(call, content) for call in turn.calls],
        **({"text": turn.text, "detail": turn.detail} if content else {}),
    }


def _call_json(call: "CallNode", content: bool) -> dict[str, Any]:
    return {
        "call": call.call,
        "worker": call.worker,
        "kind": call.kind,
        "status": call.status,
        "fault": call.fault,
        "attempts": call.attempts,
        "began": iso(call.began),
        "settled": iso(call.settled),
        "latency_ms": call.latency_ms,
        "tokens": call.spent.tokens,
        "cost_usd": call.spent.cost / 1e6,
        "run": call.child or None,
        "by": call.by or None,
        **({"arguments": call.arguments, "value": call.value} if content else {}),
    }


def watch(
    run: str,
    /,
    *,
    content: Annotated[bool, Parameter(help="Show what agents wrote.")] = False,
    common: Common = COMMON,
) -> int:
    """Follow a run until it ends.

    Parameters
    ----------
    run
        Its id, or the beginning of it.
    """
    no_file(run, "runs show {run}")
    output = Output(common.json)
    config = common.load().config

    async def follow() -> "RunTree | None":
        with Interrupts(output, lambda: "the run goes on without you") as interrupts:
            async with current().deployments.connect(config) as host:
                found = await find_or_wait(host.client, run)
                follower = Follower(host.client, output, content=content, result=True)
                return await follower.follow(found, interrupts)

    shown = asyncio.run(follow())
    if shown is None:
        return EXIT_INTERRUPTED
    if shown.phase == "paused":
        raise pause_error(shown)
    if output.as_json:
        said = done(shown)
        output.json({"done": said if content else {**said, "answer": None}})
    elif content and shown.outcome == "finished":
        output.answer(shown.answer)
    output.hint(f"look at it: podium runs show {shown.run} --content")
    return 0 if shown.outcome == "finished" else 1


async def find_or_wait(client: "Client", run: str) -> str:
    """The run that is meant; a whole id that has no log yet is that of a queued run."""
    try:
        return await client.find(run)
    except NotFound:
        if is_run(run):
            return run
        raise
