"""Can a coordinator read a person's record back from an update? With privacy and without.

For a linear model the answer is arithmetic: one person's gradient is a multiple of their record, so an update that
holds one person shows the record itself (gradient inversion; Phong et al. 2018, section 3). The worst case is shown: a
site with this one person, a coordinator that knows it. The record is a drawing, so that eyes can judge.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from clients.privacy.audit.path import AuditedPath
from clients.privacy.audit.probe import FAINT, Probe, audit_plan, batch_of
from federation.rules.fixedpoint import Floats

SIDE: Final = 16
_NOTHING: Final = 1e-12


@dataclass(frozen=True, slots=True)
class Inversion:
    """A record and what a coordinator could draw of it.

    Attributes:
        record, without, with_privacy: float64 [16, 16]; the record within [-1, 1], the others scaled to match it best.
        correlation_without, correlation_with: of the reconstructions with the record.
    """

    record: Floats
    without: Floats
    with_privacy: Floats
    correlation_without: float
    correlation_with: float

    def to_json(self) -> dict[str, Any]:
        """The figures."""
        return {
            "correlation_without_privacy": self.correlation_without,
            "correlation_with_privacy": self.correlation_with,
        }


def inversion(path: AuditedPath) -> Inversion:
    """Reconstruct the record of a site's only person from one round's update."""
    plan = audit_plan(SIDE * SIDE, records=1, privacy={"clip": "1"})
    record = drawing()
    batch = batch_of(record.reshape(1, 1, -1), np.ones((1, 1)))
    probe = Probe(path, plan)
    without, with_privacy = (
        -probe.sums(batch, multiplier=multiplier)[:-1].reshape(SIDE, SIDE) for multiplier in (FAINT, None)
    )
    return Inversion(
        record=record,
        without=_scaled(without, record),
        with_privacy=_shown(with_privacy),
        correlation_without=_correlation(without, record),
        correlation_with=_correlation(with_privacy, record),
    )


def drawing() -> Floats:
    """The made-up record: two lungs and a spine, as a child would draw an X-ray. Float64 [16, 16] within [-1, 1]."""
    down, across = np.mgrid[0:SIDE, 0:SIDE].astype(np.float64)
    picture = np.full((SIDE, SIDE), -0.2)
    for middle in (4.2, 10.8):
        lung = ((across - middle) / 2.7) ** 2 + ((down - 8.0) / 5.6) ** 2
        picture[lung < 1] = -0.95
    picture[:, 7:9] = 0.8
    picture[2:14:3, 2:14] += 0.45
    picture[(across - 10.5) ** 2 + (down - 10.0) ** 2 < 2.2] = 1.0  # noqa: PLR2004 - what a doctor would look for
    clipped: Floats = np.clip(picture, -1, 1)
    return clipped


def _scaled(found: Floats, record: Floats) -> Floats:
    """``found`` times the factor that brings it nearest to the record."""
    scaled: Floats = found * float((found * record).sum() / max(float((found**2).sum()), _NOTHING))
    return scaled


def _shown(found: Floats) -> Floats:
    """``found`` brought into [-1, 1] for the eye: nobody who has only noise knows a better factor."""
    shown: Floats = found / max(float(np.abs(found).max()), _NOTHING)
    return shown


def _correlation(found: Floats, record: Floats) -> float:
    return float(np.corrcoef(found.ravel(), record.ravel())[0, 1])
