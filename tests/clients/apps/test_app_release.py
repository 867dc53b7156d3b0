"""Which app may see which data: the owner's licence, the institution's word, and never people's data."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hand_made import make_node

from clients.apps.release import Limits, Releases, Terms
from clients.data.dataset import find_dataset
from clients.folder import NodeFolder, open_node_folder
from clients.storage import StudyMembership
from federation.cli.main import main
from federation.coordinator.history import system_clock
from federation.errors import ConsentError, OperatorError
from federation.rules.keys import PrivateKey
from federation.rules.study import StudyPlan
from federation.storage.database import write

APP, OTHER = "a" * 64, "b" * 64
COORDINATOR = PrivateKey(b"c" * 32)
WITHOUT_BOUND = ("--epsilon-max", "1000000", "--code-hash", APP)


class Station:
    """An institution with one registered file, and the wallet of the file's owner."""

    def __init__(self, folder: Path) -> None:
        self.node = make_node(folder, "station")
        self.file, self.wallet = folder / "wind.csv", folder / "owner.wallet"
        self.file.write_text("day,wind,power\nd1,1,2\nd2,3,4\n", encoding="utf-8")
        self.add("wind")
        self.run("consent", "wallet", "--out", self.wallet, "--licence", "--subject", "d1")
        self.opened: NodeFolder = open_node_folder(self.node)
        self.releases = Releases(self.opened.engine, self.opened.registry, self.opened.key.public, system_clock)

    @staticmethod
    def run(*arguments: str | Path) -> None:
        assert main([str(each) for each in arguments]) == 0, arguments

    def add(self, name: str) -> None:
        self.run("data", "add", self.file, "--dir", self.node, "--subject", "day", "--name", name)

    def grant(self, *options: str, who: tuple[str, ...] = ("--licence",), purpose: str = "DUO:0000042") -> None:
        granted = ("consent", "grant", "--dir", self.node, "--wallet", self.wallet, *who, "--purpose", purpose)
        self.run(*granted, *options)

    def approve(self, dataset: str = "wind") -> None:
        terms = Terms(COORDINATOR.public, "/ip4/127.0.0.1/tcp/1/p2p/x", "DUO:0000042", Limits(), {"id": 3})
        self.releases.approve(APP, dataset, terms)

    def join(self, plan: StudyPlan, dataset: str) -> None:
        """Take part in a study, as `accord node join` and `accord agreement sign` store it."""
        with write(self.opened.engine) as session:
            session.add(
                StudyMembership(
                    study=plan.study_id,
                    plan=plan.sign(COORDINATOR).to_bytes(),
                    coordinator=COORDINATOR.public.did,
                    address="",
                    site="station",
                    dataset=dataset,
                )
            )

    def leave(self, plan: StudyPlan) -> None:
        with write(self.opened.engine) as session:
            session.delete(session.get_one(StudyMembership, plan.study_id))


@pytest.fixture
def station(tmp_path: Path) -> Station:
    return Station(tmp_path)


def test_an_owners_licence_without_a_bound_for_this_program_releases_the_file(station: Station) -> None:
    station.grant(*WITHOUT_BOUND)
    station.approve()
    release = station.releases.standing(APP)
    assert (release.dataset, release.coordinator, release.settings) == ("wind", COORDINATOR.public.did, '{"id": 3}')
    assert station.releases.data(release) == {"wind.csv": station.file.read_bytes()}


def test_any_lesser_licence_releases_nothing(station: Station) -> None:
    for options, purpose, why in (
        (("--epsilon-max", "1000000"), "DUO:0000042", "names no program"),
        (("--epsilon-max", "1000000", "--code-hash", OTHER), "DUO:0000042", "one program only"),
        (("--epsilon-max", "8", "--code-hash", APP), "DUO:0000042", "allows epsilon 8"),
        ((*WITHOUT_BOUND, "--max-rounds", "5"), "DUO:0000042", "rounds"),
        (WITHOUT_BOUND, "DUO:0000006", "general research"),
    ):
        station.grant(*options, purpose=purpose)  # the newest counts
        with pytest.raises(ConsentError, match=why):
            station.approve()


def test_without_a_licence_nothing_is_released_and_the_refusal_says_why(station: Station) -> None:
    with pytest.raises(ConsentError, match=r"adds no noise.* licensed it without a bound.*no consent") as caught:
        station.approve()
    assert "--code-hash" in caught.value.remedy
    with pytest.raises(ConsentError, match="released nothing"):
        station.releases.standing(APP)


def test_a_withdrawn_licence_ends_the_release_at_once(station: Station) -> None:
    station.grant(*WITHOUT_BOUND)
    station.approve()
    release = station.releases.standing(APP)
    station.run("consent", "withdraw", "--dir", station.node, "--licence")
    with pytest.raises(ConsentError, match="withdr"):
        station.releases.data(release)
    with pytest.raises(ConsentError, match="withdr"):
        station.releases.note(release, "train", b"computed before the withdrawal")
    assert station.releases.listing()[0][1:] == (0, 0)


def test_an_officer_takes_a_release_back(station: Station) -> None:
    station.grant(*WITHOUT_BOUND)
    station.approve()
    release = station.releases.standing(APP)
    station.releases.note(release, "train", b"12345")
    assert station.releases.revoke(APP) == 1
    assert station.releases.revoke(APP) == 0
    with pytest.raises(ConsentError, match="taken it back"):
        station.releases.standing(APP)
    with pytest.raises(ConsentError, match="nothing is sent"):
        station.releases.note(release, "train", b"12345")
    assert [row[1:] for row in station.releases.listing()] == [(1, 5)]


def test_a_new_release_to_an_app_takes_the_place_of_the_old(station: Station) -> None:
    station.grant(*WITHOUT_BOUND)
    station.approve()
    station.approve()
    assert [bool(release.revoked_at) for release, _, _ in station.releases.listing()] == [True, False]


def test_a_file_that_changed_is_not_shown(station: Station) -> None:
    station.grant(*WITHOUT_BOUND)
    station.approve()
    release = station.releases.standing(APP)
    station.file.write_text("day,wind,power\nd9,1,2\n", encoding="utf-8")
    with pytest.raises(OperatorError, match="has changed"):
        station.releases.data(release)
    station.run("data", "add", station.file, "--dir", station.node, "--subject", "day", "--name", "wind", "--replace")
    with pytest.raises(OperatorError, match="not the file that was released"):
        station.releases.data(release)


def test_rows_of_somebody_with_a_record_of_their_own_are_never_shown(station: Station) -> None:
    station.grant(*WITHOUT_BOUND)
    station.grant("--epsilon-max", "3", who=("--subject", "d1"))
    with pytest.raises(ConsentError, match=r"persons' data.* records of their own"):
        station.approve()
    station.run("consent", "withdraw", "--dir", station.node, "--subject", "d1")
    with pytest.raises(ConsentError, match=r"persons' data.* records of their own"):
        station.approve()


def test_a_file_that_serves_a_study_of_persons_is_never_shown_under_any_name(
    station: Station, make_plan: Callable[[], StudyPlan]
) -> None:
    document = make_plan().model_dump(by_alias=True, exclude_none=True)
    station.grant(*WITHOUT_BOUND)
    station.add("copy")
    for kind in ("consent", "hipaa-authorization", "dpa", "ehds-permit"):
        plan = StudyPlan.model_validate({**document, "consent": {"kind": kind}})
        for dataset in ("wind", ""):
            station.join(plan, dataset)
            for name in ("wind", "copy"):
                with pytest.raises(ConsentError, match=f"persons' data.*{plan.study_id}, which stands on {kind}"):
                    station.approve(name)
            station.leave(plan)
    station.approve()
    station.join(make_plan(), "wind")
    station.file.write_text("day,wind,power\nd1,1,2\n", encoding="utf-8")
    station.add("edited")
    with pytest.raises(ConsentError, match="persons' data"):
        station.approve("edited")


def test_a_study_under_a_licence_or_on_another_file_stands_in_nobodys_way(
    station: Station, make_plan: Callable[[], StudyPlan]
) -> None:
    document = make_plan().model_dump(by_alias=True, exclude_none=True)
    station.grant(*WITHOUT_BOUND)
    station.join(StudyPlan.model_validate({**document, "consent": {"kind": "licence"}}), "wind")
    station.join(make_plan(), "patients")
    assert find_dataset(station.opened.engine, None).name == "wind"
    station.approve()
    assert station.releases.standing(APP).dataset == "wind"
