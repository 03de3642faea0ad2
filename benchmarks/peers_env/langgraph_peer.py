"""The work on LangGraph: a graph that plans, fans out with `Send`, joins, and plans again.

    python -m benchmarks.peers_env.langgraph_peer memory
    python -m benchmarks.peers_env.langgraph_peer postgres SAVERS URL

``durability="sync"`` in both: what a step made is saved before the next step starts. Asynchronous
throughout.

The Postgres saver of this version holds one lock for everything that goes through it, also over a
pool of connections (langchain-ai/langgraph#7259). One saver is what its documentation shows; with
several, runs are dealt over copies of the graph, each with a saver of its own on the shared pool:
the best that its user can get without patching it.
"""

import itertools
import operator
import sys
from collections.abc import Sequence
from typing import Annotated, Any, Final, TypedDict

import psycopg_pool  # type: ignore[import-not-found,unused-ignore]
import uvloop
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Send
from psycopg.rows import dict_row

from benchmarks.serving import ARGUMENT, ROUNDS, VALUE, WIDTH, Run, claim_stdout, serve

CONNECTIONS: Final = 20
"""Connections of the pool: with 8 it was slower, and one core has no use for more."""


class State(TypedDict):
    """The state of one run."""

    round: int
    results: Annotated[list[str], operator.add]


class Asked(TypedDict):
    """What one call is sent."""

    argument: str


async def plan(state: State) -> dict[str, int]:
    """Close a round and open the next."""
    return {"round": state["round"] + 1}


def fan_out(state: State) -> list[Any] | str:
    """The calls of the round that is open, or the end."""
    if state["round"] > ROUNDS:
        return str(END)
    return [Send("call", {"argument": ARGUMENT}) for _ in range(WIDTH)]


async def call(asked: Asked) -> dict[str, list[str]]:
    """A worker that returns at once."""
    return {"results": [VALUE]}


def build(saver: Any) -> Any:
    """The graph, kept by one saver."""
    graph = StateGraph(State)
    graph.add_node("plan", plan)
    graph.add_node("call", call)
    graph.add_edge(START, "plan")
    graph.add_conditional_edges("plan", fan_out, ["call", END])
    graph.add_edge("call", "plan")
    return graph.compile(checkpointer=saver)


def dealt_over(graphs: Sequence[Any]) -> Run:
    """Runs, dealt over the graphs in turn."""
    turn = itertools.cycle(graphs)

    async def run(name: str) -> int:
        config = {"configurable": {"thread_id": name}}
        start = {"round": 0, "results": []}
        state = await next(turn).ainvoke(start, config, durability="sync")
        return len(state["results"])

    return run


async def in_memory() -> None:
    """Serve with a fresh saver for each measurement: one that holds all earlier runs grows slow."""
    await serve(claim_stdout(), lambda: dealt_over([build(InMemorySaver())]))


async def on_postgres(savers: int, url: str) -> None:
    """Serve with so many savers on one pool of connections."""
    pipe = claim_stdout()
    options = {"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row}
    async with psycopg_pool.AsyncConnectionPool(
        url, min_size=CONNECTIONS, max_size=CONNECTIONS, kwargs=options
    ) as pool:
        made = [AsyncPostgresSaver(pool) for _ in range(savers)]
        await made[0].setup()
        graphs = [build(saver) for saver in made]
        await serve(pipe, lambda: dealt_over(graphs))


if __name__ == "__main__":
    if sys.argv[1] == "memory":
        uvloop.run(in_memory())
    else:
        uvloop.run(on_postgres(int(sys.argv[2]), sys.argv[3]))
