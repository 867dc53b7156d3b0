"""A witness keeps its word, and so no two final trees conflict, whatever coordinator, standby and one witness do."""

from collections.abc import Callable
from itertools import combinations
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from standby_in_memory import FAILOVER, KEY
from terms_by_hand import BLOB, COORDINATOR, KEYS, NOW, PLAN, SITES, TermLog, ordered

from clients.fencing import Fence, MemoryPromises, NodePromises
from clients.storage import memory_node
from clients.witness import Witness
from federation.coordinator.protocols import CosignReply, CosignRequest, PromiseRequest
from federation.errors import AccordError, PeerError, UnavailableError
from federation.rules.checkpoint import Checkpoint, finality_quorum, sign_checkpoint
from federation.rules.entries import TermBegan
from federation.rules.keys import PrivateKey
from federation.rules.merkle import EMPTY_ROOT
from federation.rules.study import read
from federation.rules.succession import Promise, open_promise
from federation.storage.evidence import MemoryEvidence
from federation.storage.log import MemoryLog

AFTER_S = float(str(FAILOVER["after_s"]))


class Site:
    """One witness with its stores; ``start`` is a new process on them."""

    def __init__(self, site: str) -> None:
        self.site, self.key = site, KEYS[site]
        self.log, self.promises, self.evidence = MemoryLog(site), MemoryPromises(), MemoryEvidence()
        self.seconds = 0.0
        self.start()

    def start(self) -> None:
        self.witness = Witness(
            plan=PLAN,
            plan_blob=BLOB,
            coordinator=COORDINATOR.public,
            key=self.key,
            log=self.log,
            blobs=_no_blob,
            evidence=self.evidence,
            clock=lambda: NOW,
            fence=Fence(self.key, self.promises, monotonic=lambda: self.seconds),
        )

    def shown(self, log: TermLog, size: int, by: PrivateKey = COORDINATOR, *, first: int = 0) -> CosignReply:
        """Entries ``first`` to ``size`` of a log, and a checkpoint over them."""
        note = sign_checkpoint(Checkpoint(PLAN.origin, size, log.root(size)), by).to_bytes().decode()
        entries = tuple(data.decode() for data in log.entries[first:size])
        request = CosignRequest(study=PLAN.study_id, first=first, entries=entries, checkpoint=note)
        return read(CosignReply, self.witness.handle(by.public, request.to_payload()))

    def asked(self, *shown: str, by: PrivateKey = KEY) -> str:
        """Its promise."""
        request = PromiseRequest(study=PLAN.study_id, promises=shown)
        return self.witness.promise(by.public, request.to_payload()).decode()


def _no_blob(name: str) -> bytes:
    raise AssertionError(f"nothing here rests on a blob: {name}")


@pytest.fixture
def site() -> Site:
    return Site("ash")


@pytest.fixture
def log() -> TermLog:
    return TermLog().start().go_on(4)


def test_it_promises_when_the_coordinator_was_silent_and_says_what_it_cosigned(site: Site, log: TermLog) -> None:
    site.shown(log, 8)
    site.seconds = AFTER_S - 1
    with pytest.raises(UnavailableError, match="The coordinator was heard here within the last 60 s"):
        site.asked()
    site.seconds = AFTER_S
    promise, _ = open_promise(site.asked().encode(), study=PLAN.study_id, standby=KEY.public.did)
    assert (promise.size, promise.root) == (8, log.root(8).hex())


def test_it_promises_nobody_else_anything(site: Site) -> None:
    site.seconds = AFTER_S
    for stranger in (COORDINATOR, KEYS["birch"]):
        with pytest.raises(PeerError, match="Only the standby"):
            site.asked(by=stranger)


def test_hearing_the_coordinator_begins_the_silence_anew(site: Site) -> None:
    site.seconds = AFTER_S
    fence = site.witness._fence
    fence.heard()
    site.seconds += AFTER_S - 1
    assert fence.silent_s() == AFTER_S - 1
    with pytest.raises(UnavailableError):
        site.asked()


def test_after_its_promise_it_cosigns_nothing_of_the_old_term_also_after_a_restart(site: Site, log: TermLog) -> None:
    site.shown(log, 7)
    site.seconds = AFTER_S
    promise = site.asked()
    for _ in range(2):
        with pytest.raises(PeerError, match="promised the lead to the standby"):
            site.shown(log, 9)
        site.start()
        assert site.asked() == promise, "a promise is one document, whoever is heard meanwhile"


def test_a_promise_is_stored_before_it_is_shown(site: Site, log: TermLog) -> None:
    class FullDisk(MemoryPromises):
        def save(self, promise: bytes) -> None:  # noqa: ARG002 -- the port's signature
            raise OSError(28, "No space left on device")

    site.promises = FullDisk()
    site.start()
    site.seconds = AFTER_S
    with pytest.raises(OSError, match="No space"):
        site.asked()
    assert site.shown(log, 8).cosignature is not None, "nothing was promised"


def test_the_node_s_database_keeps_the_promise() -> None:
    engine = memory_node()
    assert NodePromises(engine, "s").load() is None
    NodePromises(engine, "s").save(b"promise")
    assert NodePromises(engine, "s").load() == b"promise"
    assert NodePromises(engine, "other").load() is None


def test_so_many_others_promises_that_one_is_honest_are_enough(site: Site, log: TermLog) -> None:
    """Of four witnesses one may lie: one promise convinces nobody, two do."""
    site.shown(log, 7)
    with pytest.raises(UnavailableError):
        site.asked(log.promise("birch"), log.promise("birch", 3))
    with pytest.raises(UnavailableError):
        site.asked(log.promise("birch"), log.promise("ash"))
    assert site.asked(log.promise("birch"), log.promise("cedar"))


def test_it_turns_to_the_new_term_and_sets_aside_what_was_not_final(site: Site, log: TermLog) -> None:
    site.shown(log, 10)
    taken = log.fork(8, branch=0).take_over().go_on(3)
    assert site.shown(taken, 12, KEY, first=8).cosignature is not None
    assert site.log.entries() == taken.entries
    assert site.log.aside == log.entries[8:10]
    site.start()
    assert site.witness.state.term == 1
    assert site.shown(log, 10).superseded == taken.entries[8].decode(), "and the coordinator is shown the proof"


def test_whoever_is_turned_is_bound_even_if_it_stops_in_between(site: Site, log: TermLog) -> None:
    site.shown(log, 10)
    taken = log.fork(8, branch=0).take_over()

    class Stopped(MemoryLog):
        def append(self, entry_id: str, data: bytes) -> int:  # noqa: ARG002 -- the port's signature
            raise OSError(5, "stopped")

    site.log.__class__ = Stopped
    with pytest.raises(OSError, match="stopped"):
        site.shown(taken, 9, KEY, first=8)
    site.log.__class__ = MemoryLog
    site.start()
    assert site.log.size == 8
    with pytest.raises(PeerError, match="promised the lead"):
        site.shown(log, 10)


def test_a_weak_takeover_turns_nobody(site: Site, log: TermLog) -> None:
    site.shown(log, 10)
    few = TermBegan(promises=ordered([log.promise("birch", 8), log.promise("cedar", 8)]))
    entry = log.fork(8, branch=0).signed(few, key=KEY, term=1)
    request = CosignRequest(study=PLAN.study_id, first=8, entries=(entry.decode(),))
    with pytest.raises(PeerError, match="the log is forked"):
        site.witness.handle(KEY.public, request.to_payload())
    assert site.log.size == 10


BASE = TermLog().start()
BRANCHES = tuple(BASE.fork(6, branch=number).go_on(4) for number in range(2))
LIAR = SITES[3]
"""One of the four witnesses signs whatever it is shown, and promises what it likes: as many as may lie."""


class Race:
    """Coordinator and standby race for finality; both may show different witnesses different logs."""

    def __init__(self) -> None:
        self.sites = {site: Site(site) for site in SITES[:3]}
        self.promises: dict[str, str] = {}
        self.taken: list[TermLog] = []
        self.cosigned: dict[tuple[bytes, ...], set[str]] = {}

    def play(self, steps: list[tuple[Any, ...]]) -> None:
        for name, *arguments in steps:
            getattr(self, name)(*arguments)

    def lead(self, site: str, branch: int, size: int) -> None:
        self._show(site, BRANCHES[branch], size, COORDINATOR)

    def lead_all(self, branch: int, size: int) -> None:
        for site in SITES:
            self.lead(site, branch, size)

    def silence(self, site: str) -> None:
        self._of(site, lambda one: setattr(one, "seconds", one.seconds + AFTER_S))

    def restart(self, site: str) -> None:
        self._of(site, Site.start)

    def ask(self, site: str, lie: int) -> None:
        if site == LIAR:
            sizes = {0: EMPTY_ROOT, **{size: BRANCHES[lie % 2].root(size) for size in (6, 8, 10)}}
            size = list(sizes)[lie % 4]
            promise = Promise(study=PLAN.study_id, term=1, standby=KEY.public.did, size=size, root=sizes[size].hex())
            self.promises[site] = promise.sign(KEYS[LIAR]).to_bytes().decode()
            return
        try:
            self.promises[site] = self.sites[site].asked(*self.promises.values())
        except AccordError:
            return

    def take_over(self, branch: int, size: int) -> None:
        """With all promises that fit; the standby may do so again, in another way."""
        log = BRANCHES[branch].fork(size, branch=7 + len(self.taken))
        fitting = [text for text in self.promises.values() if self._fits(log, text)]
        if len(fitting) >= finality_quorum(len(SITES)):
            self.taken.append(log.take_over(ordered(fitting)).go_on(2))

    def stand_in(self, site: str, which: int, more: int) -> None:
        if self.taken:
            log = self.taken[which % len(self.taken)]
            self._show(site, log, min((log.state.began or 0) + 1 + more, len(log.entries)), KEY)

    def check(self) -> None:
        """No two final trees conflict: one is the beginning of the other."""
        quorum = finality_quorum(len(SITES))
        final = [leaves for leaves, sites in self.cosigned.items() if len(sites) >= quorum]
        for one, other in combinations(final, 2):
            shorter, longer = sorted((one, other), key=len)
            assert longer[: len(shorter)] == shorter

    def _show(self, site: str, log: TermLog, size: int, by: PrivateKey) -> None:
        first = 0 if log.state.began is None else log.state.began
        cosigned = site == LIAR
        if not cosigned:
            for start in dict.fromkeys((first, 0)):
                try:
                    cosigned = self.sites[site].shown(log, size, by, first=start).cosignature is not None
                except AccordError:
                    cosigned = False
                if cosigned:
                    break
        if cosigned:
            self.cosigned.setdefault(tuple(log.entries[:size]), set()).add(site)

    def _fits(self, log: TermLog, text: str) -> bool:
        promise, _ = open_promise(text.encode(), study=PLAN.study_id, standby=KEY.public.did)
        return promise.size <= len(log.entries) and log.root(promise.size).hex() == promise.root

    def _of(self, site: str, do: Callable[[Site], None]) -> None:
        if site in self.sites:
            do(self.sites[site])


_SITE, _BRANCH, _SIZE = st.sampled_from(SITES), st.integers(0, 1), st.integers(7, 10)
_STEPS: dict[str, tuple[Any, ...]] = {
    "lead": (_SITE, _BRANCH, _SIZE),
    "lead_all": (_BRANCH, _SIZE),
    "silence": (_SITE,),
    "restart": (_SITE,),
    "ask": (_SITE, st.integers(0, 7)),
    "take_over": (_BRANCH, _SIZE),
    "stand_in": (_SITE, st.integers(0, 2), st.integers(0, 2)),
}
_STEP = st.one_of(*(st.tuples(st.just(name), *arguments) for name, arguments in _STEPS.items()))


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(_STEP, min_size=6, max_size=24))
def test_no_two_final_trees_conflict(steps: list[tuple[Any, ...]]) -> None:
    race = Race()
    race.play(steps)
    race.check()


_LEAD = st.one_of(*(st.tuples(st.just(name), *_STEPS[name]) for name in ("lead", "lead_all")))


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(_LEAD, max_size=4), st.lists(_LEAD, max_size=2), _BRANCH, _SIZE, st.lists(_LEAD, max_size=2))
def test_a_coordinator_that_was_only_frozen_makes_nothing_final_any_more(
    before: list[tuple[Any, ...]],
    after_the_promises: list[tuple[Any, ...]],
    branch: int,
    size: int,
    after_the_takeover: list[tuple[Any, ...]],
) -> None:
    """A whole takeover, with the coordinator at work before, between and behind it."""
    race = Race()
    race.play(before)
    for site in SITES:
        race.silence(site)
        race.ask(site, 0)
    race.play(after_the_promises)
    race.take_over(branch, size)
    race.play(after_the_takeover)
    for site in SITES:
        race.stand_in(site, 0, 1)
    race.check()


def test_the_race_ends_with_the_standby_s_tree_final_when_all_is_well() -> None:
    """What the properties above rest on: their steps do lead to takeovers."""
    race = Race()
    race.lead_all(0, 8)
    for site in SITES:
        race.silence(site)
        race.ask(site, 0)
    race.take_over(0, 9)
    race.lead_all(0, 10)
    for site in SITES:
        race.stand_in(site, 0, 1)
    race.check()
    final = [leaves for leaves, sites in race.cosigned.items() if len(sites) >= finality_quorum(len(SITES))]
    assert [len(leaves) for leaves in final] == [8, 11]
