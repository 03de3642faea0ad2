"""Who measures a version of a model: a function that is named on the command line."""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from podium.poolmodules import import_from
from protocol.errors import Usage
from trainer.promoting import Evaluate

OURS: Final = "trainer.gym.evaluate:evaluate"
"""Who is asked if nobody is named: the gym, with its gate's sets."""


def evaluator_of(name: str, folder: Path) -> Evaluate | None:
    """The function ``MODULE:FUNCTION``, imported from a folder first; the gym's own for "".

    Raises:
        Usage: There is none of that name.
    """
    module, _, function = (name or OURS).partition(":")
    if name:
        import_from(folder)
    try:
        found: Callable[..., Any] = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        if not name:
            return None
        raise Usage(
            f"there is no evaluator {name!r}: {error}",
            hint="--evaluator MODULE:FUNCTION names a function of two arguments, folder and "
            "version, that gives a trainer.gym.scores.Scores or a list of them",
        ) from None
    return found
