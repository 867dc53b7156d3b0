"""Whose rows a round uses: everybody is asked in every round, at that moment; whoever said no is in no later one."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from study_in_memory import InMemoryStudy

from clients.selection import RowsUsed
from consent.rules.record import Action

ROUNDS = (1, 2, 3)


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InMemoryStudy]:
    """Three rounds. People of ash change their minds between them; cedar as a whole leaves after the first."""
    with InMemoryStudy(tmp_path_factory.mktemp("consent"), consents=False) as study:
        ash = study["ash"]
        ash.say(Action.REFUSE, ["p00", "p06"])
        ash.say(Action.GRANT, ["p01"], valid_days=1 / 24)
        # p02 is never asked.
        ash.say(Action.GRANT, [ref for ref in ash.refs if ref not in {"p00", "p01", "p02", "p06"}])
        for site in ("birch", "cedar"):
            study[site].say(Action.GRANT, study[site].refs)

        def between(closed: int) -> None:
            if closed == 1:
                study.clock.forward(hours=2)  # p01's consent ends
                ash.registry.withdraw("p03")  # at the desk, without a key
                study["cedar"].revoke()
                study["cedar"].node.tick()  # type: ignore[union-attr]  # it runs
            if closed == 2:
                ash.say(Action.WITHDRAW, ["p04"])  # with the person's own key
                ash.say(Action.GRANT, ["p06"])  # a no became a yes

        study.run(between=between)
        yield study


def expected(study: InMemoryStudy, number: int) -> tuple[str, ...]:
    """Who may be used, from what people said and when, without any of the code under test."""
    gone = {1: {"p00", "p02", "p06"}, 2: {"p00", "p01", "p02", "p03", "p06"}, 3: {"p00", "p01", "p02", "p03", "p04"}}
    return tuple(ref for ref in study["ash"].refs if ref not in gone[number])


@pytest.mark.parametrize("number", ROUNDS)
def test_exactly_those_who_permit_it_at_that_moment_are_used(story: InMemoryStudy, number: int) -> None:
    assert story["ash"].used(number) == expected(story, number)
    assert story["birch"].used(number) == story["birch"].refs


@pytest.mark.parametrize("number", ROUNDS)
def test_the_signed_commitment_opens_to_exactly_these_rows(story: InMemoryStudy, number: int) -> None:
    """What the update signed, opened with the node's salt against the file and the consents."""
    ash = story["ash"]
    row, data = ash.uses()[number], ash.data()
    signed = story.state.closed[number - 1].admitted[ash.did].dataset_commitment
    assert signed == row.rows_commitment
    opening = RowsUsed(salt=bytes.fromhex(row.salt), commitment=bytes.fromhex(signed))
    assert opening.opens_to(data, expected(story, number))
    for ref in ash.refs:
        others = set(expected(story, number)) ^ {ref}
        assert not opening.opens_to(data, others)


def test_each_round_commits_under_a_salt_of_its_own(story: InMemoryStudy) -> None:
    birch = story["birch"].uses()
    assert len({row.salt for row in birch.values()}) == 3
    assert len({row.rows_commitment for row in birch.values()}) == 3  # although the rows are the same


def test_the_node_counts_who_was_left_out_and_why(story: InMemoryStudy) -> None:
    counts = [json.loads(story["ash"].uses()[number].counts) for number in ROUNDS]
    names = ("permitted", "refused", "expired", "withdrawn", "missing")
    assert [[count[name] for name in names] for count in counts] == [
        [9, 2, 0, 0, 1],
        [7, 2, 1, 1, 1],
        [7, 1, 1, 2, 1],
    ]
    assert all(sum(count.values()) == 12 for count in counts)


def test_what_people_said_changes_the_update(story: InMemoryStudy) -> None:
    """Nothing but the rows differs in the second study: so the withdrawn were really not trained on."""
    ash = story["ash"]
    assert ash.stored()[1].update_sha256 != ash.stored()[2].update_sha256 != ash.stored()[3].update_sha256


def test_an_institution_that_revokes_is_in_no_later_round_and_keeps_what_it_earned(story: InMemoryStudy) -> None:
    state, cedar = story.state, story["cedar"]
    assert cedar.did in state.revoked
    assert [cedar.did in done.participants for done in state.closed] == [True, False, False]
    assert [charge.round for charge in cedar.budget.charges()] == [1]
    assert set(cedar.uses()) == {1}
    earned = next(payment for payment in state.payments if payment.party == cedar.did)
    assert earned.value != "0"
    assert sum(payment.reward for payment in state.payments) + state.burned == 1_000_003


def test_an_institution_that_revoked_still_witnesses(story: InMemoryStudy) -> None:
    signed = story.history.checkpoint()
    assert story["cedar"].key.public in {cosignature.witness for cosignature in signed.cosignatures}


def test_the_consent_logs_grew_consistently_and_only_by_whole_batches(story: InMemoryStudy) -> None:
    sizes = [done.admitted[story["ash"].did].consent_consistency.old_size for done in story.state.closed]
    assert sizes[0] == 0
    assert sizes == sorted(sizes)
    log = story["ash"].parts().registry
    batches = {len(log.inclusion(record).batch) for record in _digests(story)}
    assert len(batches) == 1  # one size, whatever happened


def _digests(study: InMemoryStudy) -> list[str]:
    registry = study["ash"].registry
    registry.append_batch(study.clock())
    return [head.digest for ref, head in registry.heads().items() if ref in {"p00", "p03", "p04", "p10"}]


def test_the_withdrawn_are_gone_from_the_model_s_next_step(tmp_path: Path, story: InMemoryStudy) -> None:
    """Round 2 again, in a study in which those who left were never there: the same update, to the byte."""
    with InMemoryStudy(tmp_path, consents=False) as never:
        ash = never["ash"]
        ash.say(Action.GRANT, [ref for ref in ash.refs if ref not in {"p00", "p02", "p06"}])
        for site in ("birch", "cedar"):
            never[site].say(Action.GRANT, never[site].refs)

        def between(closed: int) -> None:
            if closed == 1:
                ash.registry.withdraw_all(["p01", "p03"])
            if closed == 2:
                never.stop.set()

        never.run(between=between)
        assert never.models()[0] == story.models()[0]
        assert ash.stored()[2].payload == story["ash"].stored()[2].payload
