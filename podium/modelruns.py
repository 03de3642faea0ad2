"""The runs of a deployment that have used a model of ours."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from podium.reading import Found, of_each
from protocol.errors import NotFound
from trainer.fold import read_fold
from trainer.versions.live import Use, use

if TYPE_CHECKING:
    from podium.cli.world import Deployments
    from podium.config import Config
    from podium.log_reader import LogReader


def uses_in(deployments: "Deployments", config: "Config", folder: Path) -> Found[Use]:
    """How the runs of a deployment have used the model in a folder; none where none ever ran."""

    async def read() -> Found[Use]:
        try:
            async with deployments.connect(config) as host:
                return await uses(host.client, folder)
        except NotFound:
            return Found([], {})

    return asyncio.run(read())


async def uses(runs: "LogReader", folder: Path) -> Found[Use]:
    """See `uses_in`."""

    async def one(run: str) -> Use | None:
        log = await runs.log(run)
        place = log.state().policy.options.get("folder")
        if not isinstance(place, str) or Path(place) != folder:
            return None
        return use(await read_fold(runs.reader, log))

    return await of_each(await runs.ids(), one)
