"""Does exactly the plan's list of trainable parameters leave the site, and nothing beside them?

The released vector must have one number for each name of the plan, each parameter must come out in its own place and
nowhere else, and where nothing was learnt nothing may come out.
"""

from typing import Final

import numpy as np

from clients.privacy.audit.findings import Check, exact
from clients.privacy.audit.path import AuditedPath
from clients.privacy.audit.probe import audit_plan
from federation.errors import PrivacyError
from federation.learning.models import parameter_names
from federation.rules.fixedpoint import from_fixed

FEATURES: Final = 12


def payload_check(path: AuditedPath) -> Check:
    """Names and places of what is released."""
    problem = _problem(path)
    return exact(
        "payload",
        "Are the numbers that leave exactly the plan's trainable parameters?",
        holds=not problem,
        measured=problem or f"{FEATURES + 1} numbers for {FEATURES + 1} names, each in its own place",
    )


def _problem(path: AuditedPath) -> str:
    plan = audit_plan(FEATURES)
    names = parameter_names(plan)
    try:
        empty = path.release(np.zeros(len(names)), plan)
        if len(empty) != len(names):
            return f"{len(empty)} numbers leave where the plan names {len(names)} parameters"
        if empty.any():
            return "something leaves although nothing was learnt"
        for place, name in enumerate(names):
            learnt = np.zeros(len(names))
            learnt[place] = 1.0
            if not np.array_equal(from_fixed(path.release(learnt, plan)), learnt):
                return f"{name} does not come out in its place alone"
    except PrivacyError as error:
        return f"the release refuses a sound update: {error.message}"
    return ""
