"""``accord demo``: a whole study on this machine, from keys to payments, with a report to look at."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from clients.demo.interruption import interruptible
from clients.demo.journal import Options
from clients.demo.run import Demo, OnProgress
from federation.cli.output import JsonOption, emit, interactive, note
from federation.errors import AccordError, OperatorError


def demo(
    out: Annotated[
        Path | None, typer.Option("--out", help="Where to leave everything; default: a fresh folder named by time.")
    ] = None,
    rounds: Annotated[int | None, typer.Option("--rounds", min=1, max=200, help="Default: the plan's.")] = None,
    epsilon: Annotated[
        float | None, typer.Option("--epsilon", min=0.1, max=8.0, help="Per person, for the whole study; default 3.")
    ] = None,
    seed: Annotated[
        int, typer.Option("--seed", min=0, help="Of the split, the consents and the first model; never of noise.")
    ] = 13,
    sensors: Annotated[
        bool, typer.Option("--sensors", help="Three weather stations instead of four hospitals.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Watch a whole study: four hospitals train one model under consent and privacy, and are paid what it was worth.

    Coordinator and nodes run as separate processes that talk over libp2p on this machine only. It takes about a minute.
    An interrupted demo resumes with the same --out.

    Example: accord demo --out demo
    """
    folder = (out or Path(f"accord-demo-{datetime.now(UTC):%Y%m%d-%H%M%S}")).resolve()
    options = Options(study="weather" if sensors else "heart", rounds=rounds, epsilon=epsilon, seed=seed)
    if (folder / "report.json").exists():
        raise OperatorError(
            f"{folder} holds a finished demo, and nothing is overwritten.",
            remedy=f"Look at {folder / 'report.html'}, or give another --out.",
        )
    resume = _command(folder, options)
    started = time.monotonic()
    try:
        with _progress() as bar, interruptible(bar) as tell:
            running = Demo(folder, options, tell)
            running.run()
            tell("Comparing, drawing, writing the report", running.rounds, running.rounds)
            from clients.demo.collect import collect
            from clients.demo.findings import result_sentence
            from clients.demo.report import write_report

            seconds = {"total": round(time.monotonic() - started, 2)} | running.journal.seconds
            report = collect(running, seconds)
            page = write_report(report, folder)
    except KeyboardInterrupt:
        note(f"\nStopped; no process is left behind, and nothing is lost.\nTo go on: {resume}")
        raise
    except AccordError as error:
        note(f"The demo failed. All logs are in {folder} (party.log of each party).\nTo go on: {resume}")
        raise error from error
    key = report["log"]["key"]
    site = next(iter(report["sites"]))
    text = "\n".join(
        [
            f"Report: {page}",
            result_sentence(report, running.study),
            "Three things to try:",
            f"  accord log verify {running.export} --key {key}",
            f"  accord consent withdraw --dir {running.node(site)} --subject {_someone(running, site)}",
            f"  accord rewards statement {site} --dir {running.export}",
        ]
    )
    emit(report, as_json=as_json, text=text)


def _someone(running: Demo, site: str) -> str:
    """A person who said yes (or the licence's name) to try a withdrawal with."""
    if running.plan_draft.consent.kind == "licence":
        return "'*'"
    return min(name for name, word in running.words(site).items() if word == "grant")


def _command(folder: Path, options: Options) -> str:
    parts = ["accord demo", f"--out {folder}", f"--seed {options.seed}"]
    parts += [f"--rounds {options.rounds}"] if options.rounds is not None else []
    parts += [f"--epsilon {options.epsilon}"] if options.epsilon is not None else []
    return " ".join(parts + (["--sensors"] if options.study == "weather" else []))


@contextmanager
def _progress() -> Iterator[OnProgress]:
    """A bar while a person is looking; nothing otherwise."""
    if not interactive():
        yield lambda _title, _closed, _rounds: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f} rounds"),
    )
    with Progress(*columns, TimeElapsedColumn(), console=Console(file=sys.stderr), transient=True) as bar:
        task = bar.add_task("Starting", total=1)

        def tell(title: str, closed: int, rounds: int) -> None:
            bar.update(task, description=title, completed=closed, total=rounds)

        yield tell
