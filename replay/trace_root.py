"""A run's own span, one for each of its segments: part of `trace`."""

from typing import Final

import msgspec

from protocol import semconv
from replay.spans import Attributes, Happening, Link, Span
from replay.trace_scene import Scene, messages, nanoseconds, said

MAX_HAPPENINGS: Final = 128
"""What is told within one span, as OpenTelemetry's SDKs limit it; beyond that it is counted."""


class Root(msgspec.Struct):
    """The span of the run's open segment, as far as it is known."""

    number: int = 0
    """Of the event that begins it; 0 until it has begun."""
    at: int = 0
    above: str = ""
    """The span above it, if there is one."""
    cause: str = ""
    depth: int = 0
    attempt: int = 0
    """Of the parent's call that the run answers; 0 for none."""
    task: str = ""
    began: int = 0
    """When the run did, milliseconds since the epoch."""
    segment: int = 0
    links: tuple[Link, ...] = ()
    happenings: list[Happening] = []
    dropped: int = 0

    @property
    def contents(self) -> list[str]:
        """What users and agents wrote, of what it will tell."""
        told = (each.attributes.get(semconv.DETAIL, "") for each in self.happenings)
        return [self.task, *(str(each) for each in told if each)]

    def tell(self, happening: Happening) -> None:
        """Something has happened within it."""
        if len(self.happenings) < MAX_HAPPENINGS:
            self.happenings.append(happening)
        else:
            self.dropped += 1

    def following(self, number: int, at: int, cause: str, after: int, link: Link) -> "Root":
        """The next segment's; what has happened since this one's end is told there.

        Args:
            number: Of the event that begins it.
            at: When that was.
            cause: The id of the event that led to it.
            after: When this segment has ended.
            link: Back to this one.
        """
        told, last = self.happenings, nanoseconds(after)
        self.happenings = [each for each in told if each.at_ns <= last]
        return Root(
            number=number,
            at=at,
            cause=cause,
            depth=self.depth,
            attempt=self.attempt,
            task=self.task,
            began=self.began,
            segment=self.segment + 1,
            links=(link,),
            happenings=[each for each in told if each.at_ns > last],
        )

    def continued(self, scene: Scene, end: int, link: Link) -> Span:
        """The span, where the run goes on in another segment; ``link`` leads there."""
        return self._span(scene, end, {semconv.SEGMENT: self.segment}, (*self.links, link))

    def ended(self, scene: Scene, end: int, totals: Attributes, answer: str, error: str) -> Span:
        """The span of the run's last segment, with what the whole run came to."""
        found = dict(totals)
        if self.segment:
            found[semconv.SEGMENT] = self.segment
            found[semconv.RUN_MS] = max(0, end - self.began)
        if answer:
            found[semconv.OUTPUT_MESSAGES] = messages("assistant", [said(answer)])
        return self._span(scene, end, found, self.links, error)

    def _span(
        self, scene: Scene, end: int, more: Attributes, links: tuple[Link, ...], error: str = ""
    ) -> Span:
        workflow = scene.policy.name
        attributes = scene.common(self.number, self.cause) | {
            semconv.OPERATION_NAME: semconv.INVOKE_WORKFLOW,
            semconv.WORKFLOW_NAME: workflow,
            semconv.DEPTH: self.depth,
            **more,
        }
        if self.attempt:
            attributes[semconv.ATTEMPT] = self.attempt
        if self.dropped:
            attributes[semconv.DROPPED] = self.dropped
        if scene.content:
            attributes[semconv.INPUT_MESSAGES] = messages("user", [said(self.task)])
        return scene.span(
            scene.context.span,
            f"{semconv.INVOKE_WORKFLOW} {workflow}",
            (self.at, end),
            attributes,
            under=scene.context.with_span(self.above),
            error=error,
            happenings=tuple(self.happenings),
            links=links,
        )
