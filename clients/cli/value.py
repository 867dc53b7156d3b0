"""``accord value``: why a site earned what it earned, and whether a utility that this rests on is true."""

import shlex
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from federation.cli.output import JsonOption, emit, emit_and_raise, group, public_key, read_shown, write_out
from federation.cli.rewards import FolderOption, StudyOption
from federation.errors import PeerError
from federation.rules.instant import format_instant
from federation.rules.statements import METHOD_WORDS, in_credits, whole_of

app = group("See why a site's contributions were worth what they were worth; challenge a utility.")

_SMALL: Final = 5e-7
"""Values below half of the last digit shown count as nothing."""

_HASH_SHOWN: Final = 12
_NAMES_SHOWN: Final = 14


@app.callback()
def value() -> None:
    """See why a site's contributions were worth what they were worth; challenge a utility."""


@app.command()
def explain(
    site: Annotated[str, typer.Argument(help="The institution's short name, as reports show it.")],
    folder: FolderOption,
    study: StudyOption = None,
    out: Annotated[Path | None, typer.Option("--out", help="Write a page with a picture to this file.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Tell from the verified log why a site earned what it earned: round by round, and from value to payment.

    Example: accord value explain cleveland --dir heart-export --out cleveland.html
    """
    from federation.coordinator.statement import statement_of

    data = statement_of(folder, site=site, study=study).data
    steps = why(data)
    if out is not None:
        write_out(out, _page(data, steps))
    shown = {"study": data["study"], "site": site, "why": list(steps), "rounds": data["rounds"]}
    page = [] if out is None else ["", f"Page: {out}"]
    text = "\n".join([f"Why {site} earned {in_credits(data['reward_microcredits'])} in {data['study']}", ""])
    lines = [f"{number}. {step}" for number, step in enumerate(steps, start=1)]
    emit(
        shown | ({} if out is None else {"page": str(out)}),
        as_json=as_json,
        text="\n".join([text, *lines, *page]),
    )


@app.command()
def challenge(
    coalition: Annotated[
        str,
        typer.Argument(
            help="Sites by their short names, joined by commas; - for the round's base model; drawn:PLACE in a sampled "
            "table."
        ),
    ],
    folder: FolderOption,
    round_number: Annotated[int, typer.Option("--round", min=1, help="The round.")],
    study: StudyOption = None,
    out: Annotated[Path, typer.Option("--out", help="Where the proof goes if the entry is false.")] = Path(
        "proof.json"
    ),
    as_json: JsonOption = False,
) -> None:
    """Recompute one entry of a round's value table from blobs and validation rows; write a proof if it was false.

    The entry is the utility of the model that only these sites' updates would have made. It needs a settled study
    whose plan discloses the validation rows.

    Exit code 0: the entry holds, and nothing is written. 4: it is false, or something in the folder does not verify.

    Example: accord value challenge cleveland,hungary --dir heart-export --round 2
    """
    from federation.coordinator.challenging import challenge_of

    found = challenge_of(folder, coalition=coalition, round_number=round_number, study=study)
    holds = found.finding.verdict == "holds"
    data = found.to_json() | ({} if holds else {"proof": str(out)})
    text = told(data)
    if holds:
        emit(data, as_json=as_json, text=text)
        return
    write_out(out, found.data.decode("utf-8"))
    error = PeerError(
        f"The coordinator committed to a false utility in round {round_number}; {out} proves it.",
        remedy="Show the proof to the other parties, who know the coordinator's key: "
        f"accord value check-proof {shlex.quote(str(out))} --key {data['coordinator']}",
    )
    emit_and_raise(data, error, as_json=as_json, text=text)


@app.command(name="check-proof")
def check_proof(
    file: Annotated[Path, typer.Argument(help="A proof that `accord value challenge` wrote.")],
    key: Annotated[
        str, typer.Option("--key", help="The coordinator's key (did:key:... or peer id), obtained elsewhere.")
    ],
    as_json: JsonOption = False,
) -> None:
    """Check, offline, the proof that a coordinator committed to a false utility.

    Exit code 0: proven. 4: it proves nothing against this key.

    Example: accord value check-proof proof.json --key did:key:z6Mk...
    """
    from federation.learning.evaluation import committed_utility
    from federation.rules.challenge import CHALLENGE_BYTES_MAX, verify_challenge

    shown = read_shown(file, max_bytes=CHALLENGE_BYTES_MAX + 1, what="proof of a false utility")
    found = verify_challenge(shown, coordinator=public_key(key), utility=committed_utility)
    data = found.to_json()
    if found.verdict == "holds":
        error = PeerError(
            "This proves nothing: the logged utility holds.", remedy="Ask whoever showed it what it should prove."
        )
        emit_and_raise(data, error, as_json=as_json, text=told(data))
    emit(data, as_json=as_json, text=f"Proven.\n\n{told(data)}")


def told(data: Mapping[str, Any]) -> str:
    """A challenge's finding in words, from ``Finding.to_json`` (and the coalition's short names, where known)."""
    from federation.rules.audit import UTILITY_TOLERANCE

    names = data.get("sites", data["coalition"])
    shown = ", ".join(names) if len(names) <= _NAMES_SHOWN else f"{len(names)} sites"
    who = f"with only the updates of {shown}" if names else "without any update"
    logged, recomputed, allowed = data["logged_nats"], data["recomputed_nats"], float(UTILITY_TOLERANCE)
    apart = abs(logged - recomputed)
    meaning = (
        f"The logged utility holds: they are {apart:.1e} nats apart, and {allowed:.1e} are allowed for rounding."
        if data["verdict"] == "holds"
        else f"The logged utility is false: they are {apart:.6g} nats apart, and {allowed:.1e} are allowed."
        " Values and payments of the study rest on it, and the coordinator signed it."
    )
    source = f"entry {data['entry_index']} of the log, in the value table {data['table'][:_HASH_SHOWN]}..."
    return "\n".join(
        [
            f"Utility (minus the log loss on the validation rows) of round {data['round']}'s model {who}",
            f"in {data['study']}:",
            "",
            f"  recomputed  {recomputed:+.9f} nats, from base model, updates and rows",
            f"  logged      {logged:+.9f} nats, by {source}",
            f"  signed by   {data['coordinator']}",
            "",
            meaning,
        ]
    )


def why(data: Mapping[str, Any]) -> tuple[str, ...]:
    """The reasons, one sentence or two each, from a statement's data (``Statement.to_json``)."""
    rounds = data["rounds"]
    counted = [each for each in rounds if each["admitted"]]
    gains = [each for each in counted if each["value"] > _SMALL]
    losses = [each for each in counted if each["value"] < -_SMALL]
    steps = [f"It took part in {len(counted)} of {len(rounds)} rounds.{_absent(rounds)}"]
    if counted:
        steps.append(
            f"In each, everybody's updates were valued together; a site's part is {METHOD_WORDS[data['method']]}. The "
            "measure is the log loss, in nats, on the validation rows that the sponsor committed to before the study."
        )
        if "cluster" in data:
            steps.append(_clustered(data["cluster"], data["site"]))
        steps.append(_rounds(gains, losses))
        panel = data.get("panel")
        on_set = data["value"] if panel is None else panel["value_on_the_sponsors_set"]["nats"]
        steps.append(f"All rounds together: {on_set:+.6f} nats.{_offset(gains, losses)}")
        if panel is not None:
            steps += panel["sentences"]
        if data["lower_bound"] is not None and data["value"] > _SMALL:
            steps.append(data["lower_bound"]["sentence"])
        if "sampled" in data:
            steps.append(data["sampled"]["sentence"])
    steps.append(_payment(data))
    if "fee_microcredits" in data:
        steps.append(f"For taking part, by the rounds that count, it was paid {in_credits(data['fee_microcredits'])}.")
    return tuple(steps)


def _absent(rounds: Sequence[Mapping[str, Any]]) -> str:
    reasons = [f"round {each['round']}: {each['reason']}" for each in rounds if not each["admitted"] and each["reason"]]
    return f" Not in {'; '.join(reasons)}." if reasons else ""


def _rounds(gains: Sequence[Mapping[str, Any]], losses: Sequence[Mapping[str, Any]]) -> str:
    parts = []
    if gains:
        best = max(gains, key=lambda each: each["value"])
        total = sum(each["value"] for each in gains)
        parts.append(
            f"Its updates helped in {_where(gains, best)} ({best['value']:+.6f} nats, {best['value'] / total:.0%} of "
            "all that it brought)."
        )
    if losses:
        worst = min(losses, key=lambda each: each["value"])
        parts.append(
            f"They did harm in {_where(losses, worst)} ({worst['value']:+.6f} nats): noise, or data unlike the "
            "validation rows."
        )
    return " ".join(parts) or "They changed next to nothing."


def _clustered(cluster: Mapping[str, Any], site: str) -> str:
    others = ", ".join(each for each in cluster["sites"] if each != site)
    because = (
        "their people seemed to be the same before the study, or they did not compare them"
        if cluster["copies"]
        else "they declare one owner"
    )
    return (
        f"It counts as one institution with {others}: {because}. They join every group of sites together, weigh as "
        f"one, and share what that was worth by their weights; its part is {cluster['share']:.1%}."
    )


def _offset(gains: Sequence[Mapping[str, Any]], losses: Sequence[Mapping[str, Any]]) -> str:
    if not gains or not losses:
        return ""
    lost = -sum(each["value"] for each in losses)
    return f" What rounds took away ({lost:.6f}) is offset against its own rounds alone, never against a stake."


def _payment(data: Mapping[str, Any]) -> str:
    pool, reward = in_credits(data["pool_microcredits"]), in_credits(data["reward_microcredits"])
    bounded, panel = data["lower_bound"] is not None, "panel" in data
    share = f"{data['share']:.2%} of {whole_of(data['method'], bounded=bounded, panel=panel)}"
    match data["outcome"]:
        case "paid":
            return f"That is {share}: of the pool of {pool} it earned {reward}."
        case "below-minimum":
            return f"That is {share}, below the plan's minimum: it earned nothing, and its part of {pool} was burned."
        case "not-sure":
            return f"That is not more than chance could have brought: of the pool of {pool} it earned nothing."
        case "no-positive-value":
            return f"Of the pool of {pool} only positive values have a share: it earned nothing, and owes nothing."
        case _:
            return f"Without an admitted update there is no share of the pool of {pool}: it earned nothing."


def _where(rounds: Sequence[Mapping[str, Any]], most: Mapping[str, Any]) -> str:
    return f"round {most['round']}" if len(rounds) == 1 else f"{len(rounds)} rounds, most in round {most['round']}"


def _page(data: Mapping[str, Any], steps: Sequence[str]) -> str:
    """The page: the reasons, and the values as a waterfall from round to round."""
    from clients.pages.page import render
    from clients.pages.pictures import BAD, GOOD, GRID, INK, MUTED, Axes, picture

    rounds = data["rounds"]
    values, bound = [each["value"] for each in rounds], data["lower_bound"]

    def draw(axes: Axes, narrow: bool) -> None:
        level = 0.0
        for place, each in enumerate(values, start=1):
            axes.bar(place, each, bottom=level, width=0.72, color=GOOD if each >= 0 else BAD, linewidth=0)
            axes.plot([place - 0.36, place + 1.36], [level + each] * 2, color=MUTED, linewidth=0.8)
            level += each
        every = max(1, len(values) // (6 if narrow else 15))
        totals = {"study": level} | ({"sure": bound["bound"]} if bound else {})
        totals |= {"panel": data["value"]} if "panel" in data else {}
        ends = [len(values) + 1 + at * every for at in range(len(totals))]
        axes.bar(ends, list(totals.values()), width=0.72, color=INK, linewidth=0)
        axes.axhline(0, color=INK, linewidth=1)
        ticks = list(range(1, len(values) + 1 - (every > 1), every))
        axes.set_xticks([*ticks, *ends], [*map(str, ticks), *totals])
        axes.set_xlabel("round")
        axes.set_ylabel("nats of log loss, added up", color=MUTED)
        axes.grid(axis="y", color=GRID, linewidth=0.8)

    described = f"Values of {len(values)} rounds, each added to the ones before, {sum(values):+.6f} nats in the end"
    if bound:
        described += f", of which {bound['bound']:+.6f} are sure"
    if "panel" in data:
        described += f"; by the panel {data['value']:+.6f}"
    return render(
        "clients.pages",
        "value.html",
        data=data,
        steps=steps,
        earned=in_credits(data["reward_microcredits"]),
        chart=picture("waterfall", described, draw, height=3.6),
        made_at=format_instant(datetime.now(UTC)),
    )
