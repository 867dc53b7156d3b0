"""A study plan in plain language: what an officer reads before signing."""

from typing import Final

from federation.rules.accounting import derive_noise_multiplier, derive_scores_noise
from federation.rules.schema import CategoryColumn, NumbersColumn, SurvivalLabel
from federation.rules.statements import METHOD_WORDS, in_credits
from federation.rules.study import StudyPlan
from federation.rules.wire import plain_decimal

_WHOSE: Final = {
    "consent": "Every person must have signed a consent that covers this purpose and is valid at that moment.",
    "hipaa-authorization": (
        "Every person must have signed an authorization that covers this purpose and is valid at that moment."
    ),
    "licence": "The owner of the source must have signed one licence that covers this purpose.",
    "dpa": "The owner of the source must have signed one data processing agreement that covers this purpose.",
    "ehds-permit": (
        "The holder must have recorded one data permit that covers this purpose; whoever opted out is left out."
    ),
}


def explain(plan: StudyPlan) -> str:
    """The plan as text, one short paragraph a topic."""
    privacy, rounds = plan.privacy, plan.rounds
    noise = plain_decimal(derive_noise_multiplier(plan))
    disease = f", disease {plan.purpose.disease}" if plan.purpose.disease else ""
    whose = _WHOSE[plan.consent.kind]
    credits_ = plan.reward.pool_microcredits / 1_000_000
    share = plain_decimal(plan.reward.minimum_share * 100)
    method = plan.valuation.method
    valued = "Shapley values" if method == "shapley" else f"each by {METHOD_WORDS[method]}"
    paragraphs = [
        f"{plan.title}\nStudy {plan.study_id}, paid by {plan.sponsor}.",
        f"What for. {plan.purpose.statement} (purpose {plan.purpose.duo}{disease})",
        *_declared(plan),
        (
            f"Whose data. {whose} It is asked anew in every round. A round needs about {plan.cohort.minimum} "
            f"people or more at your institution (judged on a noisy count).{_part(plan)}"
        ),
        (f"Which data. {_columns(plan)} The rows stay where they are; only a noised update of the model leaves."),
        (
            f"Privacy. For one person, the whole study reveals at most epsilon {plain_decimal(privacy.epsilon)} "
            f"at delta {plain_decimal(privacy.delta)}. Noise of {noise} times one person's largest influence is "
            "added before anything leaves. Your node refuses what its lifetime budget does not allow. Your own "
            "noise is your people's only protection: every peer sees each site's update. Facts about your site "
            "as a whole (prevalence, case mix) are not protected by this."
        ),
        *_panel(plan),
        (
            f"How long. {rounds.count} rounds of at most {rounds.deadline_s} s each way; {rounds.participants} "
            f"institutions, at least {rounds.quorum} of them in a round that counts. "
            f"{_cohort(plan)}{_attendance(plan)}{_combined(plan)}{_failover(plan)}"
        ),
        (
            f"What you get. {credits_:,.2f} credits are shared by what each institution's updates improved the "
            f"model on {_scored_on(plan)} ({valued}).{_sampled(plan)}{_bound(plan)} A share below {share} % "
            f"of them is burned, like all that is not paid.{_fees(plan)}"
        ),
        *_stake(plan),
        *_voting(plan),
        *_compared(plan),
        (
            "What you sign. This plan and no other, under your institution's key. You can revoke at any time; "
            "from the next round on you take no part, and what you earned stays yours."
        ),
    ]
    return "\n\n".join(paragraphs)


def _compared(plan: StudyPlan) -> list[str]:
    """What comparing people means for who signs, in one paragraph, where the plan does."""
    terms = plan.overlap
    if terms is None:
        return []
    share = plain_decimal(terms.threshold * 100)
    without = plain_decimal(derive_noise_multiplier(plan.model_copy(update={"overlap": None})))
    text = (
        "What is compared before. Whether institutions hold the same people: your node makes one noised sketch of "
        "those whose data may be used. Only the other institutions can read it; no name, row or exact count leaves. It "
        f"has noise of {plain_decimal(terms.noise_multiplier)} times one person's influence and is charged once, as a "
        f"part of the epsilon above: without it the noise of training would be {without}. Who seems to have {share} % "
        "of the smaller cohort in common, and institutions that name each other as of one owner (`--same-owner-as`), "
        "count as one: one weight, and one value that they share. In small cohorts chance can hide a copy, or seldom "
        "feign one. Institutions that do not compare count as one together."
    )
    return [text]


def _part(plan: StudyPlan) -> str:
    """Which of the people a study is about, in one sentence, where it is not about all."""
    part = plan.cohort.part
    if part is None:
        return ""
    return (
        f" It uses one in {2 ** len(part)} of your people: those whose pseudonym's hash begins with the bits {part}. "
        "Give the nominal cohort of that part. Nobody else's budget is spent."
    )


def _scored_on(plan: StudyPlan) -> str:
    if plan.valuation.panel is None:
        return "the sponsor's validation set"
    return "people whom the other institutions held back"


def _panel(plan: StudyPlan) -> list[str]:
    """Who scores, and what that costs whom, where institutions do."""
    panel = plan.valuation.panel
    if panel is None:
        return []
    held_out, trained = 2 ** len(panel.held_out), 2 ** len(panel.held_out) - 1
    text = (
        f"Who scores. The institutions do, each other. Yours holds back one in {held_out} of its people, those whose "
        f"pseudonym's hash begins with {panel.held_out}: no round uses them. Give the nominal cohort of the others, "
        f"{trained} in {held_out}. After the last round your node scores every institution on the people held back, "
        f"once; what leaves is one number for each, with noise of {plain_decimal(derive_scores_noise(plan))} times one "
        f"person's largest influence ({plain_decimal(panel.clip)} nats). That costs those people at most the epsilon "
        "above, and they lose nothing else. Everybody commits to its scores before any are shown; your own scores say "
        f"nothing about your own pay. With fewer than {panel.quorum} institutions that show scores the pool is burned. "
        "The sponsor's validation set is still used to report on the model; nobody is paid by it."
    )
    return [text]


def _fees(plan: StudyPlan) -> str:
    fees = plan.reward.fees
    if fees is None:
        return ""
    named = "; ".join(f"{in_credits(fee)} to {did}" for did, fee in sorted(fees.items()))
    source = "" if plan.reward.outcome is None else f" They come from the market outcome {plan.reward.outcome[:12]}."
    return (
        f" Besides, taking part is paid whatever it is worth: {named}; of that, the part of the rounds that count in "
        f"which its update is in the model.{source} Nobody else can take part."
    )


def _cohort(plan: StudyPlan) -> str:
    """Which rounds do without an institution, where some do."""
    rounds = plan.rounds
    said = ""
    if rounds.invite is not None:
        said += (
            f"A round invites at most {rounds.invite}, those that are predicted to answer soonest, and each at least "
            f"once in every {rounds.invite_every} rounds. "
        )
    if rounds.enough is not None:
        said += (
            f"Commitments close when {rounds.enough} are there: a later update is not used and earns nothing, and what "
            "your people lost for it stays charged. "
        )
    return said


def _stake(plan: StudyPlan) -> list[str]:
    """What the parties stand in with, where they do."""
    terms = plan.stake
    if terms is None:
        return []
    rows = "a false utility in a value table" if plan.validation.disclosure == "public" else ""
    return [
        (
            f"What is at stake. Before the study starts you pledge {in_credits(terms.institution_microcredits)}, the "
            f"coordinator {in_credits(terms.coordinator_microcredits)}: a debt on paper, due if a proof that anybody "
            f"can check shows that the party signed two histories of its log{f', or {rows}' if rows else ''}. Poor "
            f"data or bad luck never cost it. Evidence is heard until {_span(terms.challenge_s)} after the "
            f"settlement; a case can be answered for {_span(terms.appeal_s)}, and pledges end "
            f"{_span(terms.unbonding_s)} after the settlement."
        )
    ]


def _voting(plan: StudyPlan) -> list[str]:
    """What may be changed on the way, where something may."""
    terms = plan.voting
    if terms is None:
        return []
    whose = "the institutions, by the same weights as in the model" if terms.weights == "cohort" else "all, by stake"
    return [
        (
            f"What may change. More than {plain_decimal(terms.threshold * 100)} % of all weights can lengthen the "
            f"deadline, change the quorum or end the study earlier; {whose}, within {_span(terms.open_s)} of the "
            "proposal. Privacy, data, purpose and pool cannot be changed."
        )
    ]


def _span(seconds: int) -> str:
    """A time in the largest unit that fits: ``14 days``."""
    for unit, length in (("day", 86_400), ("hour", 3600), ("minute", 60)):
        if seconds % length == 0:
            return f"{seconds // length} {unit}{'' if seconds == length else 's'}"
    return f"{seconds} s"


def _attendance(plan: StudyPlan) -> str:
    if plan.rounds.attendance is None:
        return ""
    return "Your node need not stay online: a visit within each of these times is enough. "


def _failover(plan: StudyPlan) -> str:
    failover = plan.failover
    if failover is None:
        return ""
    return (
        f" If the coordinator is silent for {failover.after_s} s, the standby {failover.standby} may take its place "
        "for good, once a quorum of the institutions has promised it the lead; your node promises by itself."
    )


def _sampled(plan: StudyPlan) -> str:
    """That values are estimates, in one sentence, where they are."""
    sampling = plan.valuation.sampling
    if sampling is None:
        return ""
    return (
        " A round of more than 14 institutions is valued from groups of them, drawn by a public rule from the log, "
        f"until each value is known to within {plain_decimal(sampling.precision)} nats (at "
        f"{plain_decimal(sampling.confidence * 100)} %), or {sampling.coalitions_max} groups are drawn."
    )


def _bound(plan: StudyPlan) -> str:
    """What is taken off a value before it is paid, in two sentences, where something is."""
    z = plan.reward.z
    if z is None:
        return ""
    return (
        f" What may be chance is not paid: from each value {plain_decimal(z)} standard errors are taken off, which say "
        "how far it would have differed with other people in the validation set or other noise in your updates. So a "
        "small or unusual institution that did help can earn nothing; it never owes anything."
    )


def _combined(plan: StudyPlan) -> str:
    """How updates become the next model, in one sentence."""
    rule, tolerated = plan.aggregation.rule, plan.aggregation.tolerated
    if rule == "weighted-mean":
        return "Updates are averaged by nominal cohorts."
    if plan.aggregation.anchored:
        shown = "The root set is shown after the last round."
        sealed = "The root set stays with the sponsor, whose word its own updates then are."
        return (
            "Updates are combined by trust-anchored: each counts as far as it points where the sponsor's own goes, "
            "which is computed every round on a root set that the plan commits to; what points away counts nothing. "
            f"{shown if plan.aggregation.root_disclosure == 'public' else sealed}"
        )
    hostile = "nearly half" if tolerated is None else f"{plain_decimal(tolerated * 100)} %"
    return (
        f"Updates are combined by {rule}: each institution is one voice, and {hostile} of them may be hostile. "
        "An update of zero is then not worth exactly zero."
    )


def _columns(plan: StudyPlan) -> str:
    parts, contract = [], plan.schema_contract
    for column in contract.columns:
        gaps = "" if isinstance(column, NumbersColumn) or not column.missing else ", gaps allowed"
        if isinstance(column, CategoryColumn):
            parts.append(f"{column.name} ({' / '.join(column.categories)}{gaps})")
            continue
        unit = "" if column.unit == "1" else f" {column.unit}"
        names = f"{column.name}_1 to {column.name}_{column.count}" if isinstance(column, NumbersColumn) else column.name
        parts.append(f"{names} ({plain_decimal(column.low)} to {plain_decimal(column.high)}{unit}{gaps})")
    label = f"the label {contract.label.name}"
    if isinstance(contract.label, SurvivalLabel):
        unit = "" if contract.label.unit == "1" else f" {contract.label.unit}"
        until = f"in {contract.intervals} intervals up to {plain_decimal(contract.label.intervals[-1])}{unit}"
        label = f"the time {contract.label.name} until {contract.label.event} ({until})"
    return f"{len(contract.every_column)} columns: {'; '.join(parts)}; and {label}."


def _declared(plan: StudyPlan) -> list[str]:
    """What the study says about itself beyond its purpose, which every party signs."""
    declared = plan.purpose.model_dump(exclude={"duo", "disease", "statement"}, exclude_none=True)
    if not declared:
        return []
    words = (f"{name.replace('_', ' ')}: {_word(value)}" for name, value in declared.items())
    return [f"What it declares. {'; '.join(words)}."]


def _word(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(value) if isinstance(value, tuple) else str(value)
