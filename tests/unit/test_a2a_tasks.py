"""What a run's log says in A2A's words, and the card of a pool."""

from a2a.types import TaskState, TaskStatusUpdateEvent
from hypothesis import given
from hypothesis import strategies as st

from podium.serve.a2a_tasks import LABEL, Asked, asked_of, card_of, key_of, news, settled, task_of
from protocol import subjects
from protocol.actions import Pool, WorkerSpec
from protocol.inbox import SET_ASIDE, Label
from replay.chain import InboxEntry, RunLog

ASKED = Asked("talk", "m1", "ann")

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
asked = st.builds(Asked, texts, texts, texts)


def log_with(*labels: tuple[str, object]) -> RunLog:
    log = RunLog(subjects.run_id(bytes(8)))
    for seq, (key, value) in enumerate(labels, 1):
        label = Label(run=log.run, key=key, value=value, by="x")
        log.inbox.append(InboxEntry(seq, f"h{seq}", label))
    return log


@given(asked, asked)
def test_a_message_has_one_run_and_another_has_another(a: Asked, b: Asked) -> None:
    assert (key_of(a) == key_of(b)) == (a == b)


def test_who_asked_is_whoever_was_noted_first() -> None:
    kept = {"context": "talk", "message": "m1", "owner": "ann"}
    other = {"context": "talk", "message": "m1", "owner": "eve"}
    assert asked_of(log_with((LABEL, kept), (LABEL, other))) == ASKED
    assert asked_of(log_with(("quality", kept))) is None
    assert asked_of(log_with((LABEL, "me"), (LABEL, kept))) == ASKED


def test_a_run_that_could_not_be_begun_is_rejected_with_the_reason() -> None:
    log = log_with((SET_ASIDE, "the pool is empty"))
    task = task_of(log, ASKED)
    assert task.status.state == TaskState.TASK_STATE_REJECTED
    assert task.status.message.parts[0].text == "the run could not be begun: the pool is empty"
    (update,) = news(log, ASKED, 0)
    assert isinstance(update, TaskStatusUpdateEvent)
    assert update.status.state == task.status.state
    assert not settled(log_with())
    assert task_of(log_with(), ASKED).status.state == TaskState.TASK_STATE_SUBMITTED


def test_a_pool_is_an_agent_whose_workers_are_skills() -> None:
    workers = (
        WorkerSpec(name="price", description="The price of a product."),
        WorkerSpec(name="writer", kind="agent"),
    )
    card = card_of(Pool(workers), name="shop", url="https://x/a2a", version="3", bearer=True)
    assert [(each.id, each.description, list(each.tags)) for each in card.skills] == [
        ("price", "The price of a product.", ["tool"]),
        ("writer", "writer", ["agent"]),
    ]
    assert card.capabilities.streaming
    assert card.security_schemes["bearer"].http_auth_security_scheme.scheme == "Bearer"
    assert "price, writer" in card.description
