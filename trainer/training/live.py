"""Reinforcement on live actors: each step publishes the weights, has groups played, learns of them.

::

    weights after step k  →  version, current  →  the model's server swaps it in
    groups of step k      ←  conductors and workers of the deployment, by that version
    rewards, advantages   →  one batch        →  weights after step k + 1

Versions are published once, and runs are begun once: both are named after the training and the
step. So one that is killed asks for the same again, and is given what was done meanwhile.
"""

from collections.abc import Callable, Mapping, Sequence

import msgspec

from protocol.actions import Json
from protocol.decisions import PolicySpec
from protocol.errors import InvalidData, Usage
from trainer.learner.learner import Learner
from trainer.learner.order import Fed
from trainer.records import Rollout
from trainer.reinforcing import batch
from trainer.rollouts.source import Ask, AskingSource, gathered
from trainer.rows import unfit
from trainer.training.job import Job
from trainer.training.spec import Spec
from trainer.training.tasks import Tasks


class Playing:
    """Gives the batch of a step; a source, as `trainer.learner.fit` takes one.

    Args:
        job: The training.
        learner: Whose weights are published.
        source: Has groups played; started.
        tasks: What is asked.
        steps: How many there will be.
        policy: The model, as the deployment hosts it.
        ready: Called with a version: returns when it answers whoever asks.
        alive: Called while groups are waited for: raises if nobody is there who would answer.
        last: The metrics of the last step, for a version's note.
    """

    def __init__(
        self,
        job: Job,
        learner: Learner,
        source: AskingSource,
        tasks: Tasks,
        steps: int,
        policy: PolicySpec,
        *,
        ready: Callable[[str], None] = lambda _: None,
        alive: Callable[[], None] = lambda: None,
        last: Callable[[], Mapping[str, Json]] = dict,
    ) -> None:
        self._job, self._learner, self._source, self._tasks = job, learner, source, tasks
        self._policy, self._ready, self._alive, self._last = policy, ready, alive, last
        self._live, self._steps = job.made.spec.live, steps
        self._version = ""

    def __call__(self, step: int) -> Fed:
        """The batch of a step, counted from 0."""
        live, spec = self._live, self._job.made.spec
        self._renew(step)
        tried = self._job.tried(step)
        again = f"/again-{tried}" if tried else ""
        asks = [
            Ask(
                key=f"{step}/{place}{again}",
                task=each.task,
                pool=each.pool,
                policy=self._policy,
                budget=each.budget,
                members=live.members,
            )
            for place, each in enumerate(self._tasks(step, live.groups, spec.seed))
        ]
        groups = gathered(self._source, asks, self._alive)
        rollouts = [each.rollout for group in groups for each in group.rollouts]
        try:
            fed = batch(rollouts, live.recipe, live.scheme, step / self._steps, spec.ref_kl)
        except InvalidData as error:
            self._job.try_again(step)
            raise InvalidData(
                f"step {step + 1}: {error.message}",
                hint="see what they died of (podium runs), mend it, and give the same command: it "
                "asks for other runs",
            ) from None
        values: dict[str, Json] = {
            "version": self._version,
            "missing_runs": sum(len(group.missing) for group in groups),
            "stale": _stale(rollouts, self._version),
        }
        return msgspec.structs.replace(fed, values=fed.values | values)

    def _renew(self, step: int) -> None:
        """Have the weights answer that the step's rollouts are to be made by."""
        base = step - step % self._live.publish_every
        if self._version and step != base:
            return
        before = self._job.published(base) if base and base != step else None
        if before is not None or not base:
            version = before.name if before is not None else self._job.made.version
            self._job.answer_by(version, why=f"{self._job.made.id} goes on with it")
        else:
            done = self._job.publish(self._learner.write, step, current=True, line=self._last())
            version = self._learner.version = done.name
        self._source.publish(version)
        self._ready(version)
        self._version = version


def _stale(rollouts: Sequence[Rollout], version: str) -> float:
    """The share of rollouts with a reply of another version."""
    other = sum(
        any(step.sampled and step.sampled.version != version for step in each.steps)
        for each in rollouts
    )
    return other / max(1, len(rollouts))


class _Cut(msgspec.Struct):
    """Of a policy's options, what has it draw from a part of the vocabulary."""

    top_p: float = 1.0
    top_k: int = 0


def policy_of(hosted: PolicySpec, spec: Spec) -> PolicySpec:
    """The policy of a deployment, as rollouts ask it.

    Args:
        hosted: What a run records of a local model.
        spec: Of the training.

    Raises:
        Usage: Nothing could be learned of what it replies.
    """
    drawn = {"temperature": spec.live.temperature, "seed": spec.seed}
    policy = msgspec.structs.replace(hosted, options={**hosted.options, **drawn})
    said = msgspec.convert(hosted.options, _Cut)
    why = unfit(spec.live.temperature, said.top_p, said.top_k)
    if spec.objective.truncated == "refuse" and why == "truncated":
        raise Usage(
            f"the deployment's policy draws with top_p {said.top_p:g} and top_k {said.top_k}: its "
            "log-probabilities are of a part of the vocabulary, and ratios to them are wrong",
            hint="leave both out of the pool file's [policy], then podium down, and podium up "
            "--pool FILE; or say truncated = 'apply' below [objective]",
        )
    return policy
