"""Keeps time while spans are open.

So far the ticker alone: it renews the coarse clock and lets others do what is due.
Rules, verdicts and reports are built on it.
"""
