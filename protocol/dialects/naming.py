"""Workers by number instead of by name, where a policy should not be led by what a name promises.

Pure functions of the pool: the k-th worker is ``worker_k``, or ``k`` in the dialect of lists. In
dialects of slots it always is its slot, ``@k``. What a policy is shown goes through `shown`, what
it says comes back through `meant`, and no dialect knows of it. A name of no worker stays what it
is, both ways, and is settled by the rules.

Hidden are a worker's name and that of its model, in its own description, too, unless slots are all
that is wanted: a name may be a common word. A schema is shown as it is, and so are results.
"""

import re
from collections.abc import Mapping
from typing import Final

import msgspec

from protocol.actions import Call, Pool, WorkerSpec
from protocol.decisions import SLOTTED, Decision, Dialect, Observation, PolicySpec, Turn, View

_PREFIXES: Final[Mapping[Dialect, str]] = {"lists": "", "compact": "@", "slots": "@"}
"""What stands before a worker's number, where it isn't the usual."""


def _by_name(policy: PolicySpec) -> bool:
    return policy.naming == "names" and policy.dialect not in SLOTTED


def _described(policy: PolicySpec) -> bool:
    """Whether descriptions are shown with the names that are in them."""
    return policy.naming == "names" and policy.dialect == "slots"


def aliases(policy: PolicySpec, pool: Pool) -> dict[str, str]:
    """What a policy knows each worker as, by its name; the first worker of a name counts."""
    if _by_name(policy):
        return {worker.name: worker.name for worker in pool.workers}
    prefix = _PREFIXES.get(policy.dialect, "worker_")
    found: dict[str, str] = {}
    for number, worker in enumerate(pool.workers, 1):
        found.setdefault(worker.name, f"{prefix}{number}")
    return found


def shown(policy: PolicySpec, view: View) -> View:
    """The view as the policy may see it."""
    if _by_name(policy):
        return view
    names = aliases(policy, view.pool)
    return msgspec.structs.replace(
        view,
        pool=_pool(policy, names, view.pool),
        turns=tuple(_turn(names, turn) for turn in view.turns),
    )


def known(policy: PolicySpec, pool: Pool) -> Pool:
    """The pool as the policy knows it."""
    return pool if _by_name(policy) else _pool(policy, aliases(policy, pool), pool)


def meant(policy: PolicySpec, decision: Decision, pool: Pool) -> Decision:
    """What the policy decided, by the workers' own names."""
    names = aliases(policy, pool)
    return _renamed({alias: name for name, alias in names.items()}, decision)


def spoken(policy: PolicySpec, decision: Decision, pool: Pool) -> Decision:
    """A decision as the policy would name its workers: the inverse of `meant`."""
    return _renamed(aliases(policy, pool), decision)


def _renamed(names: Mapping[str, str], decision: Decision) -> Decision:
    calls = tuple(
        msgspec.structs.replace(call, worker=names.get(call.worker, call.worker))
        for call in decision.calls
    )
    return decision if calls == decision.calls else msgspec.structs.replace(decision, calls=calls)


def _pool(policy: PolicySpec, names: Mapping[str, str], pool: Pool) -> Pool:
    workers: list[WorkerSpec] = []
    for worker in pool.workers:
        alias = names[worker.name]
        said = worker.description if _described(policy) else _hidden(alias, worker)
        workers.append(msgspec.structs.replace(worker, name=alias, description=said))
    return Pool(tuple(workers))


def _hidden(alias: str, worker: WorkerSpec) -> str:
    """A worker's description without its name."""
    spoken = f"worker {alias}" if alias.isdecimal() else alias
    model = worker.options.get("model")
    telling = [worker.name, *([model] if isinstance(model, str) and model.strip() else [])]
    words = "|".join(re.escape(word) for word in sorted(telling, key=len, reverse=True))
    return re.sub(rf"(?<!\w)(?:{words})(?!\w)", spoken, worker.description, flags=re.IGNORECASE)


def _turn(names: Mapping[str, str], turn: Turn) -> Turn:
    def call(known: Call) -> Call:
        return msgspec.structs.replace(known, worker=names.get(known.worker, known.worker))

    def seen(items: tuple[Observation, ...]) -> tuple[Observation, ...]:
        return tuple(msgspec.structs.replace(item, call=call(item.call)) for item in items)

    return msgspec.structs.replace(
        turn,
        observations=seen(turn.observations),
        open=tuple(map(call, turn.open)),
        late=seen(turn.late),
    )
