"""The server's application: routes, and the life of one request.

::

    POST /v1/chat/completions        a run; its answer as a completion, whole or as a stream
    GET  /v1/chat/completions/{id}   the completion of a run that was begun before
    GET  /v1/models                  the pools
    GET  /v1/models/{id}             one of them
    GET  /health                     whether the server answers; needs no token
"""

import logging
import time
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import AsyncExitStack, aclosing
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from podium.render_lines import story
from podium.resting import paused
from podium.serve.chat import MAX_BODY_BYTES, Asked, read
from podium.serve.completions import (
    KEEP_ALIVE,
    PREFIX,
    Answer,
    Chunks,
    answer_of,
    event,
)
from podium.serve.models import Model
from podium.serve.problems import Problem, bug, named, of_error
from podium.serve.runs import Held, Runs, unknown
from podium.serve.wire import EventStream, Gone, Guard, bearer, body_of, refusal, unless_gone
from protocol.errors import PodiumError
from protocol.subjects import is_run
from protocol.traces import TRACEPARENT
from replay.chain import RunLog

logger = logging.getLogger("podium.serve")

HEALTH = "/health"


def make(
    runs: Runs,
    *,
    tokens: Iterable[str] = (),
    only_here: bool = True,
    routes: Sequence[BaseRoute] = (),
    public: Iterable[str] = (),
) -> Starlette:
    """The application.

    Args:
        runs: What it does with runs.
        tokens: Whoever has one of them may ask; none lets everybody in.
        only_here: Whether only this machine can reach it.
        routes: Further ones, of other protocols.
        public: Paths of theirs that need no token.
    """
    chat = Chat(runs)
    since = int(time.time())

    async def models(_: Request) -> Response:
        data = [_model(model, since) for model in runs.models.values()]
        return JSONResponse({"object": "list", "data": data})

    async def model(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in runs.models:
            raise unknown(name, runs.models)
        return JSONResponse(_model(runs.models[name], since))

    async def health(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    return Starlette(
        routes=[
            Route("/v1/chat/completions", chat.create, methods=["POST"]),
            Route("/v1/chat/completions/{id}", chat.retrieve, methods=["GET"]),
            Route("/v1/models", models, methods=["GET"]),
            Route("/v1/models/{name:path}", model, methods=["GET"]),
            Route(HEALTH, health, methods=["GET"]),
            *routes,
        ],
        middleware=[
            Middleware(
                Guard,
                tokens=tuple(tokens),
                public=frozenset({HEALTH, *public}),
                only_here=only_here,
            )
        ],
        exception_handlers={Problem: _problem, HTTPException: _no_route, Exception: _bug},
    )


class Chat:
    """``/v1/chat/completions``."""

    def __init__(self, runs: Runs) -> None:
        self.runs = runs

    async def create(self, request: Request) -> Response:
        """A completion: each is a run."""
        try:
            asked = read(await body_of(request, MAX_BODY_BYTES))
            async with AsyncExitStack() as stack:
                held = await stack.enter_async_context(
                    self.runs.held(
                        asked,
                        key=request.headers.get("idempotency-key", ""),
                        owner=bearer(request),
                        traceparent=request.headers.get(TRACEPARENT, ""),
                    )
                )
                if asked.stream:
                    rest = stack.pop_all()  # the run is held until the stream has ended
                    return EventStream(lambda: self._stream(asked, held), named(held.run), rest)
                answer = await unless_gone(request.receive, self._answer(asked, held))
        except Gone:
            return Response(status_code=499)  # nobody reads it
        return JSONResponse(answer.completion(), headers=named(answer.run))

    async def retrieve(self, request: Request) -> Response:
        """The completion of a run, by its id or that of its completion."""
        run = request.path_params["id"].removeprefix(PREFIX)
        try:
            log = await self.runs.client.log(run) if is_run(run) else None
        except PodiumError as error:
            raise of_error(error, run) from None
        if log is None or not log.commits:
            raise Problem(404, "not_found", f"there is no run {run}")
        model = self._model_of(log)
        if log.state().phase != "ended" and not paused(log):
            text = f"run {run} is at work; ask again later"
            raise Problem(409, "run_at_work", text, run=run, again=True)
        answer = answer_of(log, model, (), await self.runs.usage(log))
        return JSONResponse(answer.completion(), headers=named(run))

    def _model_of(self, log: RunLog) -> str:
        """The model that a run was asked of; runs of other pools are nobody's here."""
        state = log.state()
        for model in self.runs.models.values():
            names = (pool.by_name().keys() for pool in (model.pool, *model.earlier))
            if model.policy == state.policy and state.workers.keys() in names:
                return model.name
        raise Problem(404, "not_found", f"run {log.run} is of no model that is served here")

    async def _answer(self, asked: Asked, held: Held) -> Answer:
        last: RunLog | None = None
        async with aclosing(self.runs.watch(held)) as logs:
            async for log in logs:
                last = log or last
        return await self.runs.answer(asked, held, last)

    async def _stream(self, asked: Asked, held: Held) -> AsyncGenerator[bytes, None]:
        chunks = Chunks(held.run, asked.model, int(time.time()), asked.usage)
        try:
            yield chunks.first()
            last, told = None, 0
            async with aclosing(self.runs.watch(held)) as logs:
                async for log in logs:
                    if log is None:
                        yield KEEP_ALIVE
                        continue
                    last = log
                    if asked.progress and (lines := story(log, told)):
                        yield chunks.progress(lines)
                    told = len(log.commits)
            answer = await self.runs.answer(asked, held, last)
            for chunk in chunks.rest(answer):
                yield chunk
        except Problem as problem:
            yield event(problem.body())
            raise
        except Exception as error:
            logger.exception("run %s: its stream broke", held.run)
            broken = bug(error, held.run)
            yield event(broken.body())
            raise broken from error


def _model(model: Model, since: int) -> dict[str, Any]:
    workers = [{"name": each.name, "kind": each.kind} for each in model.pool.workers]
    about = {"policy": model.policy.name, "workers": workers}
    return {
        "id": model.name,
        "object": "model",
        "created": since,
        "owned_by": "podium",
        "podium": about,
    }


async def _problem(_: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return refusal(error)


async def _no_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    text = f"{request.method} {request.url.path}: {error.detail}"
    code = "unknown_url" if error.status_code == 404 else "method_not_allowed"
    return refusal(Problem(error.status_code, code, text))


async def _bug(_: Request, error: Exception) -> Response:
    return refusal(bug(error))
