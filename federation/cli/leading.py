"""Leading a study: what a coordinator's process runs, and a standby's once it took over."""

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from federation.cli.running import RunningParty
from federation.coordinator.folder import CoordinatorFolder

if TYPE_CHECKING:
    from federation.cli.figures import Sample
    from federation.coordinator.history import StudyHistory
    from federation.coordinator.membership import Membership
    from federation.network.exchange import Exchange


def lead(
    opened: CoordinatorFolder,
    party: RunningParty,
    host: "Exchange",
    membership: "Membership",
    history: "StudyHistory",
    *,
    until_settled: bool,
    seed: int = 0,
) -> None:
    """Run the study as the one that leads it, until it is settled or the party is stopped."""
    from federation.cli.health import health
    from federation.coordinator.pausing import paused
    from federation.coordinator.service import StudyParts, StudyService
    from federation.rules.validation import read_validation
    from federation.storage.log import SqliteLog

    plan = history.state.plan
    salt, rows = opened.validation(plan.validation.commitment)
    anchor = plan.aggregation.root
    service = StudyService(
        StudyParts(
            history=history,
            membership=membership,
            exchange=host,
            blobs=opened.blobs,
            sealed=opened.sealed,
            validation=read_validation(plan, rows),
            root=None if anchor is None else read_validation(plan, opened.validation(anchor)[1]),
            seed=seed,
            stop=party.stop,
            paused=lambda: paused(opened.files.path, plan.study_id),
            outbox=opened.outbox(plan.study_id),
            logs=lambda: [SqliteLog(opened.engine, name) for name in opened.studies()],
            committed=(salt, rows),
        ),
        on_progress=party.show_status,
    )
    service.serve()
    party.show_address(host.addresses())
    with health(opened.settings.health, party, partial(_figures, history)):
        service.run(until_settled=until_settled)
    party.show_status(service.status())


def _figures(history: "StudyHistory") -> Iterator["Sample"]:
    from federation.cli.figures import study_figures, traffic_figures

    yield from study_figures(history.state)
    yield from traffic_figures()
