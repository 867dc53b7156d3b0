"""Parties made with the real commands, for tests of the commands: a registry with a published plan, and nodes.

The plan is the built-in one (two institutions, five rounds) over made-up rows.
"""

import random
import shutil
from pathlib import Path

from clients.folder import open_node_folder
from clients.joining import membership_of
from federation.cli.main import main
from federation.coordinator.folder import open_coordinator
from federation.coordinator.history import system_clock
from federation.coordinator.membership import invite
from federation.storage.database import write

STUDY_NAME = "heart-disease"
COLUMNS = "patient_id,age,sex,cp,trestbps,chol,thalach,exang,oldpeak,disease"


def rows(site: str, people: int = 40) -> str:
    """A CSV file that fits the built-in plan; it follows from ``site``."""
    rng = random.Random(site)
    lines = [COLUMNS]
    for number in range(people):
        sex = rng.choice(["female", "male"])
        cp = rng.choice(["typical_angina", "atypical_angina", "non_anginal", "asymptomatic"])
        figures = f"{rng.randint(90, 200)},{rng.randint(150, 400)},{rng.randint(90, 190)},false,{rng.randint(0, 3)}"
        ill = rng.choice(["absent", "present"])
        lines.append(f"{site}-{number:03},{rng.randint(30, 75)},{sex},{cp},{figures},{ill}")
    return "\n".join(lines) + "\n"


def make_registry(folder: Path) -> Path:
    """A coordinator in ``folder/registry`` that has published ``folder/plan.toml``."""
    registry, plan, validation = folder / "registry", folder / "plan.toml", folder / "validation.csv"
    validation.write_text(rows("validation"), encoding="utf-8")
    commands = (
        ["coordinator", "init", "--dir", str(registry), "--name", "registry"],
        ["study", "new", str(plan), "--dir", str(registry), "--validation", str(validation)],
        ["study", "publish", str(plan), "--dir", str(registry)],
    )
    for command in commands:
        assert main(command) == 0, command
    return registry


def copied(registry: Path, folder: Path) -> Path:
    """The registry with its plan and validation rows, copied for one test to change."""
    shutil.copytree(registry.parent, folder, dirs_exist_ok=True)
    return folder / registry.name


def make_node(folder: Path, name: str) -> Path:
    """A node that has joined nothing."""
    assert main(["node", "init", "--dir", str(folder / name), "--name", name]) == 0
    return folder / name


def put_into_study(node: Path, registry: Path) -> str:
    """What ``accord node join`` leaves in a node's folder, without the network; the study's id."""
    opened, coordinator = open_node_folder(node), open_coordinator(registry)
    plan, envelope = coordinator.plan(None)
    address = f"{coordinator.settings.listen}/p2p/{coordinator.key.public.peer_id}"
    invitation = invite(coordinator.engine, study=plan.study_id, site=opened.settings.name, address=address)
    opened.blobs.put(envelope)
    with write(opened.engine) as session:
        session.merge(membership_of(invitation, envelope, now=system_clock()))
    return plan.study_id
