"""Who measures a version of a model: a function that is named on the command line."""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from podium.poolmodules import import_from
from protocol.errors import Usage
from trainer.versions.promoting import Evaluate


def evaluator_of(name: str, folder: Path, model: Path) -> Evaluate | None:
    """The function ``MODULE:FUNCTION``, imported from a folder first.

    For no name, the gym's gate if the model is made for the gym, and None if it isn't.

    Raises:
        Usage: There is none of that name.
    """
    if not name:
        from trainer.gym import gate

        return gate.scores if gate.gym_of(model) else None
    module, _, function = name.partition(":")
    import_from(folder)
    try:
        found: Callable[..., Any] = getattr(importlib.import_module(module), function)
    except Exception as error:  # whatever a module of the user's does when it is imported
        raise Usage(
            f"there is no evaluator {name!r}: {type(error).__name__}: {error}",
            hint="--evaluator MODULE:FUNCTION names a function of two arguments, folder and "
            "version, that gives a trainer.gym.scores.Scores or a list of them",
        ) from None
    return found
