"""Runs to look at, by real processes: busy, stuck, lost, and a very large one."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import contextmanager
from textwrap import dedent
from typing import TYPE_CHECKING

from tests.cli.given import COMMAND, TIME_LIMIT, die, environment

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

_TRACES = """
    import sys, time
    import agenttrace
    from agenttrace import semconv as s

    runtime = agenttrace.configure(state_dir=sys.argv[1], service_name="support")

    def agent(name):
        return agenttrace.span(f"invoke_agent {name}", operation="invoke_agent",
            attributes={s.GEN_AI_AGENT_NAME: name})

    def tool(name, **limits):
        return agenttrace.span(f"execute_tool {name}", operation="execute_tool",
            attributes={s.GEN_AI_TOOL_NAME: name}, **limits)

    def chat(model="gpt-4o", seconds=0.02):
        with agenttrace.span(f"chat {model}", operation="chat", attributes={
            s.GEN_AI_REQUEST_MODEL: model, s.GEN_AI_USAGE_INPUT_TOKENS: 812,
            s.GEN_AI_USAGE_OUTPUT_TOKENS: 64}):
            time.sleep(seconds)
"""
_WAITS = """
            runtime.flush()
            print("ready", flush=True)
            sys.stdin.readline()
"""
BUSY = (
    _TRACES
    + """
    for name in ("triage", "billing", "triage", "refund"):
        with agent(name):
            chat()
            with tool("search"):
                time.sleep(0.01)
            chat(seconds=0.05)
    try:
        with agent("shipping"), tool("track"):
            raise ConnectionError("the carrier's API answers 503")
    except ConnectionError:
        pass
    def words():
        with agent("writer"):
            yield "Dear"
            yield "customer"
    for word in words():
        break
    del word
    with agent("triage"):
        chat()
        with agent("research"), tool("crawl", heartbeat_timeout=30):
            chat("gpt-4o-mini")
"""
    + _WAITS
)
"""Runs that have ended, well and not so well, and one that is open."""
STUCK = (
    _TRACES
    + """
    import threading
    lock = threading.Lock()
    lock.acquire()

    def reserve():
        with tool("reserve", heartbeat_timeout=0.5):
            lock.acquire()

    with agent("clerk"):
        chat()
        thread = threading.Thread(target=agenttrace.carry(reserve), name="stock")
        thread.start()
        while not runtime.status().counts.get("spans_stuck"):
            time.sleep(0.05)
        try:
"""
    + _WAITS
    + """
        finally:
            lock.release()
            thread.join()
"""
)
"""A tool that waits for a lock that nobody releases."""
GIVEN_UP = (
    _TRACES
    + """
    import asyncio

    async def clerk():
        with agent("clerk"), tool("reserve", heartbeat_timeout=0.5):
            await asyncio.Event().wait()

    async def main():
        task = asyncio.create_task(clerk())
        while not runtime.status().counts.get("spans_stuck"):
            await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.wait([task])

    asyncio.run(main())
    runtime.flush()
    print("ready", flush=True)
"""
)
"""A tool that hangs, in a run that was cancelled for it."""
GROWING = (
    _TRACES
    + """
    with agent("archivist"):
        for number in range(100):
            with tool(f"folder {number}"):
                for page in range(99):
                    with agenttrace.span(f"page {page}"):
                        pass
        runtime.flush()
        print("ready", flush=True)
        while name := sys.stdin.readline().strip():
            with tool(name):
                pass
            runtime.flush()
            print("grown", flush=True)
"""
)
"""A run of 10,001 spans that goes on, by one for each name that it is told."""
LOST = """
    import os, signal, sys
    import agenttrace

    runtime = agenttrace.configure(service_name="worker", state_dir=sys.argv[1])
    with agenttrace.span("invoke_agent importer"):
        with agenttrace.span("execute_tool fetch"):
            pass
        with agenttrace.span("execute_tool parse"):
            runtime.flush()
            os.kill(os.getpid(), signal.SIGKILL)
"""


@contextmanager
def playing(state_dir: Path, source: str) -> Generator[subprocess.Popen[str]]:
    """Play a scene until the block is left."""
    # Under a name, as an application has one: stacks show it.
    program = f"exec(compile({dedent(source)!r}, 'support/shop.py', 'exec'))"
    with subprocess.Popen(
        [sys.executable, "-c", program, str(state_dir)],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.communicate("\n", timeout=TIME_LIMIT)


def grow(process: subprocess.Popen[str], name: str) -> None:
    """Have a growing run take one more step, and wait until it is in the store."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{name}\n")
    process.stdin.flush()
    assert process.stdout.readline() == "grown\n"


def lose(state_dir: Path, *, recovered: bool = True) -> None:
    """Have a process die with open steps, and tell so if *recovered*."""
    die(state_dir, LOST)
    if recovered:
        subprocess.run(
            [*COMMAND, "recover", "--state-dir", str(state_dir)],
            env=environment(),
            check=True,
            stdout=subprocess.DEVNULL,
            timeout=TIME_LIMIT,
        )


@contextmanager
def viewing(state_dir: Path) -> Generator[str]:
    """Run `agenttrace view`, and yield the address of its page."""
    with subprocess.Popen(
        [*COMMAND, "view", "--json", "--state-dir", str(state_dir)],
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            address: str = json.loads(process.stdout.readline())["address"]
            yield address
        finally:
            process.terminate()
            assert process.wait(TIME_LIMIT) == 0
