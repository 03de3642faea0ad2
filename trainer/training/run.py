"""A training, from its beginning or from where it stopped, to the version that it publishes."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from protocol.actions import Json
from protocol.decisions import PolicySpec
from replay.model_folder import Version
from trainer.datasets.chat import Chat
from trainer.learner.fit import Source, fit
from trainer.learner.learner import Learner
from trainer.learner.sinks import FileSink, Line, Sink, lines
from trainer.rollouts.source import AskingSource
from trainer.training import rows
from trainer.training.job import Job
from trainer.training.live import Playing
from trainer.training.spec import LIVE_STEPS
from trainer.training.tasks import Tasks


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a training."""

    steps: int
    """Batches, those before a resumption included."""
    begun_at: int
    """Of them, those that were done before."""
    values: dict[str, Json]
    """Metrics of the last step."""
    version: Version | None
    """What was published; None if nothing was."""


class Shell(msgspec.Struct, frozen=True, kw_only=True):
    """What is around a training."""

    sinks: Sequence[Sink] = ()
    """Where metrics go besides the training's own file."""
    publish: bool = True
    """Whether the result is published."""
    current: bool = False
    """Whether it answers at once, whatever its scores."""
    average: bool = False
    """Whether the average of the weights is published (`Steps.ema`)."""
    progress: bool = True
    """Whether there is a bar."""
    by: str = ""
    why: str = ""


def from_rows(job: Job, folder: Path, shell: Shell) -> Outcome:
    """Train on a data set, of kind ``sft`` or ``rl``.

    Args:
        job: The training.
        folder: Of the data set.
        shell: See `Shell`.

    Raises:
        NotFound, Usage, InvalidData: The model, or the data set, is none that can be used.
    """
    spec = job.made.spec
    with _threads(spec.threads):
        # The schedule ends with the data, so that is read before the weights, which are large.
        source = rows.read(folder, spec, Chat.load(job.start).tokenizer_hash)
        steps = spec.steps or source.steps(spec.epochs)
        learner = _learner(job, steps)
        source.check(learner.network.room.context, spec.kind)
        return _fitted(job, learner, source, steps, shell, live=False)


def from_actors(
    job: Job,
    source: AskingSource,
    tasks: Tasks,
    policy: PolicySpec,
    shell: Shell,
    *,
    ready: Callable[[str], None] = lambda _: None,
    alive: Callable[[], None] = lambda: None,
) -> Outcome:
    """Train on what actors play with each version.

    Args:
        job: The training.
        source: Has groups played; started, and of the job's id.
        tasks: What is asked.
        policy: How the model is asked, see `live.policy_of`; the job has been told it.
        shell: See `Shell`. Each step's version is published and current in any case.
        ready: See `Playing`.
        alive: See `Playing`.

    Raises:
        NotFound, InvalidData: The model can't be trained, or nothing that is played can be scored.
    """
    spec = job.made.spec
    steps = spec.steps or LIVE_STEPS
    with _threads(spec.threads):
        learner = _learner(job, steps)
        playing = Playing(
            job,
            learner,
            source,
            tasks,
            steps,
            policy,
            ready=ready,
            alive=alive,
            last=lambda: _last(job),
        )
        return _fitted(job, learner, playing, steps, shell, live=True)


def _learner(job: Job, steps: int) -> Learner:
    return Learner.open(job.start, job.made.spec.options(steps), device=job.made.spec.device)


def _fitted(
    job: Job, learner: Learner, source: Source, steps: int, shell: Shell, *, live: bool
) -> Outcome:
    spec = job.made.spec
    begun = _Begun()
    fit(
        learner,
        source,
        steps,
        checkpoints=job.checkpoints,
        every=spec.every(live=live),
        keep=spec.keep,
        sinks=[FileSink(job.metrics, spec.kind), begun, *shell.sinks],
        title=spec.kind.upper(),
        progress=shell.progress,
    )
    last = _last(job)
    version = None
    if shell.publish or live:
        version = job.publish(
            lambda folder: learner.write(folder, average=shell.average),
            steps,
            current=shell.current or live,
            again=shell.current or learner.steps > begun.at,
            line=last,
            by=shell.by,
            why=shell.why,
        )
    return Outcome(steps=learner.steps, begun_at=begun.at, values=last, version=version)


def _last(job: Job) -> dict[str, Json]:
    told = lines(job.metrics)
    return told[-1] if told else {}


class _Begun:
    """Where a training was when it was begun: a sink of nothing else."""

    at = 0

    def begin(self, step: int) -> None:
        """See `Sink`."""
        self.at = step

    def put(self, line: Line) -> None:
        """See `Sink`."""


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Within it, torch takes so many threads; 0 for as many as before."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
