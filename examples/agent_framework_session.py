"""A worker that is killed in the middle of a run, and another one that goes on.

Needs `pip install agent-framework-core agent-framework-openai`, and the extra `demo`.
Starts a model server on loopback, so it needs no key.  Run it, then look:

    python examples/agent_framework_session.py
    agenttrace tree --last 2
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from agent_framework import Agent, AgentSession, tool
from agent_framework.openai import OpenAIChatCompletionClient

import agenttrace
from agenttrace.testing.model_server import ModelServer


def keeper(model: str, session: AgentSession, file: Path) -> Agent:
    @tool(approval_mode="never_require")
    def look_up() -> str:
        """Look it up, and store the session before that: it takes long."""
        file.write_text(json.dumps(session.to_dict()))
        os.kill(os.getpid(), signal.SIGKILL)  # the power fails
        return "42"

    client = OpenAIChatCompletionClient(
        model=model, base_url=os.environ["OPENAI_BASE_URL"], api_key="unused"
    )
    return Agent(client=client, name="keeper", tools=[look_up])


def work(file: Path) -> None:
    """Run the agent, or go on where another process has stopped."""
    agenttrace.configure(service_name="keepers")
    agenttrace.instrument("agent-framework", "openai")
    if file.exists():
        session = AgentSession.from_dict(json.loads(file.read_text()))
        agent, question = keeper("ok", session, file), "Go on, please."
    else:
        session = AgentSession(session_id="c-17")
        agent, question = keeper("tool=look_up", session, file), "Look it up."
    print(asyncio.run(agent.run(question, session=session)).text)


def main() -> None:
    file = Path(sys.argv[1] if len(sys.argv) > 1 else "session.json")
    if "OPENAI_BASE_URL" in os.environ:
        work(file)
        return
    with ModelServer(ModelServer.by_model_name) as server:
        environment = {
            **os.environ,
            "OPENAI_BASE_URL": server.base_url,
            "ENABLE_INSTRUMENTATION": "true",
        }
        command = [sys.executable, __file__, str(file)]
        killed = subprocess.run(command, env=environment, check=False)
        print(f"the first worker ended with {killed.returncode}, and left {file.name}")
        subprocess.run(command, env=environment, check=True)
    file.unlink()


if __name__ == "__main__":
    main()
