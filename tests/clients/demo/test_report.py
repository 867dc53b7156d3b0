import copy
import json
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from jinja2.exceptions import UndefinedError

from clients.demo.report import render, write_report


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: Counter[str] = Counter()
        self.targets: list[str] = []
        self.tags: Counter[str] = Counter()
        self.images: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        found = dict(attrs)
        if found.get("id"):
            self.ids[str(found["id"])] += 1
        self.targets += [str(found[name]) for name in ("src", "href", "action", "data") if found.get(name)]
        if found.get("role") == "img":
            self.images.append(str(found.get("aria-label")))


def test_page_is_self_contained(page_text: str) -> None:
    page = Page(page_text)
    assert [target for target in page.targets if not target.startswith(("#", "data:"))] == []
    assert page.tags["script"] == page.tags["link"] - 1 == page.tags["img"] == page.tags["iframe"] == 0
    assert "default-src 'none'" in page_text
    assert not re.search(r"url\((?!#)", page_text)
    assert "@import" not in page_text


def test_page_tells_who_cannot_see_the_pictures(page_text: str) -> None:
    page = Page(page_text)
    assert page.images
    assert all(len(label) > 40 for label in page.images)
    assert [name for name, count in page.ids.items() if count > 1] == []


def test_every_reference_inside_the_page_resolves(page_text: str) -> None:
    page = Page(page_text)
    wanted = {target[1:] for target in page.targets if target.startswith("#")} | set(
        re.findall(r"url\(#([\w-]+)\)", page_text)
    )
    assert wanted <= set(page.ids)


def test_no_stand_in_colour_is_left(page_text: str) -> None:
    assert not re.search(r"#010[12][0-9a-f]{2}\b", page_text)


def test_figures_of_the_report_are_on_the_page(heart: dict[str, Any]) -> None:
    text = render(heart)
    for site in heart["sites"].values():
        assert f"{site['auc_federated']:.3f}" in text
        assert f"{site['epsilon']:.4f}" in text
        assert f"{site['reward_microcredits'] / 1e6:,.2f}" in text
    assert heart["log"]["root"] in text
    assert f"accord log verify export --key {heart['log']['key']}" in text
    assert "no commitment arrived before the deadline" in text


def test_same_figures_give_the_same_page(heart: dict[str, Any]) -> None:
    assert render(heart) == render(copy.deepcopy(heart))  # no clock, no random ids


def test_words_from_outside_cannot_become_markup(heart: dict[str, Any]) -> None:
    attack = '"><script>alert(1)</script>'
    heart["study"]["title"] = attack
    heart["rounds"][10]["refused"][0] = {"name": attack, "reason": attack}
    heart["log"]["key"] = attack
    heart["processes"][0]["name"] = attack
    assert "<script" not in render(heart)


def test_json_is_the_dictionary(report: dict[str, Any], tmp_path: Path) -> None:
    page = write_report(report, tmp_path)
    assert page == tmp_path / "report.html"
    assert json.loads((tmp_path / "report.json").read_text(encoding="utf-8")) == report


def test_a_figure_that_is_not_a_number_is_refused_before_anything_is_written(
    heart: dict[str, Any], tmp_path: Path
) -> None:
    heart["seconds"]["total"] = float("nan")
    with pytest.raises(ValueError, match="JSON"):
        write_report(heart, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_figure_is_an_error_not_a_gap(heart: dict[str, Any]) -> None:
    del heart["log"]["root"]
    with pytest.raises((KeyError, UndefinedError)):
        render(heart)


def test_optional_figures_may_be_absent(heart: dict[str, Any]) -> None:
    for name in ("events", "seed", "baselines"):
        heart.pop(name, None)
    heart["log"].pop("cosignatures")
    for site in heart["sites"].values():
        site.pop("epsilon_pld")
    text = render(heart)
    assert "PLD" not in text
    assert "witnesses" not in text


def test_losses_and_burned_credits_are_drawn(heart: dict[str, Any]) -> None:
    sites = heart["sites"]
    sites["switzerland"] |= {"value": -0.05, "reward_microcredits": 0}
    heart["ledger"]["burned"] = 61_786_976
    text = render(heart)
    assert "−0.0500" in text
    assert "burned" in text


def test_the_same_absence_in_several_rounds_is_told_once(heart: dict[str, Any]) -> None:
    for entry in heart["rounds"][:3]:
        entry["refused"] = [{"name": "cleveland", "reason": "too late"}]
    assert "Rounds 1, 2 and 3, Cleveland: too late" in render(heart)


def test_a_study_without_any_update_still_has_a_page(heart: dict[str, Any]) -> None:
    for entry in heart["rounds"]:
        entry |= {"participants": [], "subjects_used": {}, "auc_validation": 0.43}
    for site in heart["sites"].values():
        site |= {"value": 0.0, "reward_microcredits": 0, "epsilon": 0.0, "epsilon_pld": 0.0}
    heart["valuation"]["v_all"] = heart["valuation"]["v_empty"]
    assert "<svg" in render(heart)


def test_one_round_is_enough_for_a_page(heart: dict[str, Any]) -> None:
    heart["rounds"] = heart["rounds"][:1]
    assert "<svg" in render(heart)
