"""Adapters of a user's own: a class that hosts a worker, named where others name a function.

``class:my_module:MyAdapter``. The class is made with the worker's spec and is an
`actors.ports.Adapter`: it is given each attempt whole, and gives an outcome with its spend. A
function is less work; this is for what needs the attempt's ids, or costs another amount each time.
"""

from collections.abc import Mapping
from typing import Any, Final, Protocol, runtime_checkable

from actors.ports import Adapter
from actors.workers.function import imported
from actors.workers.signature import first_paragraph
from protocol.actions import Json, WorkerSpec
from protocol.errors import InvalidData, PodiumError

KIND: Final = "class"
"""The adapter's kind: what stands before the first colon of ``WorkerSpec.adapter``."""

_METHODS: Final = ("run", "close")


@runtime_checkable
class Drafting(Protocol):
    """A class that knows its workers: what they take, what an attempt may spend."""

    def draft(self, adapter: str, options: Mapping[str, Json]) -> WorkerSpec:
        """The worker of these options; a static method. Raises `InvalidData`."""
        ...


class _Own:
    """The kind. See `actors.workers.Hosting`."""

    def __call__(self, spec: WorkerSpec) -> Adapter:
        """The adapter, made of its class.

        Raises:
            NotFound: There is no such class.
            InvalidData: It is no adapter's, or can't be made with this worker.
        """
        made = _class(spec.adapter)
        try:
            adapter: Adapter = made(spec)
        except PodiumError:
            raise
        except Exception as error:
            raise InvalidData(
                f"{spec.adapter!r} can't host {spec.name!r}: {type(error).__name__}: {error}",
                hint="It is made with the worker's spec alone: check the worker's options.",
            ) from error
        return adapter

    def draft(self, adapter: str, options: Mapping[str, Json]) -> WorkerSpec:
        """The worker as the class drafts it, or one that takes any object.

        Raises:
            NotFound, InvalidData: See `__call__`.
        """
        found = _class(adapter)
        if isinstance(found, Drafting):
            return found.draft(adapter, options)
        return WorkerSpec(
            name=found.__name__,
            description=first_paragraph(found),
            adapter=adapter,
            options=dict(options),
        )


OWN: Final = _Own()


def _class(adapter: str) -> Any:
    found = imported(KIND, adapter, "class")
    if not isinstance(found, type) or not all(
        callable(getattr(found, name, None)) for name in _METHODS
    ):
        raise InvalidData(
            f"{adapter!r} is no class of an adapter.",
            hint="It takes a WorkerSpec, and has `async run(attempt)` and `async close()`.",
        )
    return found
