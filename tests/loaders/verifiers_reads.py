"""verifiers validates every line as an episode: ``FILE``."""

import json
import sys
from pathlib import Path
from typing import Any

from verifiers.v1.episode import WireEpisode


def main(path: Path) -> list[dict[str, Any]]:
    """What each line is to it."""
    found = []
    for line in path.read_text().splitlines():
        episode = WireEpisode.model_validate_json(line)
        (trace,) = episode.traces
        again = episode.to_record(float_decimals=None)["traces"][0]
        found.append(
            {
                "id": trace.id,
                "group": episode.group.id if episode.group else None,
                "ok": trace.ok,
                "reward": trace.reward,
                "turns": trace.num_turns,
                "branches": [
                    {
                        "ids": branch.token_ids,
                        "mask": branch.sampled_mask,
                        "logprobs": branch.logprobs,
                        "advantages": branch.advantages,
                        "ce": branch.loss_weights("ce"),
                    }
                    for branch in trace.branches
                ],
                "roles": [message.role for message in trace.messages],
                "nodes": len(again["nodes"]),
            }
        )
    return found


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
