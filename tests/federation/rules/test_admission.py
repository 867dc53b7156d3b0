"""Admission: each reason for which an update is refused, and nothing else is."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from federation.errors import PeerError
from federation.rules.accounting import round_event
from federation.rules.admission import (
    REASONS,
    AdmissionError,
    ConsentLogView,
    check_arrays,
    check_update,
    consent_origin,
    parameter_count,
)
from federation.rules.canonical import sha256_hex
from federation.rules.checkpoint import Checkpoint, cosign, sign_checkpoint
from federation.rules.documents import ConsistencyProof, Update
from federation.rules.fixedpoint import SCALE, pack
from federation.rules.keys import PrivateKey
from federation.rules.merkle import consistency_proof, leaf_hash, root
from federation.rules.study import StudyPlan

KEY = PrivateKey(bytes([1]) * 32)
OTHER = PrivateKey(bytes([2]) * 32)
BASE = "b" * 64
LEAVES = [leaf_hash(b"batch %d" % number) for number in range(5)]
FORKED = [leaf_hash(b"rewritten %d" % number) for number in range(5)]


class Office:
    """Makes updates for round 3 of a plan, and checks them as the coordinator does."""

    def __init__(self, plan: StudyPlan) -> None:
        self.plan = plan
        self.packed = pack(np.arange(parameter_count(plan), dtype=np.int64) * SCALE // 4)

    def checkpoint(self, leaves: list[bytes], size: int, **changes: Any) -> str:
        fields: dict[str, Any] = {"origin": consent_origin(KEY.public), "size": size, "root": root(leaves[:size])}
        signer = changes.pop("signer", KEY)
        return sign_checkpoint(Checkpoint(**{**fields, **changes}), signer).to_bytes().decode()

    def update(self, **changes: Any) -> Update:
        fields: dict[str, Any] = {
            "study": self.plan.study_id,
            "round": 3,
            "base_model": BASE,
            "update": sha256_hex(self.packed),
            "update_bytes": len(self.packed),
            "chunks": (sha256_hex(self.packed),),
            "nonce": "0" * 64,
            "event": round_event(self.plan),
            "consent_checkpoint": self.checkpoint(LEAVES, 3),
            "consent_consistency": ConsistencyProof(old_size=0),
            "dataset_commitment": "d" * 64,
            "code_hash": self.plan.code_approved[0],
        }
        return Update(**{**fields, **changes})

    def growing(self, old: int, new: int, *, leaves: list[bytes] = LEAVES) -> Update:
        proof = tuple(part.hex() for part in consistency_proof(leaves[:new], old)) if old <= new else ()
        return self.update(
            consent_checkpoint=self.checkpoint(leaves, new),
            consent_consistency=ConsistencyProof(old_size=old, proof=proof),
        )

    def check(
        self,
        update: Update,
        *,
        signer: PrivateKey = KEY,
        committed: Update | None = None,
        seen: ConsentLogView | None = None,
        data: bytes | None = None,
    ) -> tuple[Update, ConsentLogView]:
        return check_update(
            update.sign(signer).to_bytes() if data is None else data,
            plan=self.plan,
            party=KEY.public,
            round_number=3,
            base_model=BASE,
            commitment=(committed or update).commitment(KEY.public).commitment,
            consent_log=seen,
        )

    def refused(self, reason: str, update: Update, **given: Any) -> AdmissionError:
        with pytest.raises(AdmissionError) as refused:
            self.check(update, **given)
        assert refused.value.reason == reason
        assert refused.value.message.startswith(REASONS[reason])
        assert refused.value.remedy
        return refused.value


@pytest.fixture
def office(play: Callable[[], Any]) -> Office:
    return Office(play().plan)


def view(size: int, leaves: list[bytes] = LEAVES) -> ConsentLogView:
    return ConsentLogView(size=size, root=root(leaves[:size]))


def test_a_good_update_is_admitted_and_its_consent_log_is_remembered(office: Office) -> None:
    update = office.update()
    assert office.check(update) == (update, view(3))
    assert list(check_arrays(update, office.packed, office.plan)) == [
        number * SCALE // 4 for number in range(parameter_count(office.plan))
    ]


def test_malformed_when_tampered_with(office: Office) -> None:
    data = bytearray(office.update().sign(KEY).to_bytes())
    data[len(data) // 2] ^= 1
    office.refused("malformed", office.update(), data=bytes(data))
    office.refused("malformed", office.update(), data=b"")
    office.refused("malformed", office.update(), data=office.update().commitment(KEY.public).sign(KEY).to_bytes())


def test_malformed_when_it_announces_more_than_the_plan_s_model(office: Office) -> None:
    for size in (1, len(office.packed) - 1, len(office.packed) + 1, 2**32):
        error = office.refused("malformed", office.update(update_bytes=size))
        assert "are not this plan's model" in error.message
    chunks = (sha256_hex(office.packed[:10]), sha256_hex(office.packed[10:]))
    error = office.refused("malformed", office.update(chunks=chunks))
    assert "chunks are not the update's" in error.message


def test_malformed_when_signed_by_another_key(office: Office) -> None:
    error = office.refused("malformed", office.update(), signer=OTHER)
    assert OTHER.public.did in error.message


def test_replay_of_another_round_or_study(office: Office) -> None:
    office.refused("replay", office.update(round=2))
    office.refused("replay", office.update(round=4))
    error = office.refused("replay", office.update(study="other-0"))
    assert "study other-0, round 3" in error.message


def test_no_commitment_when_anything_differs_from_what_was_committed(office: Office) -> None:
    committed = office.update()
    for change in ({"nonce": "1" * 64}, {"update": "1" * 64}, {"dataset_commitment": "1" * 64}):
        office.refused("no-commitment", office.update(**change), committed=committed)


def test_a_commitment_is_bound_to_its_party(office: Office) -> None:
    update = office.update()
    assert update.commitment(KEY.public) != update.commitment(OTHER.public)


def test_wrong_base(office: Office) -> None:
    office.refused("wrong-base", office.update(base_model="c" * 64))


def test_wrong_code(office: Office) -> None:
    office.refused("wrong-code", office.update(code_hash="0" * 64))


def test_another_privacy_event_than_the_plan_s(office: Office) -> None:
    event = round_event(office.plan)
    weaker = {"type": "composed", "events": [{"type": "gaussian", "noise_multiplier": "2"}, event["events"][1]]}
    without_count = {"type": "composed", "events": event["events"][:1]}
    for other in (
        weaker,
        without_count,
        event["events"][0],
        {},
        {**event, "more": 1},
        {"type": "composed", "events": event["events"][::-1]},
    ):
        office.refused("event", office.update(event=other))


def test_a_consent_log_may_stay_and_may_grow(office: Office) -> None:
    for old in range(6):
        for new in range(old, 6):
            if old:
                assert office.check(office.growing(old, new), seen=view(old))[1] == view(new)


def test_stale_consent_when_the_log_is_shorter_than_before(office: Office) -> None:
    error = office.refused("stale-consent", office.growing(4, 3), seen=view(4))
    assert "size 3 after 4" in error.message


def test_stale_consent_when_consistency_starts_elsewhere(office: Office) -> None:
    error = office.refused("stale-consent", office.growing(2, 5), seen=view(4))
    assert "proven from 2" in error.message


def test_forked_consent_when_the_log_was_rewritten(office: Office) -> None:
    office.refused("forked-consent", office.growing(3, 5, leaves=FORKED), seen=view(3))
    office.refused("forked-consent", office.growing(3, 3, leaves=FORKED), seen=view(3))
    without_proof = office.update(
        consent_checkpoint=office.checkpoint(LEAVES, 5), consent_consistency=ConsistencyProof(old_size=3)
    )
    office.refused("forked-consent", without_proof, seen=view(3))


def test_malformed_when_the_checkpoint_is_not_the_institution_s_own(office: Office) -> None:
    by_another = office.checkpoint(LEAVES, 3, signer=OTHER)
    of_another = office.checkpoint(LEAVES, 3, origin=consent_origin(OTHER.public))
    cosigned = sign_checkpoint(Checkpoint(consent_origin(KEY.public), 3, root(LEAVES[:3])), KEY)
    cosigned = cosigned.with_cosignatures([cosign(cosigned.checkpoint, OTHER, timestamp=1)])
    for text in (by_another, of_another, cosigned.to_bytes().decode(), "no note"):
        office.refused("malformed", office.update(consent_checkpoint=text))


# Arrays


def arrays_refused(office: Office, reason: str, update: Update, packed: bytes, plan: StudyPlan | None = None) -> None:
    with pytest.raises(AdmissionError) as refused:
        check_arrays(update, packed, plan or office.plan)
    assert refused.value.reason == reason


def test_arrays_are_the_ones_that_were_signed(office: Office) -> None:
    changed = bytearray(office.packed)
    changed[-1] ^= 1
    for packed in (bytes(changed), office.packed[:-1], office.packed + b"\0", b""):
        arrays_refused(office, "malformed", office.update(), packed)
    arrays_refused(office, "malformed", office.update(update_bytes=len(office.packed) + 8), office.packed)


@pytest.mark.parametrize("packed", [pack(np.zeros(2, dtype=np.int64)), b"not a vector", b"AFP1"])
def test_arrays_have_the_plan_s_length(office: Office, packed: bytes) -> None:
    arrays_refused(office, "malformed", office.update(update=sha256_hex(packed), update_bytes=len(packed)), packed)


def test_the_norm_is_bounded_to_the_last_step_of_the_lattice(office: Office) -> None:
    bound = int(office.plan.aggregation.norm_bound * SCALE)
    for length, admitted in ((bound, True), (bound + 1, False), (-bound, True), (-bound - 1, False)):
        vector = np.zeros(parameter_count(office.plan), dtype=np.int64)
        vector[1] = length
        packed = pack(vector)
        update = office.update(update=sha256_hex(packed), update_bytes=len(packed))
        if admitted:
            assert np.array_equal(check_arrays(update, packed, office.plan), vector)
        else:
            arrays_refused(office, "norm", update, packed)


def test_a_bound_that_is_no_lattice_number_is_exact_too(office: Office) -> None:
    plan = office.plan.model_copy(
        update={"aggregation": office.plan.aggregation.model_copy(update={"norm_bound": Decimal("0.1")})}
    )
    vector = np.zeros(parameter_count(plan), dtype=np.int64)
    vector[0] = int(Decimal("0.1") * SCALE)  # rounds down
    packed = pack(vector)
    update = office.update(update=sha256_hex(packed), update_bytes=len(packed))
    assert check_arrays(update, packed, plan)[0] == vector[0]
    vector[0] += 1
    packed = pack(vector)
    arrays_refused(office, "norm", office.update(update=sha256_hex(packed), update_bytes=len(packed)), packed, plan)


def test_every_reason_is_a_sentence_and_an_error_of_the_peer() -> None:
    for reason in REASONS:
        error = AdmissionError(reason, "detail")
        assert isinstance(error, PeerError)
        assert error.message == f"{REASONS[reason]} (detail)"
