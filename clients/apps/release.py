"""Which data set an institution released to which app, and whether that still stands.

An app of one's own sees rows as they are. Nobody can say how much its answers tell about one of them, so no budget
could be charged and no epsilon be promised. Therefore (docs/adr/0020-own-apps-on-released-data.md):

- It runs only on data whose **owner licensed this very program without a bound**: the licence names the app's hash as
  its only code, and :data:`UNBOUNDED` as its epsilon. That is asked again before every message.
- It never runs where persons decide: not on a file that serves a study under their consent or authorisation, under a
  data processing agreement or a permit for health data, and not on one that names anybody with a record of their own.
- The institution's officer approves one hash, one file and one coordinator, and says that no row is about a person.

Every reply is written down, by its hash, before it leaves.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Final

from sqlalchemy import Engine
from sqlmodel import col, select

from clients.apps.project import ConfigValue
from clients.data.dataset import datasets, find_dataset, load_dataset
from clients.storage import AppRelease, AppReply, Dataset, StudyMembership
from consent.registry import LICENCE_REF, Registry
from consent.rules.decision import Use
from consent.rules.record import Mechanism, open_record
from federation.errors import ConsentError, OperatorError
from federation.rules.instant import format_instant
from federation.rules.keys import PublicKey
from federation.rules.study import open_plan
from federation.storage.database import read, write

UNBOUNDED: Final = Decimal(1_000_000)
"""The epsilon by which an owner says: without a bound. No study may ask for more than 8."""
PURPOSE_DEFAULT: Final = "DUO:0000042"
WITHOUT_NOISE: Final = "An app sees rows as they are and adds no noise to what it sends"
_LICENCE_REMEDY: Final = (
    "The owner signs one: `accord consent grant --licence --code-hash HASH --epsilon-max 1000000 --purpose DUO`."
)


@dataclass(frozen=True, slots=True)
class Limits:
    """What one message may use: memory and temporary files in MiB, time in seconds (by the clock and of processors)."""

    memory_mib: int = 2048
    seconds: int = 600
    disk_mib: int = 256


@dataclass(frozen=True, slots=True)
class Terms:
    """What an officer approves beside code and data.

    ``coordinator`` is whom replies go to, at ``address`` (a multiaddress ending in its peer id); ``purpose`` a DUO
    code that the owner's licence must cover; ``settings`` Flower's ``node_config``.
    """

    coordinator: PublicKey
    address: str
    purpose: str
    limits: Limits
    settings: Mapping[str, ConfigValue]


class Releases:
    """The releases of one institution.

    Args:
        engine: the node's database.
        registry: where the owner's licence is.
        institution: this institution's key.
        clock: the time.
    """

    def __init__(
        self, engine: Engine, registry: Registry, institution: PublicKey, clock: Callable[[], datetime]
    ) -> None:
        self._engine, self._registry, self._institution, self._clock = engine, registry, institution, clock

    def approve(self, code_hash: str, dataset: str | None, terms: Terms) -> AppRelease:
        """Release a registered data set to an app; it takes the place of an older release to the same app.

        Raises:
            OperatorError: no such data set, or its file has changed.
            ConsentError: as :meth:`check`.
        """
        entry = find_dataset(self._engine, dataset)
        self.check(code_hash, entry, terms.purpose)
        release = AppRelease(
            code_hash=code_hash,
            dataset=entry.name,
            dataset_sha256=entry.sha256,
            coordinator=terms.coordinator.did,
            address=terms.address,
            purpose=terms.purpose,
            memory_mib=terms.limits.memory_mib,
            seconds=terms.limits.seconds,
            disk_mib=terms.limits.disk_mib,
            settings=json.dumps(dict(terms.settings), sort_keys=True),
            released_at=format_instant(self._clock()),
        )
        with write(self._engine) as session:
            for older in session.exec(select(AppRelease).where(AppRelease.code_hash == code_hash)):
                older.revoked_at = older.revoked_at or release.released_at
                session.add(older)
            session.add(release)
        return release

    def check(self, code_hash: str, entry: Dataset, purpose: str) -> None:
        """Make sure that this app may see this file now.

        Raises:
            ConsentError: it binds persons, or its owner's licence does not allow it; the message says why.
            OperatorError: the file has changed or cannot be read.
        """
        self._check_no_study_of_persons(entry)
        subjects = {row[entry.subject_column] for row in load_dataset(entry).rows}
        if subjects & (self._registry.heads().keys() - {LICENCE_REF}):
            raise ConsentError(
                f"{WITHOUT_NOISE}, so it may not run on persons' data: the data set names people who have records of "
                "their own in this institution's registry.",
                remedy="Take part in a study instead, which protects each of them.",
            )
        self._check_licence(code_hash, purpose)

    def standing(self, code_hash: str) -> AppRelease:
        """The release that stands for an app.

        Raises:
            ConsentError: none does (any more).
        """
        with read(self._engine) as session:
            found = session.exec(
                select(AppRelease).where(AppRelease.code_hash == code_hash, AppRelease.revoked_at == "")
            ).first()
        if found is None:
            raise ConsentError(
                f"This institution has released nothing to the app {code_hash[:12]}, or has taken it back.",
                remedy="Its officer decides: `accord app approve`.",
            )
        return found

    def data(self, release: AppRelease) -> dict[str, bytes]:
        """The released file's name and bytes, checked at this moment.

        Raises:
            ConsentError: as :meth:`check`.
            OperatorError: the file is not the one that was released.
        """
        entry = find_dataset(self._engine, release.dataset)
        self.check(release.code_hash, entry, release.purpose)
        content = Path(entry.path).read_bytes()
        if hashlib.sha256(content).hexdigest() != release.dataset_sha256:
            raise OperatorError(
                f"{entry.path} is not the file that was released as {release.dataset!r}.",
                remedy="Restore it, or approve the app anew.",
            )
        return {Path(entry.path).name: content}

    def files(self) -> tuple[Path, ...]:
        """Every registered file, released or not."""
        return tuple(Path(entry.path) for entry in datasets(self._engine))

    def listing(self) -> list[tuple[AppRelease, int, int]]:
        """Every release, oldest first, with the number of replies that left and their bytes."""
        with read(self._engine) as session:
            releases = session.exec(select(AppRelease).order_by(col(AppRelease.number))).all()
            replies = session.exec(select(AppReply.release, AppReply.size_bytes)).all()
        sizes = {each.number: [size for number, size in replies if number == each.number] for each in releases}
        return [(each, len(sizes[each.number]), sum(sizes[each.number])) for each in releases]

    def revoke(self, code_hash: str) -> int:
        """Take back what stands for an app, from its next message on; how many releases that were."""
        with write(self._engine) as session:
            standing = session.exec(
                select(AppRelease).where(AppRelease.code_hash == code_hash, AppRelease.revoked_at == "")
            ).all()
            for release in standing:
                release.revoked_at = format_instant(self._clock())
                session.add(release)
        return len(standing)

    def note(self, release: AppRelease, message_type: str, reply: bytes) -> None:
        """Write down, durably, that a reply is about to leave.

        Raises:
            ConsentError: the release was taken back, or the licence withdrawn, while the app ran.
        """
        self._check_licence(release.code_hash, release.purpose)
        with write(self._engine) as session:
            current = session.get(AppRelease, release.number)
            if current is None or current.revoked_at:
                raise ConsentError(
                    "The release was taken back while the app ran; nothing is sent.",
                    remedy="Its officer decides: `accord app approve`.",
                )
            session.add(
                AppReply(
                    release=release.number or 0,
                    at=format_instant(self._clock()),
                    message_type=message_type,
                    size_bytes=len(reply),
                    sha256=hashlib.sha256(reply).hexdigest(),
                )
            )

    def _check_no_study_of_persons(self, entry: Dataset) -> None:
        """Refuse a file that serves, under any name, a study in which persons decide or others decide for them."""
        names = {
            other.name for other in datasets(self._engine) if other.sha256 == entry.sha256 or other.path == entry.path
        }
        with read(self._engine) as session:
            memberships = session.exec(select(StudyMembership)).all()
        for membership in memberships:
            kind = Mechanism(open_plan(membership.plan)[0].consent.kind)
            if kind is not Mechanism.LICENCE and membership.dataset in {*names, ""}:
                raise ConsentError(
                    f"{WITHOUT_NOISE}, so it may not run on persons' data: this institution's data serves "
                    f"{membership.study}, which stands on {kind.value}.",
                    remedy="Take part in a study instead; keep an owner's data in a node of its own.",
                )

    def _check_licence(self, code_hash: str, purpose: str) -> None:
        history = self._registry.history(LICENCE_REF)
        terms = open_record(history[-1]).terms if history else None
        if terms is not None and terms.code_hash is None:
            raise ConsentError(
                "The owner's licence names no program; an app runs only under one that names its hash.",
                remedy=_LICENCE_REMEDY,
            )
        use = Use(
            institution=self._institution.did,
            kind=Mechanism.LICENCE,
            duo=purpose,
            disease=None,
            epsilon=UNBOUNDED,
            delta=Decimal(0),
            code=(code_hash,),
        )
        decision = self._registry.decide_all(use, self._clock(), [LICENCE_REF])[LICENCE_REF]
        if not decision.permitted:
            raise ConsentError(
                f"{WITHOUT_NOISE}, so the data's owner must have licensed it without a bound. {decision.sentence}",
                remedy=_LICENCE_REMEDY,
            )
