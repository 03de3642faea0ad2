"""What a person asks for: a TOML file as a struct, flags over it, and where it is wrong.

Both `trainer.datasets.spec` and `trainer.training.spec` are read so.
"""

import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import msgspec

from protocol.errors import Usage

_S = TypeVar("_S", bound=msgspec.Struct)

Tree: TypeAlias = dict[str, Any]


def load(
    shape: type[_S],
    kind: str,
    file: Path | None,
    flags: Mapping[str, Any] | None,
    *,
    noun: str,
    command: str,
    filled: Callable[[Tree], Tree] = dict,
) -> _S:
    """The struct of a file, with flags over it.

    Args:
        shape: The struct; its field ``kind`` says which sort of thing is asked for.
        kind: Which one is; the file may say the same.
        file: TOML with the struct's fields; None for none.
        flags: Values by dotted path, such as ``{"select.since": "2026-11-01"}``; None is not given.
        noun: What the struct describes, for errors: ``a data set``.
        command: What makes one, without its kind: ``podium dataset build``.
        filled: Puts in what a kind has where nothing is said; leaves its argument as it is.

    Raises:
        Usage: The file can't be read, a key is unknown, a value doesn't fit; the message names the
            place.
    """
    tree: Tree = {}
    where = "the flags"
    if file is not None:
        where = str(file)
        try:
            tree = tomllib.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise Usage(f"{file} can't be read: {error}", hint="Mend the line it names.") from None
        said = tree.setdefault("kind", kind)
        if said != kind:
            raise Usage(
                f"{file} describes {noun} of kind {said!r}, and {kind!r} is asked for",
                hint=f"Say: {command} {said} --spec {file}",
            )
        _converted(shape, filled(tree), where)
    tree["kind"] = kind
    for path, value in (flags or {}).items():
        if value is not None:
            *tables, last = path.split(".")
            place = tree
            for table in tables:
                place = place.setdefault(table, {})
            place[last] = value
            _converted(shape, filled(tree), f"the flag for {path}")
    return _converted(shape, filled(tree), where)


def _converted(shape: type[_S], tree: Tree, where: str) -> _S:
    try:
        return msgspec.convert(tree, shape)
    except msgspec.ValidationError as error:
        text = str(error)
        hint = "Change that value."
        if "unknown field" in text:
            hint = f"Known there: {', '.join(_known(shape, text))}."
        raise Usage(f"{where}: {text}", hint=hint) from None
    except Usage as error:
        raise Usage(f"{where}: {error.message}", hint=error.hint) from None


def _known(shape: Any, error: str) -> list[str]:
    """The keys that are known where one isn't."""
    path = error.rpartition("`$")[2].strip("`") if "- at `$" in error else ""
    for key in filter(None, path.replace("[...]", "").split(".")):
        kind = {each.encode_name: each.type for each in msgspec.structs.fields(shape)}[key]
        shape = next((each for each in _structs(kind)), kind)
    return [each.encode_name for each in msgspec.structs.fields(shape)]


def _structs(kind: Any) -> list[Any]:
    """The structs that a field's type is, or holds."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return [kind]
    return [found for each in getattr(kind, "__args__", ()) for found in _structs(each)]
