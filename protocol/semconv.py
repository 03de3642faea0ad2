"""Every name that our traces and metrics have, once: spans, attributes, metrics, their values.

Names of others come from OpenTelemetry's semantic conventions, pinned here. Those for generative AI
and for messaging are in development and change; whoever raises a pin goes through this file, and a
test compares it with the conventions package that is installed. Names of our own begin with
``podium.``.
"""

from typing import Final

SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.44.0"
"""Of the general and the messaging conventions, and of what our spans are stamped with."""

GEN_AI_COMMIT: Final = "e8fc5751506258db1459d1bde47994e01dee922e"
"""Of ``open-telemetry/semantic-conventions-genai``, where the conventions for generative AI are
written; they have no release yet."""

SCOPE: Final = "podium"
"""The instrumentation scope of everything that is projected from a log."""

SERVICE: Final = "podium"
"""``service.name``, unless ``OTEL_SERVICE_NAME`` says otherwise."""

# ---------------------------------------------------------------- operations and kinds of spans

INVOKE_WORKFLOW: Final = "invoke_workflow"
PLAN: Final = "plan"
CHAT: Final = "chat"
INVOKE_AGENT: Final = "invoke_agent"
EXECUTE_TOOL: Final = "execute_tool"
SEND: Final = "send"
PROCESS: Final = "process"

OPERATIONS: Final = (INVOKE_WORKFLOW, PLAN, CHAT, INVOKE_AGENT, EXECUTE_TOOL)
"""What ``gen_ai.operation.name`` may be; a span's name begins with it."""

# ---------------------------------------------------------------- attributes of the conventions

SERVICE_NAME: Final = "service.name"
ERROR_TYPE: Final = "error.type"

OPERATION_NAME: Final = "gen_ai.operation.name"
PROVIDER_NAME: Final = "gen_ai.provider.name"
WORKFLOW_NAME: Final = "gen_ai.workflow.name"
AGENT_NAME: Final = "gen_ai.agent.name"
TOOL_NAME: Final = "gen_ai.tool.name"
TOOL_TYPE: Final = "gen_ai.tool.type"
TOOL_CALL_ID: Final = "gen_ai.tool.call.id"
REQUEST_MODEL: Final = "gen_ai.request.model"
RESPONSE_MODEL: Final = "gen_ai.response.model"
FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
TOKEN_TYPE: Final = "gen_ai.token.type"

INPUT_MESSAGES: Final = "gen_ai.input.messages"
OUTPUT_MESSAGES: Final = "gen_ai.output.messages"
TOOL_CALL_ARGUMENTS: Final = "gen_ai.tool.call.arguments"
TOOL_CALL_RESULT: Final = "gen_ai.tool.call.result"

MESSAGING_SYSTEM: Final = "messaging.system"
MESSAGING_OPERATION_NAME: Final = "messaging.operation.name"
MESSAGING_OPERATION_TYPE: Final = "messaging.operation.type"
DESTINATION_NAME: Final = "messaging.destination.name"
DESTINATION_TEMPLATE: Final = "messaging.destination.template"
MESSAGE_ID: Final = "messaging.message.id"
CONVERSATION_ID: Final = "messaging.message.conversation_id"
CONSUMER_GROUP: Final = "messaging.consumer.group.name"

NATS: Final = "nats"
"""``messaging.system``: a value of our own, the conventions have none for NATS."""

INPUT: Final = "input"
OUTPUT: Final = "output"
FUNCTION: Final = "function"
"""``gen_ai.tool.type``: run by the caller's side, not by the model's provider."""

# ---------------------------------------------------------------- attributes of our own

RUN_ID: Final = "podium.run.id"
EVENT_ID: Final = "podium.event.id"
EVENT_SEQ: Final = "podium.event.seq"
CAUSATION_ID: Final = "podium.causation.id"
ACTOR_ID: Final = "podium.actor.id"
ACTOR_ROLE: Final = "podium.actor.role"
CALL_ID: Final = "podium.call.id"
ATTEMPT: Final = "podium.attempt"
ROUND: Final = "podium.round"
TURN: Final = "podium.turn"
DEPTH: Final = "podium.depth"
POLICY_VERSION: Final = "podium.policy.version"
WORKFLOW_VERSION: Final = "podium.workflow.version"
STATUS: Final = "podium.status"
FAULT: Final = "podium.fault"
OUTCOME: Final = "podium.run.outcome"
RUN_MS: Final = "podium.run.duration_ms"
PAUSE_MS: Final = "podium.pause_ms"
SEGMENT: Final = "podium.segment"
LIMITED_BY: Final = "podium.limited_by"
TOKENS: Final = "podium.tokens"
COST_USD: Final = "podium.cost_usd"
TURNS: Final = "podium.turns"
CALLS: Final = "podium.calls"
MODEL_CALLS: Final = "podium.model_calls"
QUEUE_WAIT_MS: Final = "podium.queue.wait_ms"
DELIVERIES: Final = "podium.deliveries"
CONTENT_REF: Final = "podium.content.ref"
REASON: Final = "podium.reason"
DETAIL: Final = "podium.detail"
BY: Final = "podium.by"
SIGNAL_KIND: Final = "podium.signal.kind"
EPOCH: Final = "podium.epoch"
LINK_KIND: Final = "podium.link.kind"
DROPPED: Final = "podium.dropped_events"
DIVERGENCE_WHAT: Final = "podium.divergence.what"

CONDUCTOR: Final = "conductor"
WORKER: Final = "worker"
"""``podium.actor.role``."""

RETRIES: Final = "retries"
"""To the attempt, or the question, that failed before."""
REDELIVERS: Final = "redelivers"
"""To the question whose conductor was gone before the reply: its run was delivered to another."""
JOINS: Final = "joins"
"""To an attempt that this one has waited for, or is shown the result of."""
FORKED_FROM: Final = "forked_from"
RESUMES: Final = "resumes"
"""To the run's segment before a long pause."""
CONTINUES: Final = "continues"
"""To the run's segment that had as many spans as one may have."""
CONTINUED_IN: Final = "continued_in"
"""To the run's next segment."""
LINK_KINDS: Final = (RETRIES, REDELIVERS, JOINS, FORKED_FROM, RESUMES, CONTINUES, CONTINUED_IN)
"""What ``podium.link.kind`` may be."""

CARRIED: Final = (RUN_ID, POLICY_VERSION)
"""What travels with a call as baggage, beside its context."""

CONTENT: Final = frozenset(
    {INPUT_MESSAGES, OUTPUT_MESSAGES, TOOL_CALL_ARGUMENTS, TOOL_CALL_RESULT, DETAIL}
)
"""Attributes that hold what users and agents wrote: only where somebody asks for them."""

# ---------------------------------------------------------------- what happens within a span

ACTIVATED: Final = "podium.run.activated"
PAUSED: Final = "podium.run.paused"
RESUMED: Final = "podium.run.resumed"
SIGNALLED: Final = "podium.signal"
EXTENDED: Final = "podium.budget.extended"
LATE_REPORT: Final = "podium.report.late"

SPAN_EVENTS: Final = (ACTIVATED, PAUSED, RESUMED, SIGNALLED, EXTENDED, LATE_REPORT)

# ---------------------------------------------------------------- errors
#
# ``error.type`` is a report's status, why a run failed, why a decision was rejected, or one of:

CANCELLED: Final = "cancelled"
ABANDONED: Final = "abandoned"
"""Whoever was at it is gone: another conductor has taken the run over and asked again."""

# ---------------------------------------------------------------- metrics

CLIENT_OPERATION_DURATION: Final = "gen_ai.client.operation.duration"
CLIENT_TOKEN_USAGE: Final = "gen_ai.client.token.usage"
INVOKE_WORKFLOW_DURATION: Final = "gen_ai.invoke_workflow.duration"
INVOKE_AGENT_DURATION: Final = "gen_ai.invoke_agent.duration"
INFERENCE_CALLS: Final = "gen_ai.invoke_agent.inference_calls"
TOOL_CALLS: Final = "gen_ai.invoke_agent.tool_calls"
EXECUTE_TOOL_DURATION: Final = "gen_ai.execute_tool.duration"
SENT_MESSAGES: Final = "messaging.client.sent.messages"
CONSUMED_MESSAGES: Final = "messaging.client.consumed.messages"
PROCESS_DURATION: Final = "messaging.process.duration"
RUN_DURATION: Final = "podium.run.duration"
RUN_COST: Final = "podium.run.cost"
MAILBOX_AGE: Final = "podium.mailbox.age"
ACTOR_RESTARTS: Final = "podium.actor.restarts"
APPROVAL_WAIT: Final = "podium.approval.wait"
REPLAY_DIVERGENCES: Final = "podium.replay.divergences"

_QUICK: Final = tuple(0.01 * 2**n for n in range(14))
"""Seconds, 10 ms to 82 s."""

_SLOW: Final = tuple(0.1 * 2**n for n in range(13))
"""Seconds, 0.1 s to 7 min."""

_MESSAGING: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
"""Seconds, as the messaging conventions give them."""

_WAIT: Final = (1.0, 10.0, 60.0, 300.0, 1_800.0, 3_600.0, 14_400.0, 86_400.0, 604_800.0)
"""Seconds that a person takes, up to a week."""

HISTOGRAMS: Final[dict[str, tuple[str, str, tuple[float, ...]]]] = {
    CLIENT_OPERATION_DURATION: ("s", "GenAI operation duration.", _QUICK),
    CLIENT_TOKEN_USAGE: (
        "{token}",
        "Number of input and output tokens used.",
        tuple(float(4**n) for n in range(14)),
    ),
    INVOKE_WORKFLOW_DURATION: ("s", "How long a run took.", _SLOW),
    INVOKE_AGENT_DURATION: ("s", "How long an agent took.", _SLOW),
    INFERENCE_CALLS: (
        "{inference_call}",
        "Questions to a model in one run, those of child runs not counted.",
        tuple(float(2**n) for n in range(8)),
    ),
    TOOL_CALLS: (
        "{tool_call}",
        "Calls made in one run, those of child runs not counted.",
        tuple(float(2**n) for n in range(8)),
    ),
    EXECUTE_TOOL_DURATION: ("s", "How long a tool took.", _QUICK),
    PROCESS_DURATION: ("s", "Duration of processing operation.", _MESSAGING),
    RUN_DURATION: ("s", "From a run's first commit to its end, pauses included.", _SLOW),
    RUN_COST: ("USD", "What a run spent.", tuple(0.001 * 4**n for n in range(10))),
    MAILBOX_AGE: ("s", "How long an attempt waited for its worker.", _MESSAGING),
    APPROVAL_WAIT: ("s", "How long a run was paused until somebody let it go on.", _WAIT),
}
"""Unit, description and bucket boundaries of each histogram, by name."""

COUNTERS: Final[dict[str, tuple[str, str]]] = {
    SENT_MESSAGES: ("{message}", "Number of messages producer attempted to send to the broker."),
    CONSUMED_MESSAGES: ("{message}", "Number of messages delivered to the application."),
    ACTOR_RESTARTS: ("{restart}", "Runs taken over from a conductor that was gone."),
    REPLAY_DIVERGENCES: ("{divergence}", "What rules or prompts of today do otherwise."),
}
"""Unit and description of each counter, by name."""

TRAIN: Final = "podium.train."
"""What names of a learner's metrics begin with; the rest is their name in its files."""

TRAIN_TOKENS: Final = "podium.train.tokens"

TRAIN_GAUGES: Final[dict[str, tuple[str, str]]] = {
    "podium.train.step": ("{step}", "Batches that were learned from."),
    "podium.train.loss": ("1", "What the last step minimised."),
    "podium.train.nll": ("nat", "Negative log-likelihood of a token that is imitated."),
    "podium.train.reward": ("1", "Mean reward of the last step's rollouts."),
    "podium.train.kl_behaviour": ("nat", "Divergence of a token from the weights that drew it."),
    "podium.train.ref_kl": ("nat", "Divergence of a token from the reference model."),
    "podium.train.ess_frac": ("1", "Effective sample size over samples."),
    "podium.train.clip_frac": ("1", "Share of tokens whose ratio was cut."),
    "podium.train.masked_frac": ("1", "Share of tokens that were left out as too far off."),
    "podium.train.entropy": ("nat", "Entropy of the distribution that a token was drawn from."),
    "podium.train.grad_norm": ("1", "Norm of the gradient before it was cut."),
    "podium.train.tokens_per_s": ("{token}/s", "Tokens learned from in a second of a step."),
}
"""Unit and description of each of a learner's gauges, by name."""

TRAIN_COUNTERS: Final[dict[str, tuple[str, str]]] = {
    TRAIN_TOKENS: ("{token}", "Tokens learned from, context included."),
}
"""The same of its counters."""

NOT_ON_METRICS: Final = frozenset({RUN_ID, ACTOR_ID, EVENT_ID, CALL_ID, MESSAGE_ID, TOOL_CALL_ID})
"""Attributes with as many values as there are runs: a metric with one of them never ends."""
