"""A panel in the log: commitments before scores, copies open to nothing, and no settlement before it is over."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from scored_by_panel import EDITS, HONEST, close, commit, later, opened, played, score_all, scores_of, show

from federation.errors import PeerError
from federation.rules import audit
from federation.rules.accounting import round_event
from federation.rules.entries import PanelOpened, RoundOpened, StudySettled
from federation.rules.panel_log import check_scores

Play = Callable[..., Any]


def ready(play: Play) -> Any:
    """Both rounds are over, the panel is not open yet."""
    study = play(edits=EDITS)
    study.start()
    study.play_round(1)
    study.play_round(2)
    return study


def refused(why: str) -> Any:
    return pytest.raises(PeerError, match=why)


def test_a_study_is_settled_by_its_panel_and_everybody_recomputes_it(play: Play) -> None:
    study = played(play)
    paid = {payment.site: payment for payment in study.state.payments}
    assert {site: payment.value for site, payment in paid.items()} == {"ash": "4", "birch": "2", "cedar": "1"}
    assert paid["ash"].reward > paid["birch"].reward > paid["cedar"].reward > 0
    assert sum(payment.reward for payment in paid.values()) + study.state.burned == 1_000_000


def test_a_settlement_that_does_not_follow_from_the_scores_is_caught(play: Play) -> None:
    study = ready(play)
    score_all(study)
    tables = [audit.open_table(done, study.state, study.blobs.get(done.value_table)) for done in study.state.closed]
    honest = audit.settlement(study.state, tables)
    audit.check_settlement(study.state, honest, study.blobs.get)
    more = honest.payments[0].model_copy(update={"reward": honest.payments[0].reward + 1})
    false = honest.model_copy(update={"payments": (more, *honest.payments[1:]), "burned": honest.burned - 1})
    with refused("do not follow"):
        audit.check_settlement(study.state, false, study.blobs.get)


def test_too_few_who_show_scores_burn_the_pool(play: Play) -> None:
    study = played(play, {site: HONEST[site] for site in ("ash", "cedar")})
    assert study.state.burned == 1_000_000
    assert {payment.value for payment in study.state.payments} == {"0"}


def test_whoever_sent_no_update_is_not_paid_for_the_noise_in_its_scores(play: Play) -> None:
    study = play(edits=EDITS)
    study.start()
    study.play_round(1, declining="birch")
    study.play_round(2, declining="birch")
    score_all(study)
    study.settle()
    paid = {payment.site: (payment.value, payment.reward) for payment in study.state.payments}
    assert paid["birch"] == ("0", 0)
    assert paid["ash"][1] > paid["cedar"][1] > 0


def test_a_copied_commitment_opens_to_nothing(play: Play) -> None:
    study = ready(play)
    opened(study)
    birch = scores_of(study, "birch", HONEST["birch"])
    commit(study, "birch", birch)
    commit(study, "ash", birch, by=study.institutions["birch"])
    study.now += timedelta(seconds=120)
    close(study)
    show(study, "birch", birch)
    with refused("not the scores of the commitment"):
        show(study, "ash", birch)
    assert set(study.state.panel.shown) == {study.institutions["birch"].public.did}


def test_nothing_is_shown_before_commitments_close_and_none_is_taken_after(play: Play) -> None:
    study = ready(play)
    made = {site: scores_of(study, site, HONEST[site]) for site in HONEST}
    with refused("no panel is open"):
        commit(study, "ash", made["ash"])
    opened(study)
    commit(study, "ash", made["ash"])
    with refused("committed already"):
        commit(study, "ash", scores_of(study, "ash", HONEST["birch"]))
    with refused("after commitments close"):
        show(study, "ash", made["ash"])
    with refused("somebody may still commit"):
        close(study)
    commit(study, "birch", made["birch"])
    commit(study, "cedar", made["cedar"])
    close(study)
    with refused("commitments are closed"):
        commit(study, "ash", scores_of(study, "ash", HONEST["cedar"]))
    show(study, "ash", made["ash"])
    with refused("a second time"):
        show(study, "ash", made["ash"])
    with refused("may still show"):
        study.settle()
    study.now += timedelta(seconds=120)
    study.settle()
    assert study.state.burned == 1_000_000, "one table is no quorum"


def test_scores_of_another_study_by_other_code_or_with_other_noise_are_refused(play: Play) -> None:
    study = ready(play)
    honest = scores_of(study, "ash", HONEST["ash"])
    check_scores(study.state, honest)
    for changes, why in (
        ({"study": "another"}, "another study or model"),
        ({"model": "0" * 64}, "another study or model"),
        ({"players": honest.players[:2]}, "every institution once"),
        ({"values": (1, 2)}, "one for each institution"),
        ({"code_hash": "0" * 64}, "does not approve the code"),
        ({"event": {"type": "gaussian", "noise_multiplier": "2"}}, "privacy event is not the plan's"),
    ):
        with refused(why):
            check_scores(study.state, honest.model_copy(update=changes))


def test_a_panel_is_opened_once_after_the_last_round_and_no_round_follows(play: Play) -> None:
    study = play(edits=EDITS)
    study.start()
    with refused("rounds are still to come"):
        study.append(PanelOpened(members=study.state.active, deadline=later(study)))
    study.play_round(1)
    study.play_round(2)
    with refused("not the active institutions"):
        study.append(PanelOpened(members=study.state.active[:2], deadline=later(study)))
    with refused("no panel is open"):
        study.append(StudySettled(tables=(), payments=(), burned=1_000_000))
    opened(study)
    with refused("open already"):
        study.append(PanelOpened(members=study.state.active, deadline=later(study, 90)))
    with refused("no round follows"):
        study.append(
            RoundOpened(base_model=study.state.model, participants=study.state.active, deadline=later(study)), 3
        )


def test_a_plan_without_a_panel_has_none(play: Play) -> None:
    study = play()
    study.start()
    study.play_round(1)
    study.play_round(2)
    with refused("the plan has no panel"):
        opened(study)
    assert round_event(study.plan)["type"] == "composed"
