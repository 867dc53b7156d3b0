"""A panel for the hand-played studies of ``tests/federation/conftest.py``: three institutions that score each other."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from federation.rules.accounting import scores_event
from federation.rules.documents import Scores
from federation.rules.entries import PanelOpened, ScoresClosed, ScoresCommitted, ScoresShown
from federation.rules.instant import format_instant
from federation.rules.keys import PrivateKey

METHOD = '[valuation]\nmethod = "shapley"'
TERMS = '[valuation.panel]\nheld_out = "00"\nclip = 10\nquorum = 3\n[valuation]\nmethod = "shapley"'
EDITS = {METHOD: TERMS}
NATS = 1 << 40
HONEST: Mapping[str, Mapping[str, int]] = {
    "ash": {"ash": 9 * NATS, "birch": 2 * NATS, "cedar": NATS},
    "birch": {"ash": 4 * NATS, "birch": 9 * NATS, "cedar": NATS},
    "cedar": {"ash": 4 * NATS, "birch": 2 * NATS, "cedar": -NATS},
}
"""Member -> player -> score, where own scores are far off and the others agree: 4, 2 and 1 nats."""


def scores_of(study: Any, site: str, numbers: Mapping[str, int], **changes: Any) -> Scores:
    """What ``site`` shows; ``changes`` are of the document's fields."""
    by_did = {study.institutions[name].public.did: number for name, number in numbers.items()}
    fields: dict[str, Any] = {
        "study": study.plan.study_id,
        "model": study.state.model,
        "players": tuple(sorted(by_did)),
        "values": tuple(by_did[did] for did in sorted(by_did)),
        "event": scores_event(study.plan),
        "nonce": f"{sorted(numbers).index(site):064x}",
        "code_hash": study.plan.code_approved[0],
    }
    return Scores(**{**fields, **changes})


def later(study: Any, seconds: int = 60) -> str:
    """An instant after the study's now."""
    return format_instant(study.now + timedelta(seconds=seconds))


def opened(study: Any) -> None:
    """The panel is open."""
    study.append(PanelOpened(members=study.state.active, deadline=later(study)))


def commit(study: Any, site: str, scores: Scores, *, by: PrivateKey | None = None) -> None:
    """``site`` commits to ``scores`` (as ``by`` would have)."""
    key = study.institutions[site]
    commitment = scores.commitment((by or key).public)
    study.append(ScoresCommitted(envelope=commitment.sign(key).to_bytes().decode()), party=key)


def close(study: Any) -> None:
    """No commitment is taken any more."""
    study.append(ScoresClosed(deadline=later(study)))


def show(study: Any, site: str, scores: Scores) -> None:
    """``site`` shows ``scores``."""
    key = study.institutions[site]
    study.append(ScoresShown(envelope=scores.sign(key).to_bytes().decode()), party=key)


def score_all(study: Any, tables: Mapping[str, Mapping[str, int]] = HONEST) -> None:
    """Everybody of ``tables`` commits and shows."""
    made = {site: scores_of(study, site, numbers) for site, numbers in tables.items()}
    opened(study)
    for site, scores in made.items():
        commit(study, site, scores)
    study.now += timedelta(seconds=120)
    close(study)
    for site, scores in made.items():
        show(study, site, scores)
    study.checkpoint()


def played(play: Any, tables: Mapping[str, Mapping[str, int]] = HONEST, **fields: Any) -> Any:
    """A settled study whose three institutions scored each other."""
    edits = {**EDITS, **fields.pop("edits", {})}
    study = play(edits=edits, **fields)
    study.start()
    study.play_round(1)
    study.play_round(2)
    score_all(study, tables)
    study.settle()
    return study
