"""The card of a small model: what it is, what it was trained on, and when it may decide."""

from pathlib import Path
from typing import Final

import msgspec

from protocol.actions import Json
from protocol.errors import InvalidData

CARD: Final = "card.json"
ROWS: Final = "wordings.json"
"""The file of the model's folder that has `Card.wordings`: thousands of short texts."""

FOLDER: Final = Path(__file__).parent / "model"
"""The model that the package ships."""


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """What of a card decides; all else is for people, and stays what it is."""

    workers: tuple[str, ...]
    """The workers that the model is shown, in this order."""
    pool: str
    """How it is shown them: if they are described otherwise, they are others."""
    threshold: float
    """Natural logarithm of the least probability that a token of its decisions may have."""
    weights: str
    """SHA-256 of its weights."""
    wordings: frozenset[str] = frozenset()
    """Each three words in a row of its questions, see `marking.in_a_row`."""


def read(folder: Path) -> Card:
    """The card in a model's folder. Raises `InvalidData`."""
    try:
        card = msgspec.json.decode((folder / CARD).read_bytes(), type=Card)
        wordings = msgspec.json.decode((folder / ROWS).read_bytes(), type=frozenset[str])
    except (OSError, msgspec.MsgspecError) as error:
        raise InvalidData(
            f"the card in {folder} can't be read: {error}",
            hint="it has to be a folder as `make conductor` writes it",
        ) from None
    return msgspec.structs.replace(card, wordings=wordings)


def told(folder: Path) -> dict[str, Json]:
    """All that a card says. Raises `InvalidData`."""
    try:
        found: dict[str, Json] = msgspec.json.decode((folder / CARD).read_bytes())
    except (OSError, msgspec.MsgspecError) as error:
        raise InvalidData(f"the card in {folder} can't be read: {error}") from None
    return found
