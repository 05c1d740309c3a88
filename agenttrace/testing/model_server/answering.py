"""Which request gets which answer.

Asks the script, turns its reply into one of the wire forms, and notes what became of
the exchange.  Keeps the responses that can be retrieved later.  Threads and sockets
are not its business (`server`, `connection`), nor are pace and faults (`sending`).
"""

from __future__ import annotations

import asyncio
import inspect
import time
from typing import TYPE_CHECKING, cast

from agenttrace.testing.model_server.chat import ChatAnswer
from agenttrace.testing.model_server.embeddings import embeddings
from agenttrace.testing.model_server.encoding import (
    Ids,
    JsonObject,
    error_body,
    json_bytes,
)
from agenttrace.testing.model_server.replies import Failure, Reply
from agenttrace.testing.model_server.requests import (
    BadRequestError,
    Kind,
    Request,
    read_request,
)
from agenttrace.testing.model_server.responses import StoredResponse
from agenttrace.testing.model_server.scripts import Script, echo
from agenttrace.testing.model_server.sending import HungUp, Sending

if TYPE_CHECKING:
    from agenttrace.testing.model_server.connection import Connection, Incoming
    from agenttrace.testing.model_server.exchanges import Exchange, Exchanges


class Answering:
    """Answers requests as a script says.  Lives on the server's loop.

    Args:
        script: Decides.
        exchanges: Where to note what happens.
        models: What `GET /models` lists.
        remember: How many responses can be retrieved; older ones are forgotten.
    """

    def __init__(
        self,
        script: Script,
        exchanges: Exchanges,
        models: tuple[str, ...],
        remember: int,
    ) -> None:
        self.script = script
        self._exchanges = exchanges
        self._models = models
        self._remember = remember
        self._responses: dict[str, StoredResponse] = {}
        self._open: set[Exchange] = set()
        self._ids = Ids()
        self._started = int(time.time())

    async def answer(self, incoming: Incoming, connection: Connection) -> None:
        """Answer one request.

        Raises:
            ConnectionError: The connection is of no more use.
        """
        request, problem = read_request(
            incoming.method, incoming.target, incoming.headers, incoming.body
        )
        exchange = self._exchanges.begin(request)
        self._open.add(exchange)
        try:
            reply = await self._ask(exchange, problem)
            sending = Sending(connection, exchange, reply, self._ids.new("req_"))
            await sending.before_head()
            await self._perform(request, reply, sending)
        except asyncio.CancelledError:
            exchange.end("client_gone" if connection.client_gone else "cut")
            raise
        except ConnectionError:
            exchange.end("client_gone")
            raise
        except HungUp:
            exchange.end("cut")
            raise ConnectionAbortedError from None
        except Exception as error:
            # A reply that cannot be encoded: it is the script's, and its author looks
            # at the exchange.
            exchange.script_error = error
            exchange.end("cut")
            raise ConnectionAbortedError from error
        else:
            exchange.end("done")
        finally:
            self._open.discard(exchange)

    def release(self) -> None:
        """End the stalls of all that is open; let what runs in the background end."""
        for exchange in self._open:
            exchange.release()
        for response in self._responses.values():
            response.release()

    async def _ask(self, exchange: Exchange, problem: BadRequestError | None) -> Reply:
        request = exchange.request
        if problem is None and request.kind in (Kind.RETRIEVE, Kind.CANCEL):
            problem = self._unknown_response(request)
        if problem is not None:
            return _refusal(problem)
        try:
            # A script that nobody type-checks may return anything.
            reply = cast("object", self.script(request))
            if inspect.isawaitable(reply):
                reply = await reply
            if reply is not None and not isinstance(reply, Reply):
                message = f"a script returns a Reply or None, not {reply!r}"
                raise TypeError(message)  # noqa: TRY301 - answered as the script's own
        except Exception as error:  # noqa: BLE001 - whatever the script raises
            exchange.script_error = error
            failure = Failure(500, f"the script raised {error!r}", "script_error")
            return Reply(failure=failure, headers={"x-should-retry": "false"})
        if reply is not None:
            return reply
        if request.wants_answer:
            return echo(request)
        stored = self._responses.get(request.resource_id or "")
        # A stream that is resumed keeps its pace; its faults struck the first time.
        return Reply() if stored is None else Reply(gap=stored.reply.gap)

    async def _perform(self, request: Request, reply: Reply, sending: Sending) -> None:
        failure = reply.failure
        if reply.fail is not None and request.kind is Kind.CHAT and not request.stream:
            failure = Failure(500, reply.fail)
        if failure is not None:
            body = error_body(
                failure.status, failure.message, code=failure.code, param=failure.param
            )
            await sending.whole(failure.status, json_bytes(body))
        elif request.kind is Kind.CHAT:
            await self._chat(request, reply, sending)
        elif request.kind is Kind.RESPONSES:
            stored = self._store(request, reply)
            if request.stream:
                await self._stream(stored, sending)
            else:
                status = stored.status(_now())
                await sending.whole(200, json_bytes(stored.as_json(status)))
        elif request.kind is Kind.RETRIEVE:
            await self._retrieve(request, sending)
        else:
            await sending.whole(200, json_bytes(self._plain(request, reply)))

    async def _chat(self, request: Request, reply: Reply, sending: Sending) -> None:
        answer = ChatAnswer(request, reply, self._ids, int(time.time()))
        if not request.stream:
            await sending.whole(200, json_bytes(answer.whole()))
            return
        frames = answer.frames()
        sending.start_stream()
        await sending.frames(frames)
        await sending.finish_stream()

    async def _retrieve(self, request: Request, sending: Sending) -> None:
        stored = self._responses[request.resource_id or ""]
        if request.stream:
            after = request.query.get("starting_after", "")
            await self._stream(stored, sending, int(after) if after.isdigit() else -1)
        else:
            status = stored.poll(_now())
            await sending.whole(200, json_bytes(stored.as_json(status)))

    async def _stream(
        self, stored: StoredResponse, sending: Sending, after: int = -1
    ) -> None:
        opening, answer = stored.frames()
        skipped = after + 1
        sending.start_stream()
        sending.at_once(opening[skipped:])
        if wait := stored.left(_now()):
            await sending.pause(wait)
        await sending.frames(answer[max(0, skipped - len(opening)) :])
        await sending.finish_stream()
        stored.release()

    def _store(self, request: Request, reply: Reply) -> StoredResponse:
        stored = StoredResponse(request, reply, self._ids, time.time(), _now())
        self._responses[stored.id] = stored
        if len(self._responses) > self._remember:
            del self._responses[next(iter(self._responses))]
        return stored

    def _unknown_response(self, request: Request) -> BadRequestError | None:
        stored = self._responses.get(request.resource_id or "")
        if stored is None:
            message = f"Response with id '{request.resource_id}' not found."
            return BadRequestError(message, status=404)
        if request.kind is Kind.CANCEL and not stored.background:
            return BadRequestError("Cannot cancel a synchronous response.")
        return None

    def _plain(self, request: Request, reply: Reply) -> JsonObject:
        if request.kind is Kind.EMBEDDINGS:
            return embeddings(request, reply.usage)
        if request.kind is Kind.CANCEL:
            stored = self._responses[request.resource_id or ""]
            stored.cancel(_now())
            return stored.as_json(stored.status(_now()))
        if request.resource_id is not None:
            return self._model(request.resource_id)
        return {"object": "list", "data": [self._model(name) for name in self._models]}

    def _model(self, name: str) -> JsonObject:
        return {
            "id": name,
            "object": "model",
            "created": self._started,
            "owned_by": "agenttrace",
        }


def _refusal(problem: BadRequestError) -> Reply:
    failure = Failure(problem.status, str(problem), problem.code, problem.param)
    return Reply(failure=failure)


def _now() -> float:
    return time.monotonic()
