"""The mutants of the fault tests still apply to the code."""

import pytest

from tests.faults.mutants import MUTANTS, Mutant
from tests.support.processes import ROOT


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_what_a_mutant_replaces_is_there(mutant: Mutant) -> None:
    source = (ROOT / mutant.file).read_text()
    assert all(before in source for before, _ in mutant.replacements)
