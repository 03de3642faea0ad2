"""Record the golden logs of a version: ``python -m tests.golden.record VERSION [STORY...]``.

To be run once for each release, and its files committed with it; before that, for what is new in
the log. What is there is never touched.
"""

import argparse
import asyncio
import sys
from pathlib import Path
from typing import Final

from replay.chain import Messages
from replay.memory_log import MemoryLog
from replay.verify import values_of, verify_run
from tests.golden.stage import VirtualLoop, story_world
from tests.golden.store import LOGS, Manifest, plain, prompts_of, write
from tests.golden.stories import STORIES, Story

__all__ = ["main", "record"]

USAGE: Final = 2


def main(arguments: list[str] | None = None) -> int:
    """Record the stories. Ends with 2, and writes nothing, if the version has one of them."""
    parser = argparse.ArgumentParser(prog="python -m tests.golden.record", description=__doc__)
    parser.add_argument("version", help="the version that is released, such as 0.2.0")
    parser.add_argument("stories", nargs="*", metavar="STORY", help="all, if none is named")
    parser.add_argument("--folder", type=Path, default=LOGS, help="where golden logs lie")
    asked = parser.parse_args(arguments)
    target: Path = asked.folder / asked.version
    names: list[str] = asked.stories or list(STORIES)
    if unknown := sorted(set(names) - set(STORIES)):
        sys.stderr.write(f"there is no story {unknown[0]}: there are {', '.join(STORIES)}\n")
        return USAGE
    if there := [name for name in names if (target / name).exists()]:
        sys.stderr.write(f"{target / there[0]} is there: golden logs are never recorded again\n")
        return USAGE
    for name in names:
        record(name, STORIES[name], asked.version, target / name)
        sys.stdout.write(f"recorded {name}\n")
    return 0


def record(name: str, story: Story, version: str, folder: Path) -> None:
    """Have one story happen, and write down what was recorded of it."""
    loop = VirtualLoop()
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(_record(name, story, version, folder, loop))


async def _record(name: str, story: Story, version: str, folder: Path, loop: VirtualLoop) -> None:
    async with story_world(loop) as world:
        runs = await story(world)
        log = world.log
        assert isinstance(log, MemoryLog)
    messages: dict[str, Messages] = {}
    states, prompts = {}, []
    for run in runs:
        verified = await verify_run(log, run)
        if verified.outcome != "sound":
            raise RuntimeError(f"story {name}: {verified.problems}")
        messages[run] = await log.stored(run)
        whole = await log.read(run)
        values, _ = await values_of(log, whole)
        states[run] = plain(whole.state())
        prompts += prompts_of(whole, values)
    about = " ".join((story.__doc__ or "").split())
    manifest = Manifest(story=name, podium=version, about=about, runs=states)
    write(folder, manifest, messages, log.store.blobs.values(), prompts)


if __name__ == "__main__":
    sys.exit(main())
