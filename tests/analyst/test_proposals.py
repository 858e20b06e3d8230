"""Maker-checker: lists and next steps change only when somebody else approves."""

import pytest

from analyst.proposals import (
    AddEntry,
    ApprovedSteps,
    ListKey,
    ListName,
    Proposals,
    ProposalState,
    RemoveEntry,
    ReplaceSteps,
    list_files,
)
from core.errors import AccessError, ConflictError, InputError, NotFoundError
from explain.facts.next_step import load_next_steps
from tests.analyst.conftest import ADA, ANN, AUDREY, LEA, LEO

DAY = "2025-12-31"  # after the test clock's date, 2025-10-09
CARD = AddEntry(ListName.BLOCK, ListKey.CARD, "card-7", DAY)
STEPS = '[[step]]\nstep = "Call the customer."\n'


@pytest.fixture
def proposals(empty_queue):
    return Proposals(empty_queue.database, empty_queue.clock)


def test_an_entry_takes_effect_only_when_somebody_else_approves_it(proposals):
    number = proposals.propose(ANN, CARD, "reported stolen")
    assert proposals.entries() == []
    proposals.approve(LEA, number)
    (entry,) = proposals.entries()
    assert (entry.list, entry.key, entry.value, entry.proposal) == (ListName.BLOCK, ListKey.CARD, "card-7", number)
    assert list_files(proposals.entries())["block_card.txt"] == "card-7\n"
    assert list_files([])["allow_device.txt"] == ""
    removal = proposals.propose(LEA, RemoveEntry(ListName.BLOCK, ListKey.CARD, "card-7"), "found again")
    proposals.approve(LEO, removal)
    assert proposals.entries() == []


@pytest.mark.parametrize("person", [LEA, ADA])
def test_nobody_approves_their_own_proposal(proposals, person):
    number = proposals.propose(person, CARD, "reported stolen")
    with pytest.raises(AccessError, match="you have proposed"):
        proposals.approve(person, number)
    assert proposals.entries() == []
    proposals.reject(person, number)
    (proposal,) = proposals.all(pending=False)
    assert proposal.state is ProposalState.WITHDRAWN


def test_analysts_and_auditors_do_not_approve(proposals):
    number = proposals.propose(LEA, CARD, "reported stolen")
    for act in (
        lambda: proposals.approve(ANN, number),
        lambda: proposals.reject(ANN, number),
        lambda: proposals.propose(AUDREY, CARD, "x"),
    ):
        with pytest.raises(AccessError):
            act()


def test_a_decided_proposal_cannot_be_decided_again(proposals):
    number = proposals.propose(ANN, CARD, "reported stolen")
    proposals.reject(LEA, number)
    for act in (proposals.approve, proposals.reject):
        with pytest.raises(ConflictError, match="rejected already"):
            act(LEO, number)
    with pytest.raises(NotFoundError):
        proposals.approve(LEA, number + 1)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (AddEntry(ListName.BLOCK, ListKey.CARD, "", DAY), "r"),
        (AddEntry(ListName.BLOCK, ListKey.CARD, "two\nlines", DAY), "r"),
        (AddEntry(ListName.BLOCK, ListKey.CARD, "4111111111111111", DAY), "r"),
        (AddEntry(ListName.BLOCK, ListKey.CARD, "c", "tomorrow"), "r"),
        (AddEntry(ListName.BLOCK, ListKey.CARD, "c", "2025-10-09"), "r"),
        (AddEntry(ListName.BLOCK, ListKey.CARD, "c", "2099-01-01"), "r"),
        (CARD, " "),
        (CARD, "x" * 1_001),
        (ReplaceSteps("not toml ["), "r"),
        (ReplaceSteps('[[step]]\nstep = "Only for declines."\noutcome = "decline"\n'), "r"),
    ],
)
def test_an_invalid_proposal_is_refused(proposals, change, reason):
    with pytest.raises(InputError):
        proposals.propose(ANN, change, reason)
    assert proposals.all(pending=False) == []


def test_an_entry_ends_on_its_day(proposals, clock):
    proposals.approve(LEA, proposals.propose(ANN, CARD, "reported stolen"))
    clock.pass_by(83 * 86_400)
    assert proposals.entries() == []


def test_an_approved_table_of_next_steps_replaces_the_built_in_one(proposals):
    assert proposals.next_steps() == load_next_steps()
    number = proposals.propose(ANN, ReplaceSteps(STEPS), "simpler")
    assert ApprovedSteps(proposals, "").current() == load_next_steps()
    proposals.approve(LEA, number)
    assert [one.step for one in ApprovedSteps(proposals, "").current().step] == ["Call the customer."]
    assert proposals.steps_text() == STEPS


def test_removing_what_is_not_on_a_list_is_an_error(proposals):
    with pytest.raises(NotFoundError, match="is not on the list block_card"):
        proposals.propose(ANN, RemoveEntry(ListName.BLOCK, ListKey.CARD, "c"), "r")


def test_proposals_on_the_page(site):
    ann, lea = site("ann"), site("lea")
    data = {"list_name": "block", "key": "card", "value": "card-7", "expires_on": DAY, "reason": "reported stolen"}
    assert ann.post("/lists/add", data).status_code == 303
    assert lea.post("/lists/add", data | {"value": "card-8"}).status_code == 303
    page = lea.get("/lists").text
    assert page.count("/approve") == 1, "only somebody else's proposal"
    number = page.split("/proposals/")[-1].split("/")[0]
    assert lea.post(f"/proposals/{number}/approve").status_code == 303
    assert "On the block list until 2025-12-31." in ann.get("/cards/card-7").text
    own = site.services.proposals.all(pending=True)[0].number
    assert lea.post(f"/proposals/{own}/approve").status_code == 403
    assert "card-7" in ann.get("/lists?key=card&value=card-7").text
