"""The runs of a deployment that have used a model of ours."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from podium.client import READS_AT_ONCE
from protocol.errors import NotFound
from trainer.live import Use, use

if TYPE_CHECKING:
    from podium.cli.world import Deployments
    from podium.client import Client
    from podium.config import Config


def uses_in(deployments: "Deployments", config: "Config", folder: Path) -> list[Use]:
    """How the runs of a deployment have used the model in a folder; none where none ever ran."""

    async def read() -> list[Use]:
        try:
            async with deployments.connect(config) as host:
                return await uses(host.client, folder)
        except NotFound:
            return []

    return asyncio.run(read())


async def uses(client: "Client", folder: Path) -> list[Use]:
    """See `uses_in`."""
    gate = asyncio.Semaphore(READS_AT_ONCE)

    async def one(run: str) -> Use | None:
        async with gate:
            return use(await client.log(run))

    found = await asyncio.gather(*(one(run) for run in await client.ids()))
    return [each for each in found if each is not None and Path(each.folder) == folder]
