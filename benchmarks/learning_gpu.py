"""A larger conductor on a GPU: what more parameters are worth, by the exam of `learning`.

    python -m benchmarks.learning_gpu --out FOLDER       teaching alone is 7 minutes of an H100

Seeds are taught beside each other, and what comes of each is made and measured beside each other,
too: minutes are those of processes that share the GPU. Begun again, it goes on with what is
missing. With each variant that is done, ``FOLDER/learning-gpu.json`` and the table,
``FOLDER/learning-gpu.md``, are written anew.
"""

import argparse
import os
import pathlib
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from typing import Any, Final, NamedTuple

import msgspec
import torch

from benchmarks import report
from benchmarks.learning import EPISODES, SETS, Stored
from trainer.conductor.exam import Exam
from trainer.conductor.plan import Plan
from trainer.conductor.results import (
    CORRECTED,
    LONGER,
    SFT,
    SFT_RL,
    Lengths,
    Result,
    Study,
    as_markdown,
    ordered,
)
from trainer.conductor.study import Seed
from trainer.small.model import Shape

SHAPE: Final = Shape(layers=6, width=256, heads=8, kv_heads=4, feed_forward=768)
"""5M parameters, six times those of the model that ships."""

VARIANTS: Final = (SFT, SFT_RL, LONGER, CORRECTED)
"""What is made of each seed: what the first of them comes to, and three ways on from there."""

PROCESSES: Final = 4
"""Of each seed, that play its lessons: 120 a second each, and a step takes 16."""


class Job(NamedTuple):
    """What the processes of one seed are told."""

    folder: pathlib.Path
    plan: Plan
    lengths: Lengths
    processes: int


def _seed(job: Job, processes: int) -> Seed:
    torch.set_num_threads(1)
    return Seed(job.folder, job.plan, processes, _say, job.lengths)


def taught(job: Job) -> float:
    """Teach a seed; the seconds of its steps."""
    return _seed(job, job.processes).made(SFT)[1]


def result(job: Job, variant: str, exam: Exam) -> Result:
    """What became of a variant of a seed that is taught, as the others are at work, too."""
    return _seed(job, max(1, job.processes // 2)).result(variant, exam)


def studied(
    jobs: dict[int, Job], variants: list[str], examined: Callable[[], Exam]
) -> Iterator[Result]:
    """All variants of all seeds, made and measured beside each other, as they are done.

    Args:
        jobs: By seed.
        variants: What is made of each.
        examined: Makes the exam, as the seeds are taught.
    """
    with ProcessPoolExecutor(len(jobs) * len(variants), get_context("spawn")) as pool:
        teaching = {pool.submit(taught, job): seed for seed, job in jobs.items()}
        exam = examined()
        asked: list[Future[Result]] = []
        for done in as_completed(teaching):
            seed = teaching[done]
            _say(f"seed {seed}: taught in {done.result():.0f} s")
            asked += (pool.submit(result, jobs[seed], each, exam) for each in variants)
        for made in as_completed(asked):
            one = made.result()
            right = [f"{name} {_percent(one, name)}" for name in SETS]
            _say(f"seed {one.seed}: {one.variant}, {one.seconds:.0f} s: {', '.join(right)}")
            yield one


def _percent(one: Result, name: str) -> str:
    scores = one.scores(name)
    known = None if scores is None else scores.get("accuracy")
    return "-" if known is None else f"{100 * known.value:.1f} %"


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def conditions(device: str, out: pathlib.Path) -> dict[str, Any]:
    """What somebody needs who wants to do it again."""
    command = " ".join(["python -m benchmarks.learning_gpu", *sys.argv[1:]])
    options = report.Options(command=command, load_1m=os.getloadavg()[0])
    name = torch.cuda.get_device_name() if device.startswith("cuda") else device
    return report.conditions(options, out) | {"device": name, "torch": str(torch.__version__)}


def written(out: pathlib.Path, found: Study, given: dict[str, Any]) -> None:
    """Write what is known so far: the table, and what it is made from."""
    made = Stored(conditions=given, study=found.slim())
    (out / "learning-gpu.json").write_bytes(msgspec.json.encode(made) + b"\n")
    (out / "learning-gpu.md").write_text(as_markdown(found) + "\n")


def main() -> int:
    """Teach, practise, correct, measure, write."""
    asked = _asked()
    plan = Plan(shape=SHAPE, device=asked.device)
    sft = msgspec.structs.replace(plan.sft, steps=asked.steps)
    rl = msgspec.structs.replace(plan.rl, steps=asked.practice)
    correction = msgspec.structs.replace(plan.correction, steps=asked.correction)
    plan = msgspec.structs.replace(plan, sft=sft, rl=rl, correction=correction)
    lengths = Lengths(as_long=asked.as_long)
    jobs = {
        seed: Job(
            asked.out / f"seed-{seed}",
            msgspec.structs.replace(plan, seed=seed),
            lengths,
            asked.processes,
        )
        for seed in asked.seeds
    }
    asked.out.mkdir(parents=True, exist_ok=True)
    given = conditions(asked.device, asked.out)
    found = Study(plan=plan, lengths=lengths, sets=SETS, episodes=asked.episodes, results=())
    for one in studied(jobs, asked.variants, lambda: Exam(plan, asked.episodes, SETS)):
        found = msgspec.structs.replace(found, results=ordered([*found.results, one]))
        written(asked.out, found, given)
    print((asked.out / "learning-gpu.md").read_text())
    return 0


def _asked() -> argparse.Namespace:
    plan = Plan()
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=[*VARIANTS])
    parser.add_argument("--steps", type=int, default=plan.sft.steps)
    parser.add_argument("--practice", type=int, default=plan.rl.steps)
    parser.add_argument("--correction", type=int, default=plan.correction.steps)
    parser.add_argument("--as-long", type=float, default=Lengths().as_long)
    parser.add_argument("--episodes", type=int, default=EPISODES)
    parser.add_argument("--processes", type=int, default=PROCESSES)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
