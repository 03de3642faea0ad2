"""A process that hosts the workers it is told of, as an actor's process does: for a test.

    python -m tests.integration.secret_worker LOG < one line of JSON

It says ``ready`` when all of them work, and ends with its input.
"""

import asyncio
import sys

import msgspec

from actors.logs import log_to
from actors.programs import Declared, known_to, start


async def main(log: str) -> None:
    """Host them until the input ends."""
    declared = msgspec.json.decode(sys.stdin.buffer.readline(), type=list[Declared])
    known: dict[str, str] = {}
    for each in declared:
        known |= known_to(each)
    log_to(log, "workers", declared[0].redact, known)
    programs = [await start(each) for each in declared]
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)
    for program in programs:
        await program.stop()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
