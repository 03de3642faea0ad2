"""What the tests of all dialects share: a pool, policies, and decisions of any kind."""

from typing import Any, Final

from hypothesis import strategies as st

from protocol.actions import Call, Json, Pool, Status, WorkerSpec
from protocol.decisions import (
    Decision,
    Dialect,
    Naming,
    Observation,
    PlannedCall,
    PolicySpec,
    Reply,
    Task,
    ToolCall,
    Turn,
    View,
)

LOOKUP: Final = WorkerSpec(
    name="lookup",
    description="Lookup finds a country.",
    parameters={"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]},
)
EXPERT: Final = WorkerSpec(
    name="gpt-5_expert",
    kind="agent",
    description="The GPT-5 expert, gpt-5_expert, answers with gpt-5.",
    parameters={
        "type": "object",
        "properties": {"subtask": {"type": "string"}},
        "required": ["subtask"],
    },
    options={"model": "gpt-5"},
)
TABLE: Final = WorkerSpec(
    name="table",
    parameters={
        "type": "object",
        "properties": {"row": {"type": "integer"}, "column": {"type": "string"}},
        "required": ["row", "column"],
    },
)
FREE: Final = WorkerSpec(name="free")
POOL: Final = Pool((LOOKUP, EXPERT, TABLE, FREE))


def policy(dialect: Dialect, naming: Naming = "names", system: str = "") -> PolicySpec:
    """A policy that speaks like that."""
    return PolicySpec(name="p", dialect=dialect, naming=naming, system=system)


def view(*turns: Turn, pool: Pool = POOL, **fields: Any) -> View:
    """What a policy is shown after these turns."""
    return View(run="r1", task=Task(text="How many?"), pool=pool, turns=turns, **fields)


def seen(
    call: str, worker: str, value: Json = "x", *, status: Status = "OK", **more: Any
) -> Observation:
    """An observation of a call."""
    arguments = more.pop("arguments", {"name": "Peru"})
    made = Call(id=call, worker=worker, arguments=arguments, **more)
    return Observation(call=made, status=status, value=value)


TEXT: Final = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
TAGS: Final = st.sampled_from(
    [
        *("<think>", "</think>", "<tool_call>", "</tool_call>", '{"name":"x"}', '"arguments"'),
        *("model_id=", "subtasks = ", "access_list: ", '["all"]', "all", "0", "1", "-"),
        *("{", "}", "[", "]", "[]", "'", '"', "\\", ",", ":", "\\ud800", "'''", "\n", " "),
    ]
)
"""What means something in one of the dialects."""

ANY_TEXT: Final = st.one_of(
    st.lists(TAGS | TEXT, max_size=16).map("".join),
    st.binary(max_size=60).map(lambda raw: raw.decode("latin-1")),
)
REPLIES: Final = st.builds(
    Reply,
    text=ANY_TEXT,
    tool_calls=st.lists(
        st.builds(ToolCall, id=ANY_TEXT, name=ANY_TEXT, arguments=ANY_TEXT), max_size=4
    ).map(tuple),
)
VALUES: Final[st.SearchStrategy[Json]] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT
    | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
ARGUMENTS: Final = st.one_of(
    st.dictionaries(TEXT, VALUES, max_size=3),
    st.builds(lambda key, value: {key: value}, st.sampled_from(["name", "subtask"]), VALUES),
)
WORKERS: Final = st.one_of(
    st.sampled_from([worker.name for worker in POOL.workers]),
    st.sampled_from(["worker_9", "9", "-1", "007", "nobody"]),
    TEXT.filter(lambda text: text not in ("1", "2", "3", "4")),
)
"""Names of workers, and of none. What is a worker's number can't be meant as a name."""

CALLS: Final = st.builds(PlannedCall, worker=WORKERS, arguments=ARGUMENTS)


@st.composite
def plans(draw: st.DrawFn) -> Decision:
    """A plan whose steps see some of those before them."""
    calls = draw(st.lists(CALLS, min_size=1, max_size=4))
    steps = []
    for step, call in enumerate(calls):
        some = st.lists(st.integers(0, step - 1), unique=True) if step else st.just([])
        sees = tuple(draw(some | st.just(list(range(step)))))
        steps.append(PlannedCall(call.worker, call.arguments, sees=sees))
    return Decision(calls=tuple(steps), last_answers=True)
