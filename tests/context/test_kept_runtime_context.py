"""A library that took OTel's runtime context when it was imported sees no other.

Langfuse 5 does: its detach went to the stock context, which knows no tokens of ours,
and its span stayed current after its end.
"""

from __future__ import annotations

from tests.core.programs import run


def test_what_was_kept_before_the_swap_attaches_and_detaches_the_same() -> None:
    """A span that stays current after its end becomes parent of all that follows."""
    ran = run("""
        from opentelemetry import context, trace
        from opentelemetry.context import _RUNTIME_CONTEXT as kept
        import agenttrace
        agenttrace.configure()
        with agenttrace.span("outer") as outer:
            token = context.attach(context.set_value("k", "public"))
            assert kept.get_current()["k"] == "public"
            inner = kept.attach(context.set_value("k", "kept"))
            assert context.get_value("k") == "kept"
            kept.detach(inner)
            assert context.get_value("k") == "public"
            kept.detach(token)
            assert context.get_value("k") is None
            assert trace.get_current_span() is outer
        assert trace.get_current_span() is trace.INVALID_SPAN
    """)

    assert (ran.code, ran.err) == (0, "")
