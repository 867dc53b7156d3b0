"""Which modules may be trained with per-subject clipping: those in which no subject's output depends on another's.

Clipping each subject's gradient bounds the influence of a subject only if gradients are really separate. Opacus accepts
modules that break this: batch normalisation with frozen affine parameters (its running statistics leak), any buffer, a
forward pass that subtracts the batch's mean (measured: sensitivity 8.75 C instead of C). So they are refused here,
by structure and by a probe. A probe can only falsify; what a plan may ask for are the families that we build.
"""

from typing import Final

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm  # the common base of all batch normalisations has no public name

from federation.errors import PrivacyError

_PROBE_SUBJECTS: Final = 4


def check_module(module: nn.Module, *, records: int, features: int) -> None:
    """Refuse a module whose outputs mix subjects or that holds more state than its trainable parameters.

    Args:
        module: takes float64 [B, records, features], returns [B, ...].
        records: records of one subject.
        features: inputs of one record.

    Raises:
        PrivacyError: with the name of what is wrong.
    """
    for name, part in module.named_modules():
        if isinstance(part, _BatchNorm | nn.InstanceNorm1d | nn.InstanceNorm2d | nn.InstanceNorm3d):
            raise _unsafe(f"{name or 'it'} is a {type(part).__name__}, whose statistics mix subjects")
        if isinstance(part, nn.modules.dropout._DropoutNd):  # noqa: SLF001 - the common base of all dropouts
            raise _unsafe(f"{name or 'it'} is a {type(part).__name__}, whose randomness is not ours")
    buffers = [name for name, _ in module.named_buffers()]
    if buffers:
        raise _unsafe(f"it has buffers ({', '.join(buffers[:3])}), and only trainable parameters may leave a site")
    frozen = [name for name, parameter in module.named_parameters() if not parameter.requires_grad]
    if frozen:
        raise _unsafe(f"it has parameters that are not trained ({', '.join(frozen[:3])})")
    if _mixes_subjects(module, records, features):
        raise _unsafe("one subject's output changes with another's data")


def _mixes_subjects(module: nn.Module, records: int, features: int) -> bool:
    """Change and drop subjects of a made-up batch; the others' outputs must stay what they were."""
    count = _PROBE_SUBJECTS * records * features
    wave = torch.sin(torch.arange(1, count + 1, dtype=torch.float64) * 1.7)
    batch = wave.reshape(_PROBE_SUBJECTS, records, features)
    with torch.no_grad():
        whole = module(batch)
        for kept in range(_PROBE_SUBJECTS):
            alone = module(batch[kept : kept + 1])
            others = -1e3 * batch
            others[kept] = batch[kept]
            if not (_same(alone[0], whole[kept]) and _same(module(others)[kept], whole[kept])):
                return True
    return False


def _same(left: torch.Tensor, right: torch.Tensor) -> bool:
    return bool(torch.allclose(left, right, rtol=1e-9, atol=1e-9))


def _unsafe(why: str) -> PrivacyError:
    return PrivacyError(
        f"The model cannot be trained with a bound on each subject: {why}.",
        remedy="Use a model in which every subject's output depends on that subject alone, such as linear layers.",
    )
