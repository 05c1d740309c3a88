"""Keeps time while spans are open, and watches what they run on.

The `ticker` renews the coarse clock and lets others do what is due.  The event loop
monitor is one of them: `loops` tells when a loop was blocked, from what `turns` sees
of it, by the rules of `blocks`; `pauses` knows the garbage collector's time, `watched`
makes the span, and `backstop` has stacks written while nobody can look.
"""
