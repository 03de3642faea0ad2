"""The policy that asks the small model where it was trained for it, and the rules where it wasn't.

Everything that it decides follows from the view, so nothing has to be kept: the marks are found
again from the question, and whose turn it is from what each turn says.
"""

import asyncio
import importlib
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from msgspec.structs import replace

from actors.policies.conductor import card
from actors.policies.conductor.marking import Unmarked, marked
from actors.policies.rules import RulesPolicy, reading
from actors.policies.rules.names import fold, is_country
from actors.policies.rules.wording import number
from protocol.actions import Json, Pool
from protocol.decisions import Decision, Observation, PolicySpec, Referable, Reply, Task, Turn, View
from protocol.dialects import parse, request
from protocol.dialects.pointers import ENTITIES
from protocol.dialects.shared import asked
from protocol.errors import InvalidData
from protocol.references import as_text, filled, plain, referred
from protocol.replies import linked
from protocol.schemas import misfit

if TYPE_CHECKING:
    from actors.policies.conductor.network import Network
    from actors.policies.conductor.words import Words

NAME: Final = "conductor"

VERSION: Final = 2
"""How it is asked, and when it decides: another one where the same view may get another decision by
the same weights."""

SPEAKS: Final = PolicySpec(name=NAME, dialect="slots")
"""How the model is spoken to, within the policy."""

MAX_TOKENS: Final = 128
"""Of one reply: the longest round of the gym takes about ninety."""

MAX_TURNS: Final = 8
"""Turns in which the model may make calls: the longest plan takes three, and each failure one."""

BY_RULES: Final = "By rules: "
"""What the text of a reply begins with that the model didn't make; the reason follows, a line."""

NO_NUMPY: Final = "NumPy can't be imported, so the model is not asked: pip install numpy"


class Said(NamedTuple):
    """What the model says to a view, if it may."""

    text: str
    decision: Decision
    least: float
    """The least log-probability of a token of it."""


class Not(NamedTuple):
    """Why the model doesn't decide."""

    why: str


class ConductorPolicy:
    """Asks the small model in a folder, or else the rules.

    Args:
        folder: Of the model: that which the package ships.
        threshold: How sure it has to be, in place of what its card says.
    """

    spec: PolicySpec = PolicySpec(name=NAME)

    def __init__(self, folder: Path = card.FOLDER, threshold: float | None = None) -> None:
        self._folder, self._threshold = folder, threshold
        self._rules = RulesPolicy()
        # Of its own: NumPy takes all cores for one decision, and who queues up in the loop's
        # threads keeps others out of them.
        self._thread = ThreadPoolExecutor(1, NAME)

    async def ask(self, view: View) -> Reply:
        """The reply to ``view``: of the model, or of the rules with the reason in its text."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self.reply, view)

    def reply(self, view: View, *, plain: bool = False) -> Reply:
        """See `ask`. Pure; takes a tenth of a second where the model is asked.

        Args:
            view: What is asked.
            plain: Whether the model's answers stay the values that it points at.
        """
        said = self.said(view)
        if isinstance(said, Said):
            decision = said.decision if plain else worded(said.decision, view)
            return Reply(text=said.text, decision=decision, version=self.version)
        reply = self._rules.decide(spelled(view))
        text = f"{BY_RULES}{said.why}\n{reply.text}".strip()
        return replace(reply, text=text)

    @property
    def version(self) -> str:
        """Which model decides."""
        return f"{NAME}-{VERSION}@{self.card.weights[:12]}"

    @property
    def parameters(self) -> int:
        """How many numbers the model has. Raises `InvalidData`."""
        return self._model[0].parameters

    @cached_property
    def card(self) -> card.Card:
        """What the model was trained on. Raises `InvalidData`."""
        return card.read(self._folder)

    def said(self, view: View) -> Said | Not:
        """What the model decides, or why it doesn't."""
        if why := self.missing:
            return Not(why)
        task = self._task(view.task)
        if isinstance(task, Not):
            return task
        pool = self._pool(view.pool)
        if isinstance(pool, Not):
            return pool
        shown = replace(view, task=task, pool=pool)
        if len(view.turns) > MAX_TURNS:
            return Not("the model found no end")
        calls: tuple[str, ...] = ()
        for turn in view.turns:
            if any(seen.status == "EXEC_ERR" for seen in turn.observations):
                return Not("a worker has refused what the model asked for")
            if not _its(turn, pool, Referable(task, calls)):
                return Not("the model has given up before")
            calls += tuple(call.id for call in asked(turn))
        said = self._decided(shown, Referable(task, calls))
        if isinstance(said, Said) and (why := overruled(said.decision, view, shown)):
            return Not(why)
        return said

    @cached_property
    def missing(self) -> str:
        """Why the model can't be asked at all; "" if it can."""
        try:
            importlib.import_module("numpy")
            _ = self.card, self._model
        except ImportError:
            return NO_NUMPY
        except InvalidData as error:
            return error.message
        return ""

    @cached_property
    def _model(self) -> "tuple[Network, Words]":
        from actors.policies.conductor.network import Network
        from actors.policies.conductor.words import Words

        return Network(self._folder), Words(self._folder)

    def _task(self, task: Task) -> Task | Not:
        """The task with its entities: as it marks them itself, or as they are found."""
        if task.sees or task.inputs.keys() - {ENTITIES}:
            return Not("the task brings data of its own")
        if task.inputs:
            return task
        found = marked(task.text, self.card.wordings)
        if isinstance(found, Unmarked):
            return Not(found.why)
        return Task(text=found.text, inputs={ENTITIES: list(found.entities)})

    def _pool(self, pool: Pool) -> Pool | Not:
        """The workers that the model knows, in its order."""
        by_name = pool.by_name()
        found = tuple(by_name[name] for name in self.card.workers if name in by_name)
        shown = Pool(found)
        if len(found) < len(self.card.workers) or offered(shown) != self.card.pool:
            return Not("the pool lacks workers that the model was trained with")
        return shown

    def _decided(self, shown: View, known: Referable) -> Said | Not:
        """What the model replies, if it is sure, and if that can be followed."""
        network, words = self._model
        prompt = words.prompt(request(SPEAKS, shown)["messages"])
        written = network.write(prompt, MAX_TOKENS)
        least = min(written.logprobs, default=0.0)
        needed = self.card.threshold if self._threshold is None else self._threshold
        if not written.ended or least < needed:
            return Not("the model is not sure")
        text = words.text(written.ids)
        decision = parse(SPEAKS, Reply(text=text), shown.pool, known)
        if not isinstance(decision, Decision):
            return Not("the model can't be understood")
        decision = linked(decision, known)
        why = doubt(decision, shown)
        return Not(why) if why else Said(text, decision, least)


def worded(decision: Decision, view: View) -> Decision:
    """The decision; an answer in a sentence, where the rules come to the same values.

    The model points at values and has no words of its own. Where it has asked for all that the
    rules would have, they word the answer, and have thereby looked at it.
    """
    found = None if decision.calls else reading(spelled(view))
    sentence = None if found is None else found.answer
    return Decision(answer=sentence) if sentence and _agree(decision, view, sentence) else decision


def _agree(decision: Decision, view: View, sentence: str) -> bool:
    """Whether a sentence has the values that an answer points at."""
    outputs = _outputs(view)
    values = [outputs[name] for name in referred(decision.answers, "output") if name in outputs]
    return bool(values) and all(_stands(number(_value(each)), sentence) for each in values)


def overruled(decision: Decision, view: View, shown: View) -> str:
    """Why the rules decide where the model would answer; "" if they don't.

    A question may be worded by what was learned and mean something else: a sum that nobody asked
    for, a city that is called as a country is. Rules that can read it know better where they come
    to another answer, can say what can't be had, or would look up something else of what it names.
    Where they take more for a name than is one, they have misread it, and the model stands. Where
    they can't read it, it stands unless a worker has chosen among several of a name, in a country
    that nobody has named.

    Args:
        decision: The model's.
        view: As it is.
        shown: As the model sees it, with its entities.
    """
    if decision.calls:
        return ""
    outputs = _outputs(view).values()
    named = {fold(str(each)) for each in (*shown.task.inputs[ENTITIES], *map(_value, outputs))}
    found = reading(spelled(view))
    if found is None:
        noted = (each for each in outputs if isinstance(each, dict) and "note" in each)
        elsewhere = any(fold(str(each.get("country"))) not in named for each in noted)
        return "there are several of that name" if elsewhere else ""
    if found.answer is not None:
        agreed = _agree(decision, view, found.answer)
        return "" if agreed else "the rules come to another answer"
    if found.problems:
        return "the rules know what can't be had"
    lookups = (call for call in found.needs if call.worker in ("city", "country"))
    if any(fold(str(call.arguments.get("name"))) in named for call in lookups):
        return "the rules would look up something else"
    return ""


def spelled(view: View) -> View:
    """The view, in which arguments have the values that they refer to: as the rules call."""
    outputs = {name: plain(value) for name, value in _outputs(view).items()}

    def put(seen: Observation) -> Observation:
        given = filled(seen.call.arguments, output=lambda name: outputs.get(name, ""))
        return replace(seen, call=replace(seen.call, arguments=given))

    turns = tuple(
        replace(
            turn,
            observations=tuple(map(put, turn.observations)),
            late=tuple(map(put, turn.late)),
        )
        for turn in view.turns
    )
    return replace(view, turns=turns)


def _outputs(view: View) -> dict[str, Json]:
    return {seen.call.id: seen.value for seen in _seen(view) if seen.status == "OK"}


def _seen(view: View) -> Iterator[Observation]:
    for turn in view.turns:
        yield from (*turn.observations, *turn.late)


def _value(output: Json) -> Json:
    return output["value"] if isinstance(output, dict) and "value" in output else output


def offered(pool: Pool) -> str:
    """How the model is shown a pool."""
    messages = request(SPEAKS, View(run="", task=Task(text=""), pool=pool))["messages"]
    return str(messages[0]["content"])


def _its(turn: Turn, pool: Pool, known: Referable) -> bool:
    """Whether a turn is the model's, and its calls were what it said."""
    decision = parse(SPEAKS, Reply(text=turn.text), pool, known)
    if turn.rejection is not None or not isinstance(decision, Decision):
        return False
    made = [(call.worker, call.arguments) for call in asked(turn)]
    return bool(made) and made == [(call.worker, call.arguments) for call in decision.calls]


def doubt(decision: Decision, shown: View) -> str:
    """Why a decision of the model isn't followed; "" if it is.

    It makes calls that their workers take and that have not succeeded yet, or an answer made of
    all that was found, after calls about all that is marked.
    """
    if not decision.calls:
        return _left_out(decision, shown)
    if decision.answers or decision.answer is not None:
        return "the model answers before it has seen what it asks for"
    if shown.final:
        return "the model asks for more where an answer is wanted"
    for call in decision.calls:
        spec = shown.pool.get(call.worker)
        if spec is None or misfit(spec.parameters, call.arguments):
            return "the model asks for what no worker does"
        if call.worker == "city" and is_country(str(call.arguments.get("name"))):
            return "the model takes a country for a city"
    done = [(seen.call.worker, seen.call.arguments) for seen in _seen(shown) if seen.status == "OK"]
    if any((each.worker, each.arguments) in done for each in decision.calls):
        return "the model asks again for what is known"
    return ""


def _left_out(decision: Decision, shown: View) -> str:
    used = set(referred(decision.answers, "output"))
    if not used:
        return "the model's answer is no output"
    given: list[str] = []
    for seen in _seen(shown):
        arguments = seen.call.arguments
        given += [as_text(filled(each, output=lambda _: "")) for each in arguments.values()]
        if seen.status == "OK":
            used |= set(referred(arguments, "output"))
    if left := [name for name in _outputs(shown) if name not in used]:
        return f"the model leaves out what call {left[0]} gave"
    entities = map(str, shown.task.inputs[ENTITIES])
    if left := [each for each in entities if not any(_stands(each, text) for text in given)]:
        return f"the model leaves out {left[0]}"
    return ""


def _stands(what: str, text: str) -> bool:
    """Whether a name or a number stands in a text, and not within a longer one."""
    return re.search(rf"(?<![\w.,]){re.escape(what)}(?!\w|[.,]\d)", text) is not None
