"""Clients of openai, of which some are traced and some are as if nothing was.

Patching goes by class, and a class that is patched and put back again and again is one
that the interpreter never learns.  So openai stays patched, and the plain clients have
the library's own method from before, and the two can take turns.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import openai

import agenttrace
from tests.benchmarks import servers

if TYPE_CHECKING:
    from collections.abc import Generator


class _Plain(openai.OpenAI):
    request = openai.OpenAI.request


class _AsyncPlain(openai.AsyncOpenAI):
    request = openai.AsyncOpenAI.request


@dataclass(frozen=True, slots=True)
class Clients:
    """Two clients of each colour, and a loop for half of them."""

    plain: openai.OpenAI
    traced: openai.OpenAI
    async_plain: openai.AsyncOpenAI
    async_traced: openai.AsyncOpenAI
    runner: asyncio.Runner


@contextmanager
def clients(models: str = "models") -> Generator[Clients]:
    """Run a server of such *models* and clients of it, with openai instrumented."""
    agenttrace.instrument("openai")
    with (
        servers.models(models) as url,
        asyncio.Runner() as runner,
        _Plain(base_url=url, api_key="unused") as plain,
        openai.OpenAI(base_url=url, api_key="unused") as traced,
    ):
        async_plain = _AsyncPlain(base_url=url, api_key="unused")
        async_traced = openai.AsyncOpenAI(base_url=url, api_key="unused")
        try:
            yield Clients(plain, traced, async_plain, async_traced, runner)
        finally:
            runner.run(async_plain.close())
            runner.run(async_traced.close())
            agenttrace.uninstrument("openai")
