"""An agent's loop: ask its model, use the tools that it calls, ask again, until it answers.

The conversation is that of the dialect in which a conductor's model is asked, over a pool of the
agent's own: the model sees each result with its status, and mends its next call by it. Everything
is bounded: the turns, the tools at work at a time, the time of the attempt, and what may be spent.
At a bound there is one last request, for an answer without tools.
"""

from typing import Final

import msgspec

from actors.ports import Attempt, Outcome
from actors.workers.agent.exchanges import Asks, Uses, Watch, added, parts, recorded
from protocol.actions import NOTHING, Call, Json, Pool, Spend, Usage
from protocol.decisions import Observation, PlannedCall, Rejection, Turn
from protocol.decisions import Reply as Spoken
from protocol.dialects import openai as dialect
from protocol.dialects.shared import Message, cut
from protocol.exchanges import Exchange, Failed, Reply, Request, Said, Used

SPARE: Final = 0.05
"""Part of an attempt's time that is left for the report: one that comes in time tells of every
turn, one that is cut off tells nothing."""

MAX_SPARE_S: Final = 1.0
"""Seconds of it at most."""

LAST_WORD: Final = (
    "Answer now: your tools can't be used any more. Give the best answer that the results so far "
    "support, and say plainly what is missing or unsure."
)


class Turns:
    """One attempt of an agent.

    Args:
        endpoint: Its model.
        toolbox: What uses its tools.
        tools: Those that its model is offered; without any, the model is asked once.
        attempt: The attempt.
        max_turns: Requests in which tools are offered.
        max_tokens: The most that one reply may have.
        temperature: Of the model; None for the endpoint's own.
        reserve: What may be spent, as far as that can be known before; nothing for no bound.
    """

    def __init__(
        self,
        endpoint: Asks,
        toolbox: Uses,
        tools: Pool,
        attempt: Attempt,
        *,
        max_turns: int,
        max_tokens: int | None,
        temperature: float | None,
        reserve: Spend,
    ) -> None:
        self._endpoint, self._toolbox, self._tools = endpoint, toolbox, tools
        self._attempt, self._max_turns, self._max_tokens = attempt, max_turns, max_tokens
        self._extra: dict[str, Json] = {} if temperature is None else {"temperature": temperature}
        self._reserve = reserve
        requests = max_turns + 1 if tools.workers else 1
        self._share = Spend(tokens=reserve.tokens // requests, cost=reserve.cost // requests)
        seconds = attempt.timeout_s
        self._watch = Watch(seconds - min(MAX_SPARE_S, SPARE * seconds))
        self._before: Request = {}
        self.exchanges: list[Exchange] = []
        """All that was asked, said and used so far."""
        self._under_way = NOTHING
        """What is being asked or used, and may cost."""
        self.late = ""
        """Why it was asked for its answer before it gave one; "" if it wasn't."""

    @property
    def spend(self) -> Spend:
        """What the model and the tools have spent.

        A reply that did not come in time may be billed like any other: it counts as its part of
        what was reserved.
        """
        total = NOTHING
        for each in self.exchanges:
            if isinstance(each.reply, Said):
                total += each.reply.spend
            elif each.reply.status == "TIMEOUT":
                total += self._share
            for use in each.tools:
                total += use.spend
        return total

    @property
    def usage(self) -> Usage:
        """The tokens of the model, and of tools that are agents."""
        known = [each.reply.usage for each in self.exchanges if isinstance(each.reply, Said)]
        known += [use.usage for each in self.exchanges for use in each.tools]
        return Usage(sum(each.input for each in known), sum(each.output for each in known))

    @property
    def so_far(self) -> Outcome:
        """What an attempt that ends here has spent: of what is under way, all that it may cost."""
        spend = self.spend + self._under_way
        return Outcome(spend=spend, usage=self.usage, record=recorded(self.exchanges))

    def _most(self, calls: tuple[PlannedCall, ...]) -> Spend:
        total = NOTHING
        for call in calls:
            tool = self._tools.get(call.worker)
            total += tool.reserve if tool is not None else NOTHING
        return total

    async def run(self, conversation: list[Message]) -> Reply:
        """The model's last reply, or why there is none. Only cancellation is an exception."""
        if not self._tools.workers:
            return await self._ask(conversation, {})
        offered: dict[str, Json] = {"tools": dialect.tools(self._tools), "tool_choice": "auto"}
        for turn in range(1, self._max_turns + 1):
            said = await self._ask(conversation, offered)
            if isinstance(said, Failed) or not said.tool_calls or said.finish == "content_filter":
                return said
            conversation += await self._used(turn, said)
            if self._might_overspend(said):
                self.late = "its reserve was almost spent, and "
                break
        else:
            self.late = f"its {self._max_turns} turns were used up, and "
        conversation.append({"role": "user", "content": LAST_WORD})
        return await self._ask(conversation, offered | {"tool_choice": "none"})

    async def _ask(self, conversation: list[Message], more: dict[str, Json]) -> Reply:
        extra = self._extra | more
        began_ms = self._watch.passed_ms
        reply: Reply
        if self._watch.left_s > 0:
            self._under_way = self._share
            reply = await self._endpoint.ask(
                conversation,
                timeout_s=self._watch.left_s,
                max_tokens=self._max_tokens,
                extra=extra,
            )
            self._under_way = NOTHING
        else:
            text = f"The agent's time was used up by {len(self.exchanges)} turns and their tools."
            reply = Failed(status="TIMEOUT", fault="worker", text=text)
        request = parts(self._endpoint.model, conversation, self._max_tokens, extra)
        new, self._before = added(request, self._before), request
        took_ms = self._watch.passed_ms - began_ms
        self.exchanges.append(Exchange(new, reply, began_ms=began_ms, took_ms=took_ms))
        return reply

    async def _used(self, turn: int, said: Said) -> list[Message]:
        """The turn as the conversation has it, after the tools were used that it calls."""
        decided = dialect.parse(Spoken(text=said.text, tool_calls=said.tool_calls), self._tools)
        if isinstance(decided, Rejection):
            return dialect.told(Turn(text=cut(said.text), rejection=decided))
        numbered = f"{self._attempt.call}.{turn}"
        attempt = msgspec.structs.replace(self._attempt, call=numbered)
        self._under_way = self._most(decided.calls)
        used = await self._toolbox.use(decided.calls, attempt, self._watch)
        self._under_way = NOTHING
        self.exchanges[-1] = msgspec.structs.replace(self.exchanges[-1], tools=used)
        pairs = enumerate(zip(decided.calls, used, strict=True))
        seen = tuple(_seen(f"{numbered}-{place}", *pair) for place, pair in pairs)
        return dialect.told(Turn(text=said.text, observations=seen))

    def _might_overspend(self, said: Said) -> bool:
        """Whether one more turn, and the last request, might spend more than was reserved.

        Each is taken to spend as much as the one before.
        """
        limit, after = self._reserve, self.spend + said.spend + said.spend
        return (0 < limit.tokens < after.tokens) or (0 < limit.cost < after.cost)


def _seen(name: str, call: PlannedCall, used: Used) -> Observation:
    made = Call(id=name, worker=call.worker, arguments=call.arguments, ref=call.ref)
    return Observation(call=made, status=used.status, fault=used.fault, value=used.value)
