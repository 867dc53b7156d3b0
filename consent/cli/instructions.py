"""What people decided, as the command line reads it: one instruction for each person, from options or a CSV file."""

import csv
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Final

from consent.cli.mechanisms import USUAL, Elements, Special, check_people
from consent.cli.texts import instant
from consent.registry import LICENCE_REF, Registry
from consent.rules.decision import Head
from consent.rules.guardian import issue_authority
from consent.rules.record import Action, Mechanism, Terms, build, open_record, sign_record, standard_statement
from consent.rules.statement import Notice, Party, Statement, notice_of
from consent.wallet import Wallet
from federation.errors import OperatorError
from federation.rules.canonical import sha256_hex

COLUMNS: Final = ("subject", "action", "valid_until", "valid_from")
VALID_DAYS_DEFAULT: Final = 365


@dataclass(frozen=True, slots=True)
class Instruction:
    """One person's decision; the times are None where the command's own apply."""

    ref: str
    action: Action
    valid_until: datetime | None = None
    valid_from: datetime | None = None


def read_decisions(path: Path) -> list[Instruction]:
    """Read a CSV file with the columns ``subject,action`` and, if wanted, ``valid_until`` and ``valid_from``.

    Raises:
        OperatorError: the file cannot be read, or a line is not valid; the line and the column are named.
    """
    found: list[Instruction] = []
    header, rows = read_csv(path)
    unknown = [name for name in header if name not in COLUMNS]
    if unknown or not {"subject", "action"} <= set(header):
        raise OperatorError(
            f"{path} has the columns {', '.join(header)}.", remedy=f"Use subject,action and if wanted {COLUMNS[2:]}."
        )
    for line, row in rows:
        where = f"{path}, line {line}"
        try:
            action = Action(row["action"])
        except ValueError as error:
            raise OperatorError(
                f"{where}, column action: {row['action'][:40]!r}.", remedy="Write grant, refuse or withdraw."
            ) from error
        until, begin = row.get("valid_until", ""), row.get("valid_from", "")
        found.append(
            Instruction(
                ref=row["subject"],
                action=action,
                valid_until=instant(until, f"{where}, column valid_until") if until else None,
                valid_from=instant(begin, f"{where}, column valid_from") if begin else None,
            )
        )
    return found


def read_csv(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """A CSV file's header, and (line number, row) for each of its rows.

    Raises:
        OperatorError: it cannot be read, has no header, or a row is ragged.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, restkey="", restval=None, strict=True)
            header = list(reader.fieldnames or ())
            rows = [(reader.line_num, row) for row in reader]
    except OSError as error:
        raise OperatorError(f"{path} cannot be read: {error.strerror}.", remedy="Check the file's name.") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise OperatorError(f"{path} is not a CSV file in UTF-8: {error}.", remedy="Export it again.") from error
    for line, row in rows:
        if "" in row or None in row.values():
            raise OperatorError(f"{path}, line {line} has another number of cells.", remedy="Mend that line.")
    if not header:
        raise OperatorError(f"{path} is empty.", remedy="Its first line names the columns.")
    return header, rows


@dataclass(frozen=True, slots=True)
class Told:
    """What the people were told beside the terms; None where the standard statement's words hold."""

    controller: str | None = None
    contact: str | None = None
    jurisdiction: str = "loc:EU"
    notice: Notice | None = None

    def statement(self, mechanism: Mechanism, institution: str) -> Statement:
        """The statement of a grant."""
        standard = standard_statement(mechanism, institution)
        name = standard.controller.name if self.controller is None else self.controller
        return replace(
            standard,
            controller=Party(name=name, contact=self.contact, id=institution),
            jurisdiction=self.jurisdiction,
            notice=self.notice or standard.notice,
        )


@dataclass(frozen=True, slots=True)
class Offer:
    """The terms that a grant of this command carries; its end may differ from person to person."""

    purposes: tuple[str, ...]
    diseases: tuple[str, ...]
    epsilon_max: Decimal
    delta_max: Decimal
    valid_days: int
    valid_until: datetime | None
    conditions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    code_hash: str | None = None
    rounds_max: int | None = None
    told: Told = Told()


def conditions(options: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """What DUO modifiers are about, from options ``CODE=VALUE``.

    Raises:
        OperatorError: an option has another form.
    """
    found: dict[str, tuple[str, ...]] = {}
    for option in options:
        code, separator, value = option.partition("=")
        if not separator or not value:
            raise OperatorError(f"--condition: {option[:80]!r}.", remedy="Write it as DUO:0000022=FR.")
        found[code] = (*found.get(code, ()), value)
    return found


def notice_file(path: Path, version: str, language: str) -> Notice:
    """The notice in a file: the hash of its bytes.

    Raises:
        OperatorError: it cannot be read.
    """
    try:
        return notice_of(path.read_bytes(), version=version, language=language)
    except OSError as error:
        raise OperatorError(f"{path} cannot be read: {error.strerror}.", remedy="Check --notice.") from error


def sign_all(
    registry: Registry,
    wallet: Wallet,
    instructions: Sequence[Instruction],
    offer: Offer | None,
    special: Special = USUAL,
) -> list[tuple[str, bytes]]:
    """Sign each instruction with its person's key, each record continuing what the registry holds.

    Args:
        registry: where the records will go.
        wallet: the people's keys.
        instructions: in order; one person may appear more than once.
        offer: the terms of the grants; None if there are none.
        special: the kind of record, and who signs.

    Raises:
        OperatorError: a key is missing, or there is a grant and no offer.
        ConsentError: the parts do not make a valid record.
    """
    heads: dict[str, Head] = registry.heads()
    begun = _mechanisms(registry, {instruction.ref for instruction in instructions} & set(heads))
    now = datetime.now(UTC).replace(microsecond=0)
    signed: list[tuple[str, bytes]] = []
    for instruction in instructions:
        ref, head = instruction.ref, heads.get(instruction.ref)
        key = wallet.key(ref)
        valid_from, terms = _times(instruction, offer, now)
        mechanism = special.kind or begun.get(ref) or (Mechanism.LICENCE if ref == LICENCE_REF else Mechanism.CONSENT)
        begun[ref] = mechanism
        elements = Elements() if terms is None else special.elements
        signer, credential = key, None
        if special.guardianship is not None and special.authority is not None:
            signer = wallet.key(special.guardianship.ref)
            credential = issue_authority(
                issuer=special.authority,
                guardian=signer.public,
                ward=key.public,
                valid_from=now,
                majority=special.guardianship.majority,
            )
        document = build(
            subject=key.public,
            institution=registry.institution,
            action=instruction.action,
            seq=1 if head is None else head.seq + 1,
            prev=None if head is None else head.digest,
            valid_from=valid_from,
            terms=terms,
            mechanism=mechanism,
            statement=None
            if offer is None or terms is None
            else offer.told.statement(mechanism, registry.institution.did),
            guardian=credential,
            hipaa=elements.hipaa,
            permit=elements.permit,
        )
        record = sign_record(document, signer, created=now)
        heads[ref] = Head(1 if head is None else head.seq + 1, sha256_hex(record))
        signed.append((ref, record))
    return signed


def _mechanisms(registry: Registry, refs: Collection[str]) -> dict[str, Mechanism]:
    """The kind of each chain that has begun."""
    return {ref: open_record(registry.history(ref)[-1]).mechanism for ref in refs}


def people(
    everybody: Iterable[str],
    named: Iterable[str],
    decisions: Path | None,
    *,
    mechanism: Mechanism | None,
    action: Action,
    guardian: str | None,
) -> list[Instruction]:
    """Whom a command is about: those named, everybody in the wallet (but not a guardian), and a file's.

    Raises:
        OperatorError: nobody is named, or people are for a whole source; or as :func:`read_decisions`.
    """
    refs = [*named, *(ref for ref in everybody if ref not in (LICENCE_REF, guardian))]
    several = [] if decisions is None else read_decisions(decisions)
    actions = {item.action for item in several} | ({action} if refs or not several else set())
    whole = check_people(mechanism, [*refs, *(item.ref for item in several)], actions)
    found = of_people(refs if refs or several else whole, action) + several
    if not found:
        raise OperatorError("Nobody is named.", remedy="Add --subject, --all, --decisions or --licence.")
    return found


def of_people(refs: Iterable[str], action: Action) -> list[Instruction]:
    """The same decision for several people."""
    return [Instruction(ref, action) for ref in dict.fromkeys(refs)]


def _times(instruction: Instruction, offer: Offer | None, now: datetime) -> tuple[datetime, Terms | None]:
    """When a record begins, and a grant's terms.

    A consent that ended before now was given before: without a ``valid_from`` it began ``valid_days`` before its end.
    """
    if instruction.action is not Action.GRANT:
        return now, None
    if offer is None:
        raise OperatorError(
            "A consent needs its terms: nothing is ticked beforehand.",
            remedy="Add --purpose (such as DUO:0000006) and --epsilon-max.",
        )
    length = timedelta(days=offer.valid_days)
    until = instruction.valid_until or offer.valid_until or (instruction.valid_from or now) + length
    begin = instruction.valid_from or (now if until > now else until - length)
    terms = Terms(
        purposes=offer.purposes,
        diseases=offer.diseases,
        epsilon_max=offer.epsilon_max,
        delta_max=offer.delta_max,
        valid_until=until,
        conditions=offer.conditions,
        code_hash=offer.code_hash,
        rounds_max=offer.rounds_max,
    )
    return begin, terms


def without_terms(instructions: Sequence[Instruction]) -> bool:
    """Whether no instruction is a grant."""
    return all(instruction.action is not Action.GRANT for instruction in instructions)


def with_times(instructions: Sequence[Instruction], *, valid_from: datetime | None) -> list[Instruction]:
    """The instructions, each beginning at ``valid_from`` unless it says otherwise."""
    return [replace(item, valid_from=item.valid_from or valid_from) for item in instructions]
