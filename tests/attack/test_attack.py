"""The campaigns, small; whole ones are `python -m tests.attack --full`."""

from __future__ import annotations

from pathlib import Path

import pytest

from .__main__ import CAMPAIGNS, attack
from .campaign import Campaign


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # pytest has set srkit's own filters aside; the whole campaign runs with them
@pytest.mark.parametrize("name", CAMPAIGNS)
def test_an_attack_does_no_harm(name):
    campaign = attack(name, full=False)
    assert campaign.tried and not campaign.failures


def test_what_goes_wrong_is_seen():
    campaign = Campaign("itself")
    campaign.attempt("a result", lambda: None)
    campaign.attempt("a line", Path("/nowhere").read_bytes)
    assert not campaign.failures
    for wrong in (lambda: {}["x"], lambda: int("x\ny"), lambda: campaign.check("so", False)):
        campaign.attempt("a traceback", wrong)
    assert campaign.tried == 6 and len(campaign.failures) == 3
