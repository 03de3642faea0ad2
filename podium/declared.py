"""The actors of a deployment: a conductor, its pool's workers, and the models of ours it asks."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from actors import policies
from actors.programs import Connection, Declared, placed
from podium.config import age_ms
from podium.roster import folders_of
from podium.shelved import shelves_of
from protocol.actions import Pool
from protocol.decisions import PolicySpec
from protocol.registry import Registered

if TYPE_CHECKING:
    from podium.daemon import Asked


def actors_of(
    asked: "Asked",
    hosted: Sequence[Registered],
    connection: Callable[[Any], Connection],
    variables: Mapping[str, str],
) -> list[Declared]:
    """What has to be there.

    Args:
        asked: What the deployment was started with.
        hosted: The workers.
        connection: Where the broker is, for a role.
        variables: How OpenTelemetry is configured.
    """
    config = asked.config
    endpoints = (*filter(None, [asked.spec]), *asked.endpoints)
    conductor = Declared(
        name="conductor-1",
        kind="conductor",
        connection=connection("conductor"),
        lease_s=config.lease_s,
        policies=tuple(sorted({asked.policy, config.policy, *asked.policies} - {""})),
        endpoints=endpoints,
        redact=config.redact,
        shelves=shelves_of(config),
        archive_after_ms=age_ms(after) if (after := config.archive.after) else 0,
        variables=dict(variables),
    )
    workers = [
        Declared(
            name=name,
            kind="worker",
            connection=connection("worker"),
            lease_s=config.lease_s,
            specs=specs,
            folders=folders_of(hosted, specs),
            redact=config.redact,
            secrets=config.secrets.place(),
            variables=dict(variables),
        )
        for name, specs in placed(Pool(tuple(each.spec for each in hosted))).items()
    ]
    models = [
        Declared(
            name=f"model-{count}",
            kind="model",
            # With a conductor's rights: nobody else may say what a policy decides. No code of a
            # user's runs there.
            connection=connection("conductor"),
            lease_s=config.lease_s,
            endpoints=(spec,),
            redact=config.redact,
        )
        for count, spec in enumerate(_ours(endpoints), 1)
    ]
    return [conductor, *workers, *models]


def _ours(endpoints: tuple[PolicySpec, ...]) -> list[PolicySpec]:
    """Of each folder of a model of ours the first policy, which says how it is hosted."""
    folders: dict[str, PolicySpec] = {}
    for spec in endpoints:
        place = policies.place(spec)
        if place is not None and place.folder:
            folders.setdefault(place.folder, spec)
    return list(folders.values())
