"""Policies: what a conductor asks for its next decision.

========================  ==========================================================================
name                      policy
========================  ==========================================================================
``rules``                 plans questions of a few families by hand-written rules; needs no model
``conductor``             the small model that is shipped, for what it was trained on; else `rules`
``openai:MODEL``          a model behind an OpenAI-compatible endpoint, in any dialect
``local:NAME``            a model of ours, from a folder of Transformers (extra ``local``)
``static:NAME``           follows a plan from a file, which the run records
``python:module:name``    a class or function of your own that gives an instant policy
``written:WORKER:NAME``   the policy of that name; but the worker writes the answer
========================  ==========================================================================

`make` gives the policy that a run has recorded, `find` that of a short name.
"""

import importlib
from collections.abc import Iterable
from typing import Final, NamedTuple

import msgspec

from actors.ports import Models, Policy
from actors.workers.agent.chat import KEY_ENV
from protocol.decisions import WRITTEN, PolicySpec, asked
from protocol.errors import NotFound, PodiumError, Usage
from replay.address import shown

__all__ = ["ANYWHERE", "NAMES", "Place", "asks", "find", "make", "place"]

NAMES: Final = (
    "use 'rules', 'conductor', 'openai:MODEL', 'local:FOLDER', 'static:FILE', "
    "'python:module:name', or 'written:WORKER:' before one"
)
"""What to do about a name of no policy."""


class Place(NamedTuple):
    """Where a policy's model is."""

    base_url: str | None
    """The endpoint's address; None for the one that the environment names."""
    key_env: str
    """The environment variable that has the key."""
    folder: str = ""
    """Of a model of ours: where it is, instead."""

    def __str__(self) -> str:
        if self.folder:
            return f"in {self.folder}"
        where = shown(self.base_url) if self.base_url else "the usual address"
        return f"at {where} with the key in {self.key_env}"


ANYWHERE: Final = Place(None, KEY_ENV)
"""Where a policy's model is if its options don't say: as the conductor's environment has it."""


def place(spec: PolicySpec) -> Place | None:
    """Where the model is that a policy asks; None if it asks none."""
    from actors.policies import local, openai

    kind = asked(spec.name).partition(":")[0]
    if kind == local.KIND:
        return Place(None, "", local.options_of(spec).folder)
    if kind != openai.KIND:
        return None
    options = openai.options_of(spec)
    return Place(options.base_url, options.api_key_env)


def asks(hosted: Iterable[PolicySpec], spec: PolicySpec) -> bool:
    """Whether a deployment that hosts some policies may ask this one's model where it is.

    Nobody who may give tasks must thereby have a key sent to an address of his.
    """
    return place(spec) in {None, ANYWHERE, *map(place, hosted)}


def make(spec: PolicySpec, models: Models | None = None) -> Policy:
    """The policy that a run has recorded. Asks nobody anything yet.

    Args:
        spec: As recorded.
        models: Where models of ours are hosted, if they are.

    Raises:
        Usage, InvalidData: There is no such policy.
        NotFound: A policy of the user's own that can't be imported.
        Denied: It needs a key that is not there.
    """
    kind, _, rest = spec.name.partition(":")
    if writer := _writer(spec.name):
        from actors.policies import written

        inner = msgspec.structs.replace(spec, name=asked(spec.name))
        return written.over(writer, make(inner, models))
    if kind == "openai" and rest:
        from actors.policies.openai import from_spec

        return from_spec(spec)
    if kind == "local" and models is not None:
        from actors.policies.local import LocalPolicy

        return LocalPolicy(spec, models)
    if kind == "static":
        from actors.policies.static import StaticPolicy

        return StaticPolicy(spec)
    return find(spec.name)


def find(name: str) -> Policy:
    """The policy of a name. Asks nobody anything yet.

    Raises:
        Usage: No policy has such a name.
        NotFound: A policy of the user's own that can't be imported.
        Denied: It needs a key that is not there.
    """
    kind, _, rest = name.partition(":")
    if name == "rules":
        from actors.policies.rules import RulesPolicy

        return RulesPolicy()
    if name == "conductor":
        from actors.policies.conductor import ConductorPolicy

        return ConductorPolicy()
    if kind == "openai" and rest:
        from actors.policies.openai import from_env

        return from_env(rest)
    if writer := _writer(name):
        from actors.policies import written

        return written.over(writer, find(asked(name)))
    if kind == "python" and ":" in rest:
        return _own(name, *rest.rsplit(":", 1))
    raise Usage(f"there is no policy {name!r}", hint=NAMES)


def _writer(name: str) -> str:
    """The worker that writes the answers of the policy of that name; "" if none does.

    One writes them: the policy that is asked can't have a writer of its own.
    """
    kind, _, rest = name.partition(":")
    twice = asked(name).startswith(f"{WRITTEN}:")
    return rest.partition(":")[0] if kind == WRITTEN and not twice else ""


def _own(name: str, module: str, attribute: str) -> Policy:
    try:
        policy: Policy = getattr(importlib.import_module(module), attribute)()
    except PodiumError:
        raise
    except Exception as error:
        raise NotFound(
            f"policy {name!r} can't be made: {type(error).__name__}: {error}",
            hint=f"{module} has to be importable in the conductor's process, and "
            f"{attribute}() has to give a policy",
        ) from None
    return policy
