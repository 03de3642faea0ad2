"""What the freight desk knows itself: its ports, and how to add up a bill."""

from typing import Any, Final

import podium

PORTS: Final = {
    "Bergen": {"country": "Norway", "currency": "NOK"},
    "Esbjerg": {"country": "Denmark", "currency": "DKK"},
    "Malmö": {"country": "Sweden", "currency": "SEK"},
}


@podium.tool(timeout_s=5)
def port(name: str) -> dict[str, str]:
    """The country of a port, and the currency that is paid there.

    Args:
        name: The port's name.
    """
    if name not in PORTS:
        raise ValueError(f"No ship goes to {name}. The ports are {', '.join(PORTS)}.")
    return PORTS[name]


@podium.tool(timeout_s=5)
def total(seen: podium.Seen) -> dict[str, int]:
    """What a pallet costs in the currency of a rate, and the dues in it in euros: whole numbers.

    It has to see a weight, a price per kilogram, the dues of a port and a rate.
    """
    if seen.failed:
        raise ValueError(f"The bill can't be added up: {'; '.join(map(str, seen.failed.values()))}")
    found: dict[str, Any] = {}
    for value in seen.values():
        found |= value
    dues = int(found["stdout"].split()[1])  # "Bergen 35 EUR a pallet", as the paper has it
    cost = (found["kg"] * found["eur_per_kg"] + dues) * found["rate"]
    return {"cost": round(cost), "dues_eur": dues}
