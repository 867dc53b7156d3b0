"""Data on standard output, the rest on standard error, and every error with a remedy."""

import json

import pytest

from federation.cli.output import emit, fail, note, progress
from federation.errors import (
    AccordError,
    ConsentError,
    OperatorError,
    PeerError,
    PrivacyError,
    SupersededError,
    UnavailableError,
    UnprovenSignerError,
)


def test_text_and_json_carry_the_result_on_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    emit({"rounds": 15}, as_json=False, text="15 rounds")
    emit({"rounds": 15}, as_json=True, text="15 rounds")
    out, err = capsys.readouterr()
    assert out.startswith("15 rounds\n")
    assert json.loads(out.partition("\n")[2]) == {"rounds": 15}
    assert err == ""


def test_notes_and_errors_go_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    note("listening")
    assert fail(OperatorError("No such plan.", remedy="Name one."), as_json=False) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "listening\nerror: No such plan.\nwhat to do: Name one.\n"


def test_an_error_as_json_is_found_where_the_result_would_be(capsys: pytest.CaptureFixture[str]) -> None:
    assert fail(PeerError("Forged.", remedy="Ask again."), as_json=True) == 4
    assert json.loads(capsys.readouterr().out) == {
        "error": {"code": "PeerError", "message": "Forged.", "remedy": "Ask again."}
    }


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (AccordError, 1),
        (OperatorError, 2),
        (UnprovenSignerError, 3),
        (PeerError, 4),
        (PrivacyError, 5),
        (ConsentError, 6),
        (UnavailableError, 7),
        (SupersededError, 8),
    ],
)
def test_each_kind_of_error_has_its_exit_code(kind: type[AccordError], code: int) -> None:
    assert fail(kind("What.", remedy="How."), as_json=False) == code


def test_progress_is_silent_when_nobody_is_looking(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("Training", total=3) as advance:
        advance(3)
    assert capsys.readouterr() == ("", "")
