"""``accord data``: register an institution's files and check them against a study, before anything is agreed."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from sqlalchemy.engine import Engine
from sqlmodel import select

from clients.data.check import check_data
from clients.data.dataset import add_dataset, find_dataset, load_dataset, read_file
from clients.storage import Dataset, StudyMembership, open_institution
from federation.cli.output import DirOption, JsonOption, emit, group, progress, write_out
from federation.errors import OperatorError
from federation.rules.study import PLAN_BYTES_MAX, StudyPlan, open_plan, plan_from_toml
from federation.storage.database import read

app = group("Register an institution's file; check it against a study.")

_PLAN_FILE_BYTES_MAX: Final = 2 * PLAN_BYTES_MAX

FileArgument = Annotated[
    Path, typer.Argument(metavar="FILE", help="A CSV file; it stays where it is.", show_default=False)
]
SubjectOption = Annotated[
    str, typer.Option("--subject", help="The column that names whose row it is.", show_default=False)
]
NameOption = Annotated[str | None, typer.Option("--name", help="The data set's name; by default the file's own.")]
ReplaceOption = Annotated[bool, typer.Option("--replace", help="Let an existing name stand for this file from now on.")]
PlanOption = Annotated[
    str | None, typer.Option("--plan", help="A plan (TOML, or signed), or the id of a study that was joined.")
]


@app.command("add")
def add(
    file: FileArgument,
    directory: DirOption,
    subject: SubjectOption,
    name: NameOption = None,
    replace: ReplaceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Register a file by its hash; a node trains on registered files only, and only while they are unchanged.

    Example: accord data add heart.csv --dir ./cleveland --subject patient_id
    """
    entry = add_dataset(
        open_institution(directory), file, subject_column=subject, name=name, replace=replace, now=datetime.now(UTC)
    )
    emit(
        entry.model_dump(),
        as_json=as_json,
        text=f"Registered {entry.path} as {entry.name!r} (sha256 {entry.sha256}).\n"
        f"Each value of {entry.subject_column!r} is one subject. "
        f"Next: `accord data check --dir {directory} --plan PLAN`.",
    )


@app.command("check")
def check(directory: DirOption, plan: PlanOption = None, name: NameOption = None, as_json: JsonOption = False) -> None:
    """Check a registered file, row by row, against a study's schema contract. Nothing leaves the institution.

    Example: accord data check --dir ./cleveland --plan heart.toml
    """
    engine = open_institution(directory)
    study = _plan(engine, plan)
    entry = find_dataset(engine, name)
    data = checked_against(study, entry)
    emit(data, as_json=as_json, text=checked_text(data))


@app.command("embed")
def embed_text(
    file: FileArgument,
    column: Annotated[str, typer.Option("--text", help="The column that holds free text.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", help="The file to write; it must not be there.", show_default=False)],
    name: Annotated[str, typer.Option("--as", help="The plan's name for the numbers.")] = "text",
    as_json: JsonOption = False,
) -> None:
    """Replace a column of free text by 384 numbers from a frozen language model, so that a study can learn from it.

    Example: accord data embed reviews.csv --text review --out reviews-numbers.csv
    """
    from clients.data.embedding import DIMENSIONS, embed, with_embedding

    loaded = read_file(file)
    if column not in loaded.columns:
        raise OperatorError(
            f"{file} has no column {column!r}.", remedy=f"Give --text one of its columns: {', '.join(loaded.columns)}."
        )
    if out.exists():
        raise OperatorError(f"{out} is there already, and nothing is overwritten.", remedy="Give another --out.")
    texts = [row[column] for row in loaded.rows]
    with progress("Reading the texts", total=len(texts)) as advance:
        numbers = embed(texts, on_progress=advance)
    written = with_embedding(loaded, column, numbers, name=name)
    temporary = out.with_name(out.name + ".new")
    write_out(temporary, written)
    temporary.replace(out)
    entry = f'[[schema.columns]]\ntype = "numbers"\nname = "{name}"\ncount = {DIMENSIONS}\nlow = -1\nhigh = 1'
    emit(
        {"file": str(out), "rows": len(texts), "column": column, "numbers": DIMENSIONS, "name": name},
        as_json=as_json,
        text=f"Wrote {out}: {len(texts)} rows, the text of {column!r} as {DIMENSIONS} numbers.\nIn the plan:\n{entry}",
    )


def checked_against(study: StudyPlan, entry: Dataset) -> dict[str, Any]:
    """What the institution is told of its own file: exact figures, which never leave it.

    Raises:
        OperatorError: the file has changed, or a row does not keep the contract; line, column and value are named.
    """
    checked = check_data(load_dataset(entry), study.schema_contract, subject_column=entry.subject_column)
    used = checked.of_part(study.trained_on)
    data = {"dataset": entry.name, "study": study.study_id, **used.summary(study.schema_contract)}
    return data | {"part": study.trained_on} if study.trained_on else data


def checked_text(data: dict[str, Any]) -> str:
    """The same in words."""
    lines = [
        f"{data['source']} keeps the contract of {data['study']}.",
        f"  {data['rows']} rows of {data['subjects']} subjects; {data['positive_rows']} rows are positive.",
        f"  {data['features']} features after encoding.",
    ]
    gaps = [f"{name} {count}" for name, count in data["gaps"].items()]
    lines.append(f"  Gaps (allowed, and marked for the model): {', '.join(gaps)}." if gaps else "  No gaps.")
    lines.append("These exact figures are for you: they are never sent.")
    return "\n".join(lines)


def _plan(engine: Engine, wanted: str | None) -> StudyPlan:
    """The plan that ``--plan`` names; without it that of the only study that was joined."""
    with read(engine) as session:
        joined = {row.study: row.plan for row in session.exec(select(StudyMembership)).all()}
    if wanted is None:
        if len(joined) != 1:
            raise OperatorError(
                "There is no study to check against." if not joined else f"Several studies: {', '.join(joined)}.",
                remedy="Name a plan file or a joined study with --plan.",
            )
        wanted = next(iter(joined))
    if wanted in joined:
        return open_plan(joined[wanted])[0]
    path = Path(wanted)
    try:
        if path.stat().st_size > _PLAN_FILE_BYTES_MAX:
            raise OperatorError(f"{path} is too large to be a plan.", remedy="Name the plan's own file with --plan.")
        data = path.read_bytes()
    except OSError as error:
        raise OperatorError(
            f"{wanted} is neither a joined study nor a readable file ({error.strerror}).",
            remedy="Check the path, or list the studies with `accord node status`.",
        ) from error
    if data.startswith(b"{"):
        return open_plan(data.strip())[0]
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise OperatorError(f"{path} is not UTF-8 text.", remedy="Save the plan as TOML in UTF-8.") from error
    return plan_from_toml(text, source=str(path))
