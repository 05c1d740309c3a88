"""The agent of the tutorial: one run that is read to its end, and one that is left.

Run it, then look: `python examples/first_trace.py && agenttrace tree --last 2`.
"""

import agenttrace

agenttrace.configure(service_name="tutorial")


@agenttrace.tool
def search(query: str) -> list[str]:
    return [f"a page about {query}"]


@agenttrace.agent
def triage(question: str):
    """Answer word by word."""
    pages = search(question)
    yield from f"I found {len(pages)} page.".split()


print(" ".join(triage("lighthouses")))

for word in triage("the weather"):
    print(word, "... enough")
    break
