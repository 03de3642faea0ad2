"""Every limit of the protocol: a named constant with its unit and its reason.

Limits of one component only (a pull's size, a retry's delay) stand at the top of that component's
module.
"""

from typing import Final

MAX_MESSAGE_BYTES: Final = 1_048_576
"""Bytes. The broker's default ``max_payload``; a client refuses a larger message before sending
it."""

MAX_COMMIT_BYTES: Final = 524_288
"""Bytes of one encoded commit: half of the broker's limit, so that headers and a raised field never
reach it."""

MAX_INLINE_BYTES: Final = 65_536
"""Bytes of a report's encoded value kept in the message; a larger one goes to a blob and is named
by its hash."""

MAX_RECORD_BYTES: Final = 4_096
"""Bytes of an attempt's record kept in its report; a larger one goes to a blob. Conductors read
every report, and need no record."""

MAX_VALUE_BYTES: Final = 67_108_864
"""Bytes of one value, inline or blob. A worker that returns more has failed: nothing downstream
could hold it."""

BLOB_CHUNK_BYTES: Final = 524_288
"""Bytes of one chunk of a blob: well under the broker's limit, few enough chunks for one batched
read."""

MAX_TASK_BYTES: Final = 65_536
"""Bytes of a task's encoded form. The task travels inside every prompt; larger inputs belong in a
document."""

MAX_POOL_BYTES: Final = 262_144
"""Bytes of an encoded pool. It is recorded in the first commit, which has to fit into one
message."""

MAX_POLICY_BYTES: Final = 49_152
"""Bytes of what a run records of its policy, a plan or a job's description: there has to be room
for it in the first commit, beside the largest task and pool."""

MAX_WORKERS: Final = 256
"""Workers of one pool. Endpoints refuse longer tool lists, and no policy chooses well among
more."""

MAX_REPLY_BYTES: Final = 131_072
"""Bytes of one policy reply kept in the log, about 30,000 tokens. A longer one is cut and
rejected."""

MAX_SAMPLED_BYTES: Final = 16_384
"""Bytes of a reply's packed tokens kept in its event, about 1,300 sampled ones; larger ones go to a
blob and are named by its hash. Every reader of a log reads its events."""

MAX_ARGUMENTS_BYTES: Final = 32_768
"""Bytes of one call's encoded arguments; a round of many calls has to fit into one commit."""

MAX_FILLED_BYTES: Final = MAX_ARGUMENTS_BYTES
"""Bytes of all outputs that are put into one attempt's arguments, encoded: as many as a policy
could have written itself. The message that asks for it holds them beside what the worker sees."""

MAX_SEEN_BYTES: Final = MAX_TASK_BYTES - MAX_ARGUMENTS_BYTES
"""Bytes of the outputs that a child run's task shows, encoded: what is left beside the arguments
that it is made of."""

MAX_ROUND_CALLS: Final = 64
"""Calls of one round: what fits into one commit beside the reply that asked for them."""

MAX_NESTING: Final = 100
"""Levels of lists and objects in one value. Parsers give up at a depth that depends on who calls
them; what one process can read, every other must be able to."""

MAX_DETAIL_CHARS: Final = 2_000
"""Characters of a reason or an error text kept in an event or a report: one screen."""

MAX_NAME_CHARS: Final = 200
"""Characters of who gave a signal, and why, kept in an event: many fit into one commit."""

MAX_DEPTH: Final = 8
"""Levels of runs below a root run, whatever a budget says. Deeper recursion has never paid in the
literature."""

MAX_REJECTIONS: Final = 3
"""Consecutive replies of a policy that may be rejected before the run goes to its final answer."""

MAX_POLICY_FAILURES: Final = 5
"""Consecutive failures of a policy's endpoint before the run pauses: about a minute with the
backoff below."""

POLICY_BACKOFF_MS: Final = 1_000
"""Milliseconds before the second try of a failed policy; doubles with each further failure."""

MAX_IDLE_ACTIVATIONS: Final = 5
"""Activations in a row without progress before a run is taken to kill its host, and paused: more
than conductors that are restarted in a row make of an innocent run."""

IDLE_WINDOW_MS: Final = 30_000
"""Milliseconds: an activation later than that after the one before doesn't count against a run.
What kills its host does so at once, and is delivered again after a lease; a run that waits quietly
for a slow worker must survive any number of restarts."""

REPORT_GRACE_MS: Final = 2_000
"""Milliseconds between a worker's own deadline and the conductor's: the worker's report should win
the race."""

FINAL_GRACE_MS: Final = 60_000
"""Milliseconds a run may take beyond its wall-clock budget to ask the policy for a final answer."""

MAX_COMMANDS_PER_TURN: Final = 256
"""Commands taken into one commit: bounds its size and keeps one busy run from holding up the
others."""

MAX_WORKER_NAME_CHARS: Final = 64
"""Characters of a worker's or a policy's name: what OpenAI accepts of a function's."""

NAME_PATTERN: Final = rf"^[A-Za-z][A-Za-z0-9_-]{{0,{MAX_WORKER_NAME_CHARS - 1}}}$"
"""Names of workers and policies: one subject token, and what OpenAI accepts as a function's
name."""
