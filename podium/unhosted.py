"""Workers that no actor hosts: child runs, which are tasks, and people, who answer when they do."""

from typing import Final

from protocol.actions import Json, WorkerSpec

CONDUCTOR: Final = "conductor"
"""The adapter of a worker that answers a subtask with a run of its own."""

CONDUCTOR_DESCRIPTION: Final = (
    "Solves a subtask of several steps with the same workers, in a run of its own."
)

CONDUCTOR_PARAMETERS: Final[dict[str, Json]] = {
    "type": "object",
    "properties": {
        "task": {"type": "string", "description": "The subtask, completely."},
        "inputs": {"type": "object", "description": "Data that belongs to it."},
    },
    "required": ["task"],
    "additionalProperties": False,
}
"""What a call of a conductor takes."""

PERSON: Final = "person"
"""The adapter of a worker that is somebody."""

PERSON_DESCRIPTION: Final = (
    "Asks a person, who may take hours. For what no other worker can know or decide: a preference, "
    "a permission, something that is written down nowhere."
)

PERSON_PARAMETERS: Final[dict[str, Json]] = {
    "type": "object",
    "properties": {
        "question": {
            "type": "string",
            "description": "The question, completely: the person does not see this conversation.",
        },
        "choices": {
            "type": "array",
            "items": {"type": "string"},
            "description": "The answers that are possible, if only some are.",
        },
    },
    "required": ["question"],
    "additionalProperties": False,
}
"""What a call of a person takes."""

PATIENCE_MS: Final = 30 * 86_400_000
"""Milliseconds that a person is waited for unless the pool says otherwise: a long holiday."""


def unhosted(name: str, adapter: str) -> WorkerSpec | None:
    """The worker of that adapter; None for one that has to be hosted."""
    match adapter:
        case "conductor":
            return WorkerSpec(
                name=name,
                kind="conductor",
                adapter=CONDUCTOR,
                description=CONDUCTOR_DESCRIPTION,
                parameters=CONDUCTOR_PARAMETERS,
            )
        case "person":
            return WorkerSpec(
                name=name,
                kind="person",
                adapter=PERSON,
                description=PERSON_DESCRIPTION,
                parameters=PERSON_PARAMETERS,
                timeout_ms=PATIENCE_MS,
                wait_ms=1,
                attempts=1,
            )
        case _:
            return None
