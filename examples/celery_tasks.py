"""Tasks of Celery that are runs of their own, linked to who sent them.

The first worker process to take the task is killed in the middle of it, as it is when
memory runs out.  Celery hands the task to the next one, and both attempts are told.

    pip install celery
    python examples/celery_tasks.py && agenttrace tree --last 3
"""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import celery
from celery.signals import before_task_publish

import agenttrace

FOLDER = os.environ.setdefault("CELERY_FOLDER", tempfile.mkdtemp(prefix="celery-"))

# A worker process is a fork of this one, and goes on by itself.
agenttrace.configure(service_name="celery-example")


class TracedTask(celery.Task):
    """A task that is a run of its own, linked to the span in which it was sent."""

    def __call__(self, *args: object, **kwargs: object):
        """Do the task."""
        headers = self.request.get("trace") or {}
        with agenttrace.continue_trace(headers, run=f"task {self.name}"):
            return super().__call__(*args, **kwargs)


@before_task_publish.connect
def take_along(headers: dict, **_: object):
    headers["trace"] = agenttrace.carrier()


app = celery.Celery("research", task_cls=TracedTask)
app.conf.update(
    broker_url="filesystem://",
    broker_transport_options={
        "data_folder_in": f"{FOLDER}/queue",
        "data_folder_out": f"{FOLDER}/queue",
        "control_folder": f"{FOLDER}/control",
    },
    result_backend=f"file://{FOLDER}/results",
    # A task whose worker is killed is done again, by another one.
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_lost_wait=1,
)


@app.task(name="research")
def research(question: str):
    first = Path(FOLDER) / "this is not the first attempt"
    with agenttrace.span("look up"):
        if not first.exists():
            first.touch()
            os.kill(os.getpid(), signal.SIGKILL)
    return f"I looked twice: {question}"


def main():
    for name in ("queue", "control", "results"):
        (Path(FOLDER) / name).mkdir()
    command = "-m celery -q -A celery_tasks worker --pool=prefork --concurrency=1"
    quiet = "--loglevel=ERROR --without-gossip --without-mingle --without-heartbeat"
    worker = subprocess.Popen(
        [sys.executable, *command.split(), *quiet.split()], cwd=Path(__file__).parent
    )
    try:
        with agenttrace.span("request"):
            sent = research.delay("what does a lighthouse show?")
        print(sent.get(timeout=100))
    finally:
        worker.terminate()
        worker.wait(timeout=60)
    # What the killed process had open; the next `configure()` would tell it as well.
    agenttrace.recover()


if __name__ == "__main__":
    main()
