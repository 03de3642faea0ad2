"""The runs of a deployment that have used a model of ours."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from podium.client import READS_AT_ONCE
from protocol.errors import InvalidData, NotFound
from trainer.fold import read_fold
from trainer.versions.live import Use, use

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
            log = await client.log(run)
            place = log.state().policy.options.get("folder")
            if not isinstance(place, str) or Path(place) != folder:
                return None
            try:
                return use(await read_fold(client.reader, log))
            except (NotFound, InvalidData):  # cut or damaged, as `podium verify` says
                return None

    found = await asyncio.gather(*(one(run) for run in await client.ids()))
    return [each for each in found if each is not None]
