"""The tables of results, as ``docs/ownership.md`` shows them."""

from collections.abc import Iterable

from tests.model.explore import Found, explore
from tests.model.mixes import BY_NAME, MIXES, REMOVALS, SLOW, Removal
from tests.model.rules import ALL, Mix


def faults(mix: Mix) -> str:
    """The faults of a mix in words."""
    words = [f"{n} × {name.replace('_', ' ')}" for name, n in mix.faults._asdict().items() if n]
    return ", ".join(words) or "none"


def scene(mix: Mix) -> str:
    """What happens in a mix besides its faults."""
    words = ["child run"] if mix.child else []
    words += [" then ".join(mix.signals)] if mix.signals else []
    words += ["endpoint"] if mix.endpoint else []
    words += ["takeovers at once"] if mix.quick else []
    words += ["one worker"] if mix.workers == 1 else []
    return ", ".join(words) or "one call, two attempts"


def table(results: Iterable[Found]) -> str:
    """One line for each mix."""
    lines = [
        "| mix | scene | faults | states | transitions | s | result |",
        "|---|---|---|---|---|---|---|",
    ]
    for found in results:
        mix = found.mix
        cells = [mix.name, scene(mix), faults(mix), f"{found.states:,}", f"{found.transitions:,}"]
        lines.append(f"| {' | '.join(cells)} | {found.seconds:.1f} | {found.hole or 'no hole'} |")
    return "\n".join(lines)


def without(removal: Removal) -> Found:
    """Visit the mix of a removal with its rules taken out."""
    rules = ALL._replace(**dict.fromkeys(removal.without, False))
    return explore(BY_NAME[removal.mix], rules, frozenset(removal.ignore))


def removals() -> str:
    """One line for each removal."""
    lines = ["| without | mix | hole | steps |", "|---|---|---|---|"]
    for removal in REMOVALS:
        found = without(removal)
        names = " and ".join(f"`{name}`" for name in removal.without)
        lines.append(f"| {names} | {removal.mix} | {found.hole} | {len(found.trace)} |")
    return "\n".join(lines)


def chosen(slow: bool) -> tuple[Mix, ...]:
    """The mixes to visit."""
    return (*MIXES, *SLOW) if slow else MIXES
