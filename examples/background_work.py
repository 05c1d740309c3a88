"""Work that outlives its request, and a queue whose workers make each job a run.

Run it, then look: `python examples/background_work.py && agenttrace tree --last 6`.
"""

import asyncio

import agenttrace

agenttrace.configure(service_name="background-example")


@agenttrace.tool
async def index(page: str):
    await asyncio.sleep(len(page) / 1000)


async def learn():
    for number in range(3):
        await index(f"page {number}")
        agenttrace.heartbeat(f"page {number + 1} of 3", progress=(number + 1) / 3)


async def wait_for_an_answer():
    async with asyncio.timeout(0.05):
        await asyncio.Event().wait()


async def work_off(jobs: asyncio.Queue):
    while True:
        job, headers = await jobs.get()
        with agenttrace.continue_trace(headers, run="translate"):
            await index(job)
        jobs.task_done()


async def main():
    jobs = asyncio.Queue()
    workers = [asyncio.create_task(work_off(jobs)) for _ in range(2)]

    with agenttrace.span("request"):
        learning = agenttrace.background(learn(), name="learn")
        asking = agenttrace.background(wait_for_an_answer(), name="ask")
        for language in ("Portuguese", "Finnish"):
            jobs.put_nowait((language, agenttrace.carrier()))
    print("The request has been answered.")

    await asyncio.gather(learning, asking, return_exceptions=True)
    await jobs.join()
    for worker in workers:
        worker.cancel()
    agenttrace.background(asyncio.Event().wait(), name="for ever")


# At its end the loop cancels what is left.
asyncio.run(main())
