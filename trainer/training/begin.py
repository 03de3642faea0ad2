"""An untrained small model: weights from a seed, a vocabulary from what it will read and write."""

import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from protocol.errors import Conflict, InvalidData, Usage
from trainer.conductor.plan import Plan
from trainer.conductor.teaching import SPEAKS
from trainer.conductor.teaching import texts as of_plan
from trainer.datasets.conversation import conversations
from trainer.gym import small
from trainer.gym.gate import GYM, GYMS
from trainer.gym.play import run
from trainer.small import Shape, make, parameters, save, train_tokenizer


def begin(
    folder: Path, texts: Iterable[str], shape: Shape, size: int, seed: int, *, gym: str = ""
) -> int:
    """Make a model in a folder; how many parameters it has.

    Args:
        folder: Where it goes; nothing may be there.
        texts: What it will read and write.
        shape: How large it is.
        size: Tokens of its vocabulary, at most.
        seed: Of the weights.
        gym: One of `GYMS`, if it is made for that: its versions are measured there.

    Raises:
        Conflict: There is a file, or a folder that is not empty.
        Usage: The shape is none, the vocabulary has no room, or the folder would be in a file.
        InvalidData: There are no texts.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise Conflict(f"there is something in {folder}", hint="name another folder")
    if above := next((each for each in folder.parents if each.is_file()), None):
        raise Usage(f"{folder} can't be made: {above} is a file", hint="name another folder")
    from transformers.utils.logging import disable_progress_bar

    known = list(texts)
    if not known:
        raise InvalidData("there are no texts to make a vocabulary of", hint="name others")
    folder.parent.mkdir(parents=True, exist_ok=True)
    disable_progress_bar()
    draft = folder.with_name(f".{folder.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        words = train_tokenizer(known, size)
        model = make(shape, words, seed)
        save(draft, model, words, {"seed": seed, "trained": False, **({GYM: gym} if gym else {})})
        if folder.exists():
            folder.rmdir()
        draft.rename(folder)
    except ValueError as error:
        raise Usage(f"no model can be made so: {error}", hint="change the size") from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return parameters(model)


def gym_texts(name: str, episodes: int) -> Iterator[str]:
    """What is read and written in episodes of the gym, as its teacher plays them.

    Args:
        name: One of `GYMS`.
        episodes: How many.

    Raises:
        Usage: There is no such gym.
    """
    if name not in GYMS:
        raise Usage(f"the gym has no texts of {name!r}", hint=f"one of: {', '.join(GYMS)}")
    if name != small.NAME:
        yield from of_plan(Plan(texts=episodes))
        return
    drawn = list(small.draws(range(episodes)))
    for rollout in run(drawn, small.SmallTeacher(drawn)):
        for talk in conversations(SPEAKS, rollout, frozenset()):
            yield from (each["content"] for each in talk.messages)
