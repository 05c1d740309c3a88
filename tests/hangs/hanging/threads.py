"""Threads that hang, and tasks and threads that wait for them."""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import agenttrace
from tests.hangs.catalogue import hang


@hang("execute_tool search", "lock", why="a lock", kinds=("task", "thread"))
async def tool_in_a_thread_that_waits_for_a_lock() -> None:
    """A tool in a thread, deadlocked on a lock."""
    stock = threading.Lock()
    stock.acquire()

    def reserves() -> None:
        with stock:  # here
            pass

    @agenttrace.tool
    async def search() -> None:
        await asyncio.to_thread(reserves)

    await search()


@hang(
    "invoke_agent left",
    "lock",
    kinds=("thread",),
    also=frozenset({"invoke_agent right"}),
)
def two_threads_in_a_deadlock() -> None:
    """Two threads, each of which has the lock that the other one waits for."""
    first, second = threading.Lock(), threading.RLock()
    both = threading.Barrier(2)

    @agenttrace.agent
    def left() -> None:
        with first:
            both.wait()
            with second:  # here
                pass

    @agenttrace.agent
    def right() -> None:
        with second:
            both.wait()
            with first:
                pass

    with ThreadPoolExecutor(2) as pool:
        pool.submit(left)
        pool.submit(right)


@hang("execute_tool look_up", "awaiting_nothing", kinds=("thread",))
async def tool_of_a_thread_that_awaits_an_event() -> None:
    """A tool that belongs to its thread, and waits for an event that nobody sets."""

    @agenttrace.tool
    def look_up() -> None:
        threading.Event().wait()  # here

    await asyncio.to_thread(look_up)


@hang("take", "awaiting_nothing", why="queue that is empty", kinds=("thread",))
def queue_of_threads_that_nobody_fills() -> None:
    """A worker thread without a producer."""
    items: queue.Queue[int] = queue.Queue()
    with agenttrace.span("take"):
        items.get()  # here


@hang("result", "lock", kinds=("thread", "thread", "thread"))
def result_of_a_thread_that_joins_another() -> None:
    """A result that a worker does not give, since it joins a thread that hangs."""
    lock = threading.Lock()
    lock.acquire()

    def last() -> None:
        lock.acquire()  # here

    def works() -> None:
        thread = threading.Thread(target=last)
        thread.start()
        thread.join()

    with ThreadPoolExecutor(1) as pool, agenttrace.span("result"):
        pool.submit(works).result()


@hang("round", "awaiting_nothing", kinds=("task", "thread", "task"))
async def thread_that_waits_for_its_loop() -> None:
    """A worker that hands work back to the loop, and waits for it."""
    loop = asyncio.get_running_loop()

    async def needs_an_event() -> None:
        await asyncio.Event().wait()  # here

    def comes_back() -> None:
        asyncio.run_coroutine_threadsafe(needs_an_event(), loop).result()

    with agenttrace.span("round"):
        await asyncio.to_thread(comes_back)


@hang("compute", "thread", why="at work", kinds=("thread",))
def thread_that_computes_for_ever() -> None:
    """A loop without an end, in a thread."""

    def computes() -> None:
        while True:
            sum(range(1_000))  # here

    with agenttrace.span("compute"):
        computes()


@hang("convert", "unknown", why="another process", kinds=("thread",))
def process_that_a_thread_waits_for() -> None:
    """A process that is run, and never ends."""
    program = "import time; time.sleep(60)"
    with agenttrace.span("convert"):
        subprocess.run([sys.executable, "-c", program], check=True)  # here


@hang("write", "thread", kinds=("thread",))
def database_that_is_locked() -> None:
    """A database that another connection has locked."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "stock.db"
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("CREATE TABLE stock (item)")
        other.execute("BEGIN EXCLUSIVE")
        ours = sqlite3.connect(path, timeout=60, isolation_level=None)
        with agenttrace.span("write"):
            ours.execute("INSERT INTO stock VALUES ('tea')")  # here
