"""HTTP as an OpenAPI document describes it: each operation is a worker.

``openapi:OPERATION_ID`` (or ``openapi:GET /path``) is one operation. Its parameters and its body
are one JSON Schema (`plan`), its arguments a request (`writing`), the answer an outcome
(`answers`). The document is read when the worker is drafted, and again when it first works: where
it works, the document may be another file, or the same service elsewhere.

Redirects are followed by hand: what was given for one server is sent to no other.
"""

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urljoin, urlsplit

import msgspec

from actors import tracing
from actors.ports import Attempt, Outcome
from actors.workers.openapi.answers import answered
from actors.workers.openapi.declared import Declared, declared
from actors.workers.openapi.document import Document, Operation, load
from actors.workers.openapi.plan import Plan, planned, server, worker_name
from actors.workers.openapi.schemas import free
from actors.workers.openapi.securing import Credential, asked, credentials, named, schemes
from actors.workers.openapi.writing import Misfit, Written, written
from actors.workers.options import converted
from actors.workers.outcomes import failure, redacted, unable
from actors.workers.trust import trusted
from protocol.actions import MICRO, NOTHING, Json, Spend, WorkerSpec
from protocol.errors import InvalidData, NotFound, PodiumError
from replay.address import shown

if TYPE_CHECKING:
    from httpx2 import AsyncClient, Response

KIND: Final = "openapi"
"""The adapter's kind: what stands before the first colon of ``WorkerSpec.adapter``."""

MAX_REDIRECTS: Final = 5
"""Redirects that one attempt follows: more go in a circle."""

REPEATABLE: Final = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})
"""Methods that do no more when they are done twice (RFC 9110, 9.2.2). A call by another is tried
once unless the pool says otherwise: a server may have done what it gave no answer to."""

AGENT: Final = "podium"
"""The ``User-Agent`` of requests."""


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What may be set in the pool for a worker of this kind."""

    document: str
    """Where the document is: a URL, a full path, or a path from the pool file's folder."""
    base_url: str = ""
    """The server's address, in place of the document's; its operations' paths are added to it."""
    headers: dict[str, str] = {}
    """Sent with each request; may refer to secrets."""
    security: dict[str, str] = {}
    """What opens a security scheme of the document, by its name: a key, a token, ``user:password``;
    a reference to a secret."""
    max_bytes: int = 1_048_576
    """Bytes of an answer; a larger one has failed."""
    price_usd: float = 0.0
    """US dollars of each request that is sent, whatever comes back."""
    check_answers: bool = True
    """Whether JSON answers are held to what the document says of them."""
    only: tuple[str, ...] = ()
    """The operations to make workers of, where the address names none."""

    def __post_init__(self) -> None:
        """Refuse what can't be meant."""
        if not self.max_bytes > 0:
            raise ValueError("max_bytes must be above 0")
        if not self.price_usd >= 0:
            raise ValueError("price_usd can't be negative")


class OperationAdapter:
    """Hosts one operation.

    Args:
        spec: Its worker; ``spec.adapter`` is ``openapi:OPERATION``, ``spec.options`` are `Options`.

    Raises:
        InvalidData: The address names no operation, or an option is missing, unknown or wrong.
    """

    def __init__(self, spec: WorkerSpec) -> None:
        self.spec = spec
        self.options = converted(spec.options, Options, KIND, spec.name)
        self.address = _address(spec.adapter)
        self._spend = Spend(cost=round(self.options.price_usd * MICRO))
        self._client: AsyncClient | None = None
        self._made: _Endpoint | None = None
        self._making = asyncio.Lock()

    @staticmethod
    def draft(adapter: str, options: Mapping[str, Json]) -> WorkerSpec:
        """The operation as its document describes it. Reads the document: blocks."""
        made = converted(options, Options, KIND, adapter)
        address = _address(adapter)
        document = load(made.document)
        return _drafted(document, document.operation(address), made, options)

    @staticmethod
    def discover(adapter: str, options: Mapping[str, Json]) -> list[WorkerSpec]:
        """All operations of the document as workers, or those of ``only``. Blocks.

        One that no JSON arguments can ask for is left out unless ``only`` names it.

        Args:
            adapter: ``openapi``, without an operation.
            options: As of each of them.

        Raises:
            InvalidData: An option is wrong, or the document is none.
            NotFound: There is no document, or no operation of a name in ``only``.
            Unreachable: The document's server does not answer.
        """
        made = converted(options, Options, KIND, adapter)
        document = load(made.document)
        found: dict[str, WorkerSpec] = {}
        for operation in [
            document.operation(address) for address in made.only
        ] or document.operations():
            try:
                spec = _drafted(document, operation, made, options)
            except InvalidData:
                if made.only:
                    raise
                continue
            name = free(spec.name, found)
            found[name] = msgspec.structs.replace(spec, name=name)
        return list(found.values())

    async def run(self, attempt: Attempt) -> Outcome:
        """Ask the server once."""
        try:
            endpoint = await self._endpoint()
        except PodiumError as error:
            return unable(error)
        return await self._asked(endpoint, attempt)

    async def close(self) -> None:
        """Close the connections. The next request opens new ones."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def _endpoint(self) -> "_Endpoint":
        async with self._making:
            if self._made is None:
                self._made = await asyncio.to_thread(_endpoint, self.address, self.options)
            return self._made

    async def _asked(self, endpoint: "_Endpoint", attempt: Attempt) -> Outcome:
        import httpx2

        where = endpoint.plan.operation.address
        try:
            request = written(endpoint.plan, attempt.arguments)
        except Misfit as error:
            return failure("PARSE_ERR", "policy", f"{where}: {error}")
        try:
            with tracing.outside():
                return await self._sent(endpoint, request)
        except httpx2.InvalidURL as error:
            return failure(
                "PARSE_ERR", "policy", f"{where}: the address is too long, or none: {error}."
            )
        except (httpx2.HTTPError, httpx2.StreamError, ValueError) as error:
            said = redacted(str(error))
            at, kind = shown(endpoint.base), type(error).__name__
            text = f"{where} can't be asked at {at}: {kind}: {said}. Is its server there?"
            return failure("EXEC_ERR", "infrastructure", text, self._spend_of(error))

    async def _sent(self, endpoint: "_Endpoint", request: Written) -> Outcome:
        """Send a request, follow where it is sent on, and read the answer."""
        url = endpoint.url(request)
        method, own = request.method, True
        for _ in range(MAX_REDIRECTS + 1):
            asked = self._connected().build_request(
                method, url, **(endpoint.carried(request, method) if own else {})
            )
            response = await self._connected().send(asked, stream=True)
            try:
                code = response.status_code
                target = _next(response, method, url)
                if target is None:
                    return await self._read(endpoint, response)
            finally:
                await response.aclose()
            if code == 303 and method != "HEAD":
                method = "GET"
            own = own and _origin(target) == _origin(url)
            url = target
        text = f"{endpoint.plan.operation.address}: sent on more than {MAX_REDIRECTS} times."
        return failure("EXEC_ERR", "infrastructure", text, self._spend)

    async def _read(self, endpoint: "_Endpoint", response: "Response") -> Outcome:
        operation, limit = endpoint.plan.operation, self.options.max_bytes
        body = bytearray()
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) > limit and response.is_success:
                text = (
                    f"{operation.address} answered with more than {limit} bytes. Ask for less, "
                    "such as a page of it; or set max_bytes in the worker's options."
                )
                return failure("EXEC_ERR", "worker", text, self._spend)
            if len(body) > limit:
                break
        return answered(
            response.status_code,
            response.headers,
            bytes(body),
            where=operation.address,
            chosen="{" in operation.path,
            asks=endpoint.asks,
            declared=endpoint.declared,
            spend=self._spend,
        )

    def _spend_of(self, error: Exception) -> Spend:
        import httpx2

        return NOTHING if isinstance(error, httpx2.ConnectError) else self._spend

    def _connected(self) -> "AsyncClient":
        if self._client is None:
            from http.cookiejar import CookieJar, DefaultCookiePolicy

            import httpx2

            self._client = httpx2.AsyncClient(
                timeout=None,
                verify=trusted(),
                limits=httpx2.Limits(max_connections=None),  # the worker has its own
                follow_redirects=False,
                headers={"user-agent": AGENT},
                # No attempt is another's: what a server sets is not sent to it again.
                cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            )
        return self._client


class _Endpoint(msgspec.Struct, frozen=True):
    """An operation, ready to be asked."""

    plan: Plan
    base: str
    headers: dict[str, str]
    """What the pool gives for each request, by lower-case name."""
    credentials: tuple[Credential, ...]
    asks: tuple[str, ...]
    """The security schemes that the document names for it."""
    declared: Declared
    """What its answers are held to."""

    def url(self, request: Written) -> str:
        """Where the request goes."""
        query = [*request.query, *(each.pair for each in self.credentials if each.where == "query")]
        return self.base + request.path + (f"?{'&'.join(query)}" if query else "")

    def carried(self, request: Written, method: str) -> dict[str, Any]:
        """What goes with it, to its own server only."""
        headers = {name.lower(): value for name, value in request.headers.items()}
        headers |= {"accept": "application/json, text/*;q=0.8, */*;q=0.5"} | self.headers
        headers |= {
            each.name.lower(): each.value for each in self.credentials if each.where == "header"
        }
        cookies = [each.pair for each in self.credentials if each.where == "cookie"]
        if cookies or request.cookies:
            headers["cookie"] = "; ".join([*request.cookies, *cookies])
        headers |= tracing.passed_on()
        if method != request.method:  # sent on to be looked at: what was sent has arrived
            headers.pop("content-type", None)
            return {"headers": headers}
        if request.parts:
            return {"headers": headers, "files": request.parts}
        return {"headers": headers, "content": request.content}


def whereabouts(spec: WorkerSpec) -> tuple[str, str]:
    """The operation's place in its document (``GET /path``), and its server's address. Blocks.

    Raises:
        InvalidData: The document is none, or the operation can't be asked for.
        NotFound: There is no document, or no such operation.
        Unreachable: The document's server does not answer.
    """
    made = _endpoint(_address(spec.adapter), converted(spec.options, Options, KIND, spec.name))
    return made.plan.operation.place, made.base


def _endpoint(address: str, options: Options) -> _Endpoint:
    """Read the document, and make of it all that requests need. Blocks."""
    trusted()  # which the client, made on the event loop, would have to read
    document = load(options.document)
    operation = document.operation(address)
    return _Endpoint(
        planned(document, operation, named(document, options.headers, options.security)),
        server(document, operation, options.base_url),
        {name.lower(): value for name, value in options.headers.items()},
        credentials(document, operation, options.security),
        tuple(dict.fromkeys(name for each in asked(document, operation) for name in each)),
        declared(document, operation) if options.check_answers else Declared(),
    )


def _drafted(
    document: Document, operation: Operation, made: Options, options: Mapping[str, Json]
) -> WorkerSpec:
    schemes(document, made.security)
    server(document, operation, made.base_url)
    plan = planned(document, operation, named(document, made.headers, made.security))
    return WorkerSpec(
        name=worker_name(operation.address),
        description=plan.description,
        parameters=plan.parameters,
        adapter=f"{KIND}:{operation.address}",
        options=dict(options),
        reserve=Spend(cost=round(made.price_usd * MICRO)),
        attempts=2 if operation.method.upper() in REPEATABLE else 1,
    )


def _next(response: "Response", method: str, url: str) -> str | None:
    """Where an answer sends us on to; None if it is not followed.

    Only what merely asks is sent to another place, and nothing from an encrypted one to a plain.
    """
    location = response.headers.get("location", "")
    if response.status_code not in (301, 302, 303, 307, 308) or not location:
        return None
    target = urljoin(url, location)
    here, there = urlsplit(url), urlsplit(target)
    if there.scheme not in ("http", "https") or (here.scheme, there.scheme) == ("https", "http"):
        return None
    asks = method in ("GET", "HEAD")
    same = _origin(target) == _origin(url)
    kept = response.status_code in (307, 308) and same
    return target if asks or kept or (response.status_code == 303 and same) else None


def _origin(url: str) -> tuple[str, str, int]:
    where = urlsplit(url)
    return (
        where.scheme,
        where.hostname or "",
        where.port or (443 if where.scheme == "https" else 80),
    )


def _address(adapter: str) -> str:
    address = adapter.partition(":")[2]
    if not address:
        raise NotFound(
            f"{adapter!r} names no operation.",
            hint=f"Write {KIND}:OPERATION_ID, or '{KIND}:GET /path'.",
        )
    return address
