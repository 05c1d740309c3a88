"""A little of the fuzzing that `python -m tests.recovery.fuzz` does without end."""

from __future__ import annotations

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.recovery import fuzz

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs POSIX")


@settings(max_examples=300)
@given(journal=fuzz.FILES, spool=fuzz.SPOOLS)
def test_no_bytes_in_the_files_of_the_dead_break_recovery(
    journal: bytes, spool: bytes
) -> None:
    """Nobody looks at them before they are read, and the reader is an application."""
    fuzz.check(journal, spool)


@given(data=st.binary(max_size=200))
def test_every_input_of_the_fuzzer_is_a_pair_of_files(data: bytes) -> None:
    """One that fails on its own would report itself."""
    fuzz.one_input(data)
