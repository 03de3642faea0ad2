"""Training: batches in, steps, metrics out, checkpoints in between, a bar for who watches.

::

    source = Shuffled(examples, size=64, seed=0)
    fit(learner, source, 500, checkpoints=folder, sinks=[FileSink(folder / "metrics.jsonl")])

Begun again after whatever ended it, it goes on from its last checkpoint. A source is asked for the
batch of a step and may do whatever it takes: draw it from a file, or have the weights as they are
then play rollouts.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeAlias

from protocol.errors import InvalidData
from trainer.learner.checkpoints import KEEP
from trainer.learner.learner import Learner, Stepped
from trainer.learner.order import Fed
from trainer.learner.sinks import Line, Sink

EVERY: Final = 100
"""Steps between two checkpoints, by default: of a small model, half a minute."""

MAX_REFUSED: Final = 25
"""Batches in a row that may be refused before training is given up: the next will be, too."""

SHOWN: Final = ("loss", "nll", "reward", "grad_norm", "tokens_per_s")
"""Metrics beside the bar."""

Source: TypeAlias = Callable[[int], Fed]
"""Gives the batch of a step, counted from 0."""


def fit(
    learner: Learner,
    source: Source,
    steps: int,
    *,
    checkpoints: Path | None = None,
    every: int = EVERY,
    keep: int = KEEP,
    sinks: Sequence[Sink] = (),
    watch: Callable[[Stepped], object] | None = None,
    title: str = "training",
    progress: bool = True,
    clock: Callable[[], float] = time.perf_counter,
) -> None:
    """Train until so many steps are done.

    Args:
        learner: Its weights.
        source: Its batches.
        steps: From the very first, those before a resumption included.
        checkpoints: A folder of them: training goes on from the last one, and writes more.
        every: Steps between two of them; the last step has one in any case.
        keep: How many stay.
        sinks: Where metrics go.
        watch: Called after each step, such as to publish; training ends there if it gives True, and
            does not go on where the last checkpoint says so.
        title: Beside the bar.
        progress: Whether there is a bar, where standard error is a terminal.
        clock: Seconds, for the rate of tokens.

    Raises:
        InvalidData: A batch can't be trained on, or too many in a row were refused.
    """
    over = checkpoints is not None and learner.resume(checkpoints) and learner.ended
    for sink in sinks:
        sink.begin(learner.steps)
    refused = 0
    with _bar(title, steps, learner.steps, progress) as show:
        while learner.steps < steps and not over:
            began = clock()
            fed = source(learner.steps)
            fetched = clock()
            stepped = learner.step(fed.examples)
            learner.position = fed.position
            line = _line(stepped, fed, fetched - began, clock() - fetched)
            for sink in sinks:
                sink.put(line)
            show(line)
            refused = refused + 1 if stepped.refused else 0
            if refused > MAX_REFUSED:
                raise InvalidData(
                    f"{refused} batches in a row were refused, the last since {stepped.refused}",
                    hint="look at the metrics of these steps; docs/learner.md says what each means",
                )
            over = learner.ended = watch is not None and watch(stepped) is True
            last = over or stepped.step == steps
            if checkpoints is not None and (last or stepped.step % every == 0):
                learner.save(checkpoints, keep=keep)


def _line(stepped: Stepped, fed: Fed, waited: float, took: float) -> Line:
    """One step's metrics: counted, told by the source, and timed."""
    said: dict[str, Any] = {"step": stepped.step, "updates": stepped.updates}
    if stepped.refused:
        said["refused"] = stepped.refused
    said |= stepped.values | fed.values
    said |= {"wait_s": round(waited, 6), "step_s": round(took, 6)}
    if took > 0:
        said["tokens_per_s"] = round(stepped.values["tokens"] / took, 1)
    return said


@contextmanager
def _bar(title: str, steps: int, done: int, wanted: bool) -> Iterator[Callable[[Line], None]]:
    """A bar on standard error; what it gives is told of each step."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Remaining(),
        TextColumn("{task.fields[said]}"),
    )
    with Progress(
        *columns, console=console, disable=not (wanted and console.is_terminal), transient=True
    ) as progress:
        task = progress.add_task(title, total=steps, completed=done, said="")

        def show(line: Line) -> None:
            said = "  ".join(
                f"{name} {value:.4g}"
                for name in SHOWN
                if isinstance(value := line.get(name), int | float)
            )
            progress.update(task, advance=1, said=said)

        yield show
