"""Policies: what a conductor asks for its next decision.

========================  ==========================================================================
name                      policy
========================  ==========================================================================
``rules``                 plans questions of a few families by hand-written rules; needs no model
``openai:MODEL``          a model behind an OpenAI-compatible endpoint, by native tool calls
``python:module:name``    a class or function of your own that gives an instant policy
``written:WORKER:NAME``   the policy of that name; but the worker writes the answer
========================  ==========================================================================
"""

import importlib

from actors.ports import Policy
from protocol.decisions import WRITTEN, asked
from protocol.errors import NotFound, PodiumError, Usage

__all__ = ["find"]


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
    if kind == "openai" and rest:
        from actors.policies.openai import from_env

        return from_env(rest)
    writer, inner = rest.partition(":")[0], asked(name)
    if kind == WRITTEN and writer and not inner.startswith(f"{WRITTEN}:"):
        from actors.policies import written

        return written.over(writer, find(inner))
    if kind == "python" and ":" in rest:
        return _own(name, *rest.rsplit(":", 1))
    raise Usage(
        f"there is no policy {name!r}",
        hint="use 'rules', 'openai:MODEL', 'python:module:name' or 'written:WORKER:' before one",
    )


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
