"""What a verification found, as data and in words."""

from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any

from federation.errors import UnprovenSignerError
from federation.rules.aggregation import TRUST_ANCHORED
from federation.rules.keys import PublicKey
from federation.rules.wire import plain_decimal


@dataclass(frozen=True, slots=True)
class VerifiedRound:
    """A closed round whose aggregate was recomputed. ``sites`` are those whose updates it holds."""

    number: int
    outcome: str
    sites: tuple[str, ...]
    refused: dict[str, str]
    model: str


@dataclass(frozen=True, slots=True)
class VerificationReport:
    """An export in which everything verified.

    Attributes:
        study: the study's id.
        title: the plan's title.
        coordinator: who signed.
        signer_proven: whether the key was given from outside the folder.
        plan_hash: SHA-256 of the plan.
        log_size: entries.
        log_root: the Merkle root, 32 bytes.
        checkpoints: how many were verified.
        cosignatures: valid ones under the newest checkpoint.
        quorum: how many make it final; None while nobody has agreed.
        rounds: the closed rounds.
        aggregation: the plan's ``aggregation.rule``.
        linear: whether that rule is linear; if not, it was run anew for every coalition whose utility was recomputed.
        references_recomputed: how many references were recomputed from the disclosed root set; None where there are
            none or the set is sealed.
        method: the plan's ``valuation.method``.
        sampled: in how many rounds values are estimates from sampled coalitions.
        settled: whether values and payments were verified.
        values: site -> value in nats over the study, exact.
        rewards: site -> micro-credits, its fee included.
        z: how many standard errors the plan takes off each value before it pays; None where it pays by values.
        errors: site -> the value's standard error in nats, exact as committed; recomputed where utilities were.
        ledger: ``minted``, ``escrow``, ``burned``, ``balances``.
        utilities_recomputed: how many coalition utilities were recomputed from the disclosed validation rows; None
            where the rows are sealed.
        scored_by: the sites that showed scores, where institutions score each other; None where they do not.
        files: how many files were covered, with the manifest.
        size_bytes: their length together.
    """

    study: str
    title: str
    coordinator: PublicKey
    signer_proven: bool
    plan_hash: str
    log_size: int
    log_root: bytes
    checkpoints: int
    cosignatures: int
    quorum: int | None
    rounds: tuple[VerifiedRound, ...]
    aggregation: str
    linear: bool
    references_recomputed: int | None
    method: str
    sampled: int
    settled: bool
    values: dict[str, Fraction]
    rewards: dict[str, int]
    z: Decimal | None
    errors: dict[str, Fraction]
    ledger: dict[str, Any]
    utilities_recomputed: int | None
    scored_by: tuple[str, ...] | None
    files: int
    size_bytes: int

    @property
    def anchored(self) -> bool:
        """Whether the rule measures updates by references of the sponsor's."""
        return self.aggregation == TRUST_ANCHORED

    @property
    def final(self) -> bool:
        """Whether a quorum of the witnesses cosigned the newest checkpoint."""
        return self.quorum is not None and self.cosignatures >= self.quorum

    def require_proven_signer(self) -> None:
        """For callers that must not take the folder's own word for who signed it.

        Raises:
            UnprovenSignerError: no key was given.
        """
        if not self.signer_proven:
            raise UnprovenSignerError(
                f"Everything in the export agrees with itself, but nothing outside it says that {self.coordinator.did} "
                "is the coordinator.",
                remedy="Get the coordinator's key from the coordinator, not from the folder, and give it with --key.",
            )

    def to_json(self) -> dict[str, Any]:
        """The report for machines: money as integers, values as exact fractions and as floats."""
        return {
            "verified": True,
            "study": self.study,
            "title": self.title,
            "signer": {"key": self.coordinator.did, "proven": self.signer_proven},
            "plan_hash": self.plan_hash,
            "log": {
                "size": self.log_size,
                "root": self.log_root.hex(),
                "checkpoints": self.checkpoints,
                "cosignatures": self.cosignatures,
                "quorum": self.quorum,
                "final": self.final,
            },
            "rounds": [
                {
                    "round": item.number,
                    "outcome": item.outcome,
                    "sites": list(item.sites),
                    "refused": item.refused,
                    "aggregate_sha256": item.model,
                }
                for item in self.rounds
            ],
            "aggregation": {"rule": self.aggregation, "linear": self.linear, **self._references_json()},
            "method": self.method,
            "sampled_rounds": self.sampled,
            "settled": self.settled,
            "values": {site: {"exact": str(value), "value": float(value)} for site, value in self.values.items()},
            "rewards": dict(self.rewards),
            "lower_bound": None if self.z is None else self._bounds(self.z),
            **({} if self.scored_by is None else {"scored_by": list(self.scored_by)}),
            "ledger": self.ledger,
            "utilities_recomputed": self.utilities_recomputed,
            "files": self.files,
            "bytes": self.size_bytes,
        }

    def to_text(self) -> str:
        """The report for people."""
        counted = sum(len(item.sites) for item in self.rounds)
        needed = "" if self.quorum is None else f" ({self.quorum} needed: {'final' if self.final else 'not final yet'})"
        lines = [
            f"Verified: {self.title} ({self.study})",
            f"  files        {self.files}, {self.size_bytes} bytes, every one covered",
            f"  signed by    {self.coordinator.did}{'' if self.signer_proven else ' (unproven)'}",
            f"  log          {self.log_size} entries, every rule kept, root {self.log_root.hex()}",
            f"  witnesses    {self.cosignatures} cosigned the newest of {self.checkpoints} checkpoints{needed}",
            f"  rounds       {len(self.rounds)}, each model recomputed bit for bit, from {counted} updates in all",
        ]
        if not self.linear:
            lines.append(
                f"  aggregation  {self.aggregation}, which is not linear: run anew for every coalition; "
                "a zero update is not worth exactly zero"
            )
        if self.anchored:
            lines.append(f"  references   {self._references()}")
        if self.settled:
            named = "Shapley values" if self.method == "shapley" else f"values ({self.method})"
            drawn = f" (estimates in {self.sampled} rounds, from samples drawn anew)" if self.sampled else ""
            source = "the published tables" if self.scored_by is None else "the scores that the panel showed"
            lines.append(f"  values       {named}{drawn} and payments recomputed from {source}")
            if self.scored_by is not None:
                lines.append(f"  scored by    {', '.join(self.scored_by) or 'nobody'}: their word for their own people")
            lines.append(f"  utilities    {self._utilities()}")
            if self.z is not None:
                lines.append(f"  certainty    {self._certainty(self.z)}")
            lines += [
                f"    {site:<18} value {float(value):+.6f}   {self._error(site)}"
                f"reward {self.rewards[site]} micro-credits"
                for site, value in self.values.items()
            ]
        else:
            lines.append("  values       the study is not settled yet; tables and payments come with its settlement")
        ledger = self.ledger
        lines.append(
            f"  ledger       balances {sum(ledger['balances'].values())} + escrow {ledger['escrow']} + burned "
            f"{ledger['burned']} = minted {ledger['minted']}"
        )
        return "\n".join(lines)

    def _references_json(self) -> dict[str, Any]:
        return {"references_recomputed": self.references_recomputed} if self.anchored else {}

    def _references(self) -> str:
        """What is known of the sponsor's reference updates."""
        if self.references_recomputed is not None:
            return f"all {self.references_recomputed} recomputed from the disclosed root set"
        return "the sponsor's word: committed before each round's updates, but its root set is not disclosed"

    def _bounds(self, z: Decimal) -> dict[str, Any]:
        recomputed = self.utilities_recomputed is not None
        errors = {site: {"exact": str(error), "value": float(error)} for site, error in self.errors.items()}
        return {"z": plain_decimal(z), "standard_errors": errors, "recomputed": recomputed}

    def _certainty(self, z: Decimal) -> str:
        paid = f"paid by value less {plain_decimal(z)} standard errors, which were"
        if self.utilities_recomputed is None:
            return f"{paid} not recomputed: with sealed rows they are the coordinator's word"
        return f"{paid} recomputed from the disclosed validation rows"

    def _error(self, site: str) -> str:
        return f"standard error {float(self.errors[site]):.6f}   " if site in self.errors else ""

    def _utilities(self) -> str:
        if self.utilities_recomputed is None:
            return "not recomputed: the validation rows are sealed with the sponsor"
        return f"{self.utilities_recomputed} recomputed from the disclosed validation rows"
