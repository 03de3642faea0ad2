"""What a deployment and Ray's driver tell each other. Loads no Ray, which takes seconds."""

from hashlib import sha256
from typing import Final

import msgspec

from actors.programs import Declared
from protocol.actions import WorkerSpec

NAMESPACE: Final = "podium"
"""What Ray's namespaces of our actors begin with; each deployment has its own."""


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What the driver is started with."""

    declared: list[Declared]
    address: str = ""
    """Of a running cluster; empty starts one here."""
    deployment: str = ""
    """What tells this deployment from others on the same cluster."""
    log: str = ""
    """File of this machine to which the actors log; empty leaves that to Ray."""

    @property
    def namespace(self) -> str:
        """Ray's namespace of this deployment's actors."""
        return f"{NAMESPACE}-{self.deployment}" if self.deployment else NAMESPACE


class Looked(msgspec.Struct, frozen=True):
    """How the actors of a deployment are."""

    declared: str
    """Which, see `fingerprint`."""
    missing: dict[str, str]
    """Those that have not worked yet, and why they can't, where that is known."""
    offers: dict[str, tuple[WorkerSpec, ...]]
    """What the servers of actors offer, where that is no more what they host."""


def fingerprint(encoded: bytes) -> str:
    """What tells one declaration of actors from another."""
    return sha256(encoded).hexdigest()
