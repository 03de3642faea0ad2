"""The processes that a command and a daemon start: modules of ours, talked to over their input."""

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

MAX_LINE_BYTES: Final = 16 * 1024 * 1024
"""Bytes of one line of a process: every actor's trouble, and all that many servers offer."""


async def started(
    module: str,
    log: Path,
    variables: Mapping[str, str] | None = None,
    *,
    under: Sequence[str] = (),
) -> Process:
    """A module as a process, in a session of its own.

    Args:
        module: Which; its input and output are pipes.
        log: File to which its errors are appended.
        variables: Its environment, instead of this process's.
        under: A command that runs it, and whose process is to be had instead of its own.

    Raises:
        OSError: There is no memory or no file left.
    """
    with log.open("ab") as errors:
        return await asyncio.create_subprocess_exec(
            *under,
            sys.executable,
            "-P",  # else the working folder goes before the pool's own
            "-m",
            module,
            stdin=PIPE,
            stdout=PIPE,
            stderr=errors,
            start_new_session=True,
            env=variables,
            limit=MAX_LINE_BYTES,
        )
