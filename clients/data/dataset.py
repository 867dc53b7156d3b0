"""The register of an institution's files: each is known by its SHA-256 and read again only while it is still the same.

A file is read in one go, hashed and parsed from those very bytes, so that what was checked is what is used. Here rows
are texts under column names; what they mean is the business of a study's contract (``clients.data.check``). The privacy
budget belongs to the people, not to a file: registering a file again, or another one, changes nothing about it.
"""

import csv
import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from sqlalchemy.engine import Engine
from sqlmodel import select

from clients.storage import Dataset
from federation.errors import OperatorError
from federation.rules.instant import format_instant
from federation.storage.database import read, write

FILE_BYTES_MAX: Final = 1 << 30
_NAME_CHARACTERS_MAX: Final = 100


@dataclass(frozen=True, slots=True)
class LoadedFile:
    """A file's rows as texts, in file order, with the SHA-256 of the bytes that they were read from."""

    source: str
    sha256: str
    size_bytes: int
    columns: tuple[str, ...]
    rows: tuple[Mapping[str, str], ...]


def read_file(path: Path) -> LoadedFile:
    """Read a CSV file: UTF-8, a header line, commas.

    Raises:
        OperatorError: the file is missing, unreadable, too large, not UTF-8, not CSV, without header or without rows.
    """
    try:
        size = path.stat().st_size
        if size > FILE_BYTES_MAX:
            raise OperatorError(
                f"{path} has {size} bytes, more than the {FILE_BYTES_MAX} that a node reads.",
                remedy="Split the file, or register only the columns and rows that the study needs.",
            )
        data = path.read_bytes()
    except OSError as error:
        raise OperatorError(
            f"{path} cannot be read: {error.strerror}.",
            remedy="Check the path, and that the user who runs the node may read the file.",
        ) from error
    columns, rows = _parse(data, str(path))
    return LoadedFile(str(path), hashlib.sha256(data).hexdigest(), len(data), columns, rows)


def add_dataset(
    engine: Engine, path: Path, *, subject_column: str, name: str | None, replace: bool = False, now: datetime
) -> Dataset:
    """Register a file; the same registration again changes nothing.

    Args:
        engine: the node's database.
        path: the CSV file; it stays where it is and is not copied.
        subject_column: the column that names whose row it is.
        name: what to call it; by default the file's name without its ending.
        replace: let an existing name stand for this file from now on.
        now: the instant to write down.

    Raises:
        OperatorError: the file is not usable, has no such column, or the name stands for another file.
    """
    path = path.expanduser().resolve()
    loaded = read_file(path)
    if subject_column not in loaded.columns:
        raise OperatorError(
            f"{path} has no column {subject_column!r}.",
            remedy=f"Give --subject one of its columns: {', '.join(loaded.columns)}.",
        )
    named = name or path.stem
    if not named.strip() or len(named) > _NAME_CHARACTERS_MAX:
        raise OperatorError(f"{named[:40]!r} cannot be a data set's name.", remedy="Give --name a short word.")
    entry = Dataset(
        name=named,
        path=str(path),
        sha256=loaded.sha256,
        size_bytes=loaded.size_bytes,
        subject_column=subject_column,
        added_at=format_instant(now),
    )
    with write(engine) as session:
        before = session.get(Dataset, named)
        if before is not None and _same(before, entry):
            return before
        if before is not None and not replace:
            raise OperatorError(
                f"The name {named!r} stands for {before.path} as it was at {before.added_at}, which is not this file.",
                remedy="`accord data add` takes another --name, or --replace (budgets stay as they are).",
            )
        session.merge(entry)
    return entry


def datasets(engine: Engine) -> tuple[Dataset, ...]:
    """All registered files, by name."""
    with read(engine) as session:
        return tuple(session.exec(select(Dataset).order_by("name")).all())


def find_dataset(engine: Engine, name: str | None = None) -> Dataset:
    """The file of that name; without a name the only one that there is.

    Raises:
        OperatorError: none, none of that name, or several without a name.
    """
    known = datasets(engine)
    if not known:
        raise OperatorError(
            "No data set is registered.", remedy="Register one: `accord data add FILE --dir DIR --subject COLUMN`."
        )
    names = ", ".join(entry.name for entry in known)
    if name is None:
        if len(known) > 1:
            raise OperatorError(f"There are several data sets: {names}.", remedy="Name one of them with --name.")
        return known[0]
    for entry in known:
        if entry.name == name:
            return entry
    raise OperatorError(f"No data set is called {name!r}.", remedy=f"Name one of these: {names}.")


def load_dataset(entry: Dataset) -> LoadedFile:
    """Read a registered file again and make sure that it is what was registered.

    Raises:
        OperatorError: the file has changed since, or is not usable.
    """
    loaded = read_file(Path(entry.path))
    if loaded.sha256 != entry.sha256:
        raise OperatorError(
            f"{entry.path} has changed since it was registered as {entry.name!r} at {entry.added_at}.",
            remedy="Restore the file, or review and register the new content: `accord data add ... --replace`.",
        )
    return loaded


def _same(left: Dataset, right: Dataset) -> bool:
    return (left.path, left.sha256, left.subject_column) == (right.path, right.sha256, right.subject_column)


def _parse(data: bytes, source: str) -> tuple[tuple[str, ...], tuple[Mapping[str, str], ...]]:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise OperatorError(
            f"{source}, line {line}: the file is not UTF-8 text.", remedy="Save the file as CSV in UTF-8."
        ) from error
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[Mapping[str, str]] = []
    try:
        columns = tuple(name.strip() for name in next(reader, []))
        _check_header(columns, source)
        for cells in reader:
            if not cells:
                continue
            if len(cells) != len(columns):
                raise OperatorError(
                    f"{source}, line {reader.line_num}: {len(cells)} cells where the header has {len(columns)}.",
                    remedy="Look for a missing or surplus comma, or a quotation mark that is not closed.",
                )
            rows.append(dict(zip(columns, cells, strict=True)))
    except csv.Error as error:
        raise OperatorError(
            f"{source}, line {reader.line_num}: this is not CSV ({error}).",
            remedy="Look for a quotation mark that is not closed, or export the file again.",
        ) from error
    if not rows:
        raise OperatorError(f"{source} has no rows.", remedy="Give a file with a header and at least one record.")
    return columns, tuple(rows)


def _check_header(columns: tuple[str, ...], source: str) -> None:
    if not any(columns):
        raise OperatorError(f"{source} is empty.", remedy="Give a CSV file whose first line names the columns.")
    if "" in columns:
        raise OperatorError(
            f"{source}, line 1: column {columns.index('') + 1} has no name.",
            remedy="Name every column in the first line.",
        )
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice:
        raise OperatorError(
            f"{source}, line 1: the column {twice[0]!r} appears twice.", remedy="Give every column a name of its own."
        )
