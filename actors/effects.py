"""What a run has running outside: questions, attempts, child runs, withdrawals.

Every effect is started once per shell, keyed by its own id, and may be started again by another
shell or after a reconnection. Nothing here is recorded; what counts is what comes back.
"""

import asyncio
import contextlib
from typing import TYPE_CHECKING

from actors.attempts import call_message
from actors.models.context import Context
from actors.ports import SamplingPolicy
from actors.queues import Outgoing
from actors.waking import queue_again
from protocol import subjects
from protocol.codec import Withdrawal, encode
from protocol.commands import PolicyReply
from protocol.decisions import Reply
from protocol.dialects import to_prompt
from protocol.errors import PodiumError
from protocol.inbox import Signal
from protocol.limits import MAX_DETAIL_CHARS
from protocol.run import Ask, Make, Tell, Wait, Withdraw, due
from protocol.traces import TRACEPARENT, attempt_context
from protocol.views import child_report, child_start, view

if TYPE_CHECKING:
    from actors.run_shell import RunShell


class Effects:
    """The running effects of one run."""

    def __init__(self, shell: "RunShell") -> None:
        self.shell = shell
        self.wait_until = 0
        """When a deadline is due, milliseconds since the epoch; 0 for none."""
        self.recovered = False
        """Whether attempts that are open may have been dispatched before."""
        self._made: set[tuple[str, int]] = set()
        self._withdrawn: set[tuple[str, int]] = set()
        self._question: asyncio.Task[None] | None = None
        self._turn = 0
        self.context = Context()
        """What a model of ours has read and written."""

    @property
    def asking(self) -> bool:
        """Whether a policy is being waited for."""
        return self._question is not None and not self._question.done()

    def close(self) -> None:
        """Wait for nothing any more."""
        if self._question is not None:
            self._question.cancel()

    def forget(self) -> None:
        """Take nothing for started: what was sent may be lost."""
        self._made.clear()
        self._withdrawn.clear()
        self.recovered = True

    async def repeat(self) -> None:
        """Send open attempts again.

        A queue that still has one refuses it; a worker that made one knows it.
        """
        self._made.clear()
        self.recovered = True
        await self.start_due()

    async def start_due(self) -> None:
        """Start what is due and not yet running."""
        self.wait_until = 0
        calls: list[tuple[str, int]] = []
        for effect in due(self.shell.state):
            await self.shell.assure()
            match effect:
                case Make(call, attempt):
                    if (call, attempt) not in self._made:
                        calls.append((call, attempt))
                case Ask():
                    self._ask(effect)
                case Withdraw(call, attempt):
                    if (call, attempt) not in self._withdrawn:
                        await self._withdraw(call, attempt)
                case Wait(until):
                    self.wait_until = until
                case Tell():
                    await self._tell()
        if calls:
            await self._make(calls)
        self._rest()

    def _rest(self) -> None:
        state = self.shell.state
        waits = (
            bool(state.open)
            and state.asked is None
            and all(
                state.workers[state.calls[call].call.worker].kind == "conductor"
                for call in state.open
            )
        )
        self.shell.host.rest(self.shell.run, waits)

    # ------------------------------------------------------------------------------------ questions

    def _ask(self, effect: Ask) -> None:
        if effect.turn == self._turn:
            return  # asked, and perhaps replied to: the reply is on its way into the next commit
        self._turn = effect.turn
        self._question = asyncio.create_task(self._question_of(effect), name="question")

    async def _question_of(self, effect: Ask) -> None:
        shell = self.shell
        policy = shell.endpoint()
        if isinstance(policy, Reply):
            reply = policy
        else:
            spec = shell.state.policy
            shown = view(shell.state, shell.values, effect.limited_by)
            try:
                async with asyncio.timeout(spec.timeout_ms / 1_000):
                    if isinstance(policy, SamplingPolicy):
                        log = shell.host.log
                        reply = await self.context.ask(policy, shown, effect.turn, log)
                        known = bool(reply.prompt)
                    else:
                        reply, known = await policy.ask(shown), False
                reply = reply if known else to_prompt(reply, spec, shown)
            except TimeoutError:
                text = f"no reply within {spec.timeout_ms} ms"
                reply = Reply(status="TIMEOUT", error=text, spend=spec.reserve)
            except Exception as error:
                text = f"{type(error).__name__}: {error}"[:MAX_DETAIL_CHARS]
                reply = Reply(status="EXEC_ERR", error=text, spend=spec.reserve)
        shell.push(PolicyReply(effect.turn, shell.redactor.reply(reply)))

    # ------------------------------------------------------------------------------------- attempts

    async def _make(self, calls: list[tuple[str, int]]) -> None:
        state, host = self.shell.state, self.shell.host
        now = host.clock()
        messages: list[Outgoing] = []
        for name, attempt in calls:
            known = state.calls[name]
            if known.deadline <= now:
                continue  # about to be settled as timed out; its worker may have spent already
            self._made.add((name, attempt))
            spec = state.workers[known.call.worker]
            if spec.kind == "person":
                continue  # the log asks
            if spec.kind == "conductor":
                start = child_start(state, name, self.shell.values)
                await self.shell.assure()
                await host.tasks.put(
                    subjects.task(start.priority, start.run),
                    encode(start),
                    {TRACEPARENT: start.traceparent},
                )
                continue
            message = call_message(state, self.shell.values, name, attempt, again=self.recovered)
            subject = subjects.call(spec.place, state.priority, state.run, name, attempt)
            headers = self._headers(name, attempt)
            messages.append(Outgoing(subject, message, (known.deadline - now) / 1_000, headers))
        if messages:
            await self.shell.assure()
            await host.calls.send(messages)
        host.monitor.begun(self.shell, calls)
        self.recovered = False

    def _headers(self, name: str, attempt: int) -> dict[str, str]:
        """What an attempt says of its trace; nothing where its worker could tell, and nobody asks.

        In the first trace of a run that begins one, a span is named by what the call says anyway.
        """
        state = self.shell.state
        first, segment = state.hedged.get(name, (0, 0))
        segment = segment if attempt == first else state.calls[name].segment
        if not (self.shell.host.options.traced or state.traceparent or segment):
            return {}
        above = attempt_context(state.run, name, attempt, state.traceparent, segment)
        return {TRACEPARENT: above.traceparent}

    async def _withdraw(self, call: str, attempt: int) -> None:
        self._withdrawn.add((call, attempt))
        state, host = self.shell.state, self.shell.host
        worker = state.workers[state.calls[call].call.worker]
        if worker.kind == "conductor":
            child = subjects.child_id(state.run, call, attempt)
            signal = Signal(
                id=f"{state.run}/{call}/{attempt}",
                run=child,
                kind="cancel",
                by=f"run:{state.run}",
                reason="the run that called it doesn't wait any more",
            )
            await host.log.post(child, encode(signal))
            await queue_again(host.log, host.tasks, child)
            return
        await host.calls.withdraw(f"calls.{worker.place}.*.{state.run}.{call}.{attempt}")
        withdrawal = Withdrawal(state.run, call, attempt)
        await host.bus.publish(subjects.withdraw(worker.place), encode(withdrawal))

    # ------------------------------------------------------------------------------------------ end

    async def _tell(self) -> None:
        report = child_report(self.shell.state)
        await self.shell.host.log.post(report.run, encode(report))

    async def queue_again(self) -> None:
        """Have a paused run delivered to somebody: a signal waits in its inbox."""
        with contextlib.suppress(PodiumError):
            await queue_again(self.shell.host.log, self.shell.host.tasks, self.shell.run)
