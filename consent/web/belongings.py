"""What belongs to one person: their chain, their part in the studies, and all of it in one file.

Shown is in which rounds a person was eligible, never in which they were sampled: that would void the privacy that
sampling gives.
"""

import io
import json
import zipfile
from dataclasses import asdict, dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from consent.registry import Participation
from consent.rules.record import ConsentRecord, open_record
from consent.web.request import notice_text
from consent.web.state import Web
from consent.web.store import Answer
from federation.errors import UnavailableError

CREDITS: Final = 1_000_000
"""Micro-credits in a credit."""
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Entry:
    """One record of a person's history, when it was received, and which request it answered (if it was asked here)."""

    record: ConsentRecord
    received_at: datetime
    answer: Answer | None


@dataclass(frozen=True, slots=True)
class StudyPart:
    """A person's part in one study, as their page shows it.

    ``used`` is the part of the cap that is spent, 0 to 1; None where the institution has not noted figures.
    ``credits_passed_on`` is what the person got of the study's reward.
    """

    study: str
    title: str
    rounds: tuple[tuple[int, str], ...]
    epsilon: Decimal | None
    delta: Decimal | None
    spent: Decimal | None
    used: float | None
    models: tuple[tuple[int, str], ...]
    credits_passed_on: Decimal


def read_chain(web: Web, ref: str) -> list[Entry]:
    """A person's history, oldest first."""
    answers = {answer.digest: answer for answer in web.store.answers(ref=ref)}
    found: list[Entry] = []
    for data, received_at in web.store.chain(ref):
        record = open_record(data)
        found.append(Entry(record, received_at, answers.get(record.digest)))
    return found


def binds(web: Web, digest: str) -> bool:
    """Whether a grant is in force as far as witnesses go: enough of them cosigned a log that holds it."""
    _, quorum = web.registry.witnesses()
    if quorum == 0:
        return True
    cosigned = web.registry.cosigned_checkpoint()
    index = log_index(web, digest)
    return cosigned is not None and index is not None and index < cosigned.checkpoint.size


def log_index(web: Web, digest: str) -> int | None:
    """Which entry of the log carries a record; None while it waits for its batch."""
    try:
        return web.registry.inclusion(digest).index
    except UnavailableError:
        return None


def part_of(web: Web, ref: str) -> list[StudyPart]:
    """A person's part in every study in which they were ever eligible."""
    parts: list[StudyPart] = []
    for study in web.registry.participation(ref).studies:
        cap, spent = _decimal(study.epsilon), _decimal(study.spent)
        parts.append(
            StudyPart(
                study=study.study,
                title=study.title or study.study,
                rounds=tuple((item.round, item.state.value) for item in study.rounds),
                epsilon=cap,
                delta=_decimal(study.delta),
                spent=spent,
                used=None if cap is None or spent is None else min(1.0, float(spent / cap)),
                models=tuple((model.round, model.sha256) for model in study.models),
                credits_passed_on=Decimal(study.microcredits) / CREDITS,
            )
        )
    return parts


def everything(web: Web, ref: str) -> bytes:
    """A ZIP file: each record and its receipt credential, the notices that were read, and participation."""
    chain = read_chain(web, ref)
    files: dict[str, bytes] = {}
    for entry in chain:
        name = f"{entry.record.seq:04d}-{entry.record.action.value}"
        files[f"records/{name}.json"] = entry.record.canonical
        files[f"receipts/{name}.json"] = web.registry.receipt_credential(entry.record.digest)
        if entry.answer is not None:
            answer = entry.answer
            text = notice_text(web.store.notice(answer.request, answer.version).asked, answer.language)
            files[f"notices/{answer.request}-{answer.version}-{answer.language}.txt"] = text.encode("utf-8")
            files[f"answers/{name}.json"] = _json(
                {"request": answer.request, "version": answer.version}
                | {"language": answer.language, "answers": dict(answer.answers)}
            )
    files["participation.json"] = _json(_participation(web.registry.participation(ref)))
    files["README.txt"] = _readme(web, ref).encode("utf-8")
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(files):
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), files[name], zipfile.ZIP_DEFLATED)
    return out.getvalue()


def _participation(given: Participation) -> dict[str, Any]:
    return {
        "studies": [
            {
                "study": study.study,
                "title": study.title,
                "epsilon": study.epsilon,
                "delta": study.delta,
                "spent": study.spent,
                "rounds": [asdict(item) for item in study.rounds],
                "models": [asdict(item) for item in study.models],
                "microcredits": study.microcredits,
            }
            for study in given.studies
        ]
    }


def _readme(web: Web, ref: str) -> str:
    return (
        f"Everything that {web.settings.name} keeps about your consents (your name there: {ref}).\n\n"
        "records/        what you signed, or what was signed at your request\n"
        "receipts/       the institution's signed word about each record; check one offline with\n"
        "                accord consent verify FILE\n"
        "notices/        the texts that you read, exactly as their fingerprints in the records cover them\n"
        "answers/        your answer to each question\n"
        "participation.json  in which rounds of which studies your data was eligible, and the models that came of it\n"
    )


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True, default=str) + "\n").encode("utf-8")


def _decimal(text: str) -> Decimal | None:
    return Decimal(text) if text else None
