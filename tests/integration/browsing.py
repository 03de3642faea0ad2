"""A policy that goes to a page and then looks around, as one does in a browser."""

from typing import Final

from protocol.decisions import Decision, PlannedCall, PolicySpec, Reply, View

POLICY: Final = PolicySpec(name=f"python:{__name__}:Browsing")


class Browsing:
    """Two rounds, each with a call of another tool of the same server; then what was seen."""

    spec = POLICY

    def decide(self, view: View) -> Reply:
        """See `InstantPolicy`."""
        rounds = (
            PlannedCall("browser_go", {"page": view.task.text}),
            PlannedCall("browser_where", {}),
        )
        if len(view.turns) < len(rounds):
            return Reply(decision=Decision(calls=(rounds[len(view.turns)],)))
        seen = [item.value for turn in view.turns for item in turn.observations]
        return Reply(decision=Decision(answer=str(seen)))
