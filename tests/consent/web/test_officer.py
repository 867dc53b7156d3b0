"""The officer's pages do what they say: requests, versions, people, coverage, withdrawals, the log, the trail."""

from __future__ import annotations

import csv
import json
import re
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from importlib import resources

import httpx
import pytest
from consent_people import person
from consent_site import Site
from officer_desk import Desk, answer, decision, desk_of, fields, words
from sqlalchemy import text

from consent.registry import RoundOf
from consent.rules.approval import Approval
from consent.rules.decision import Status
from consent.web.officer_coverage import uses_of
from consent.web.officer_people import person_id
from consent.web.sessions import Role
from consent.web.starter import STARTER
from federation.rules.checkpoint import SignedCheckpoint, open_checkpoint
from federation.rules.instant import format_instant
from federation.rules.study import plan_from_toml
from federation.storage.database import read

OUTLINE = {
    "name": "heart-2027",
    "controller": "City Hospital",
    "contact": "privacy@hospital.example",
    "sponsor": "Heart Institute",
    "purposes": ["DUO:0000007", "DUO:0000006"],
    "diseases": "MONDO:0005267",
    "companies_asked": "yes",
    "data": ["diagnoses", "age_sex"],
    "epsilon_max": "1",
    "delta_max": "0.00001",
    "valid_days": "365",
    "reward": "none",
    "languages": ["en", "fr"],
    "words.en.title": "A heart study",
    "words.en.why": "To find heart disease earlier.",
    "words.en.disease": "heart disease",
    "words.fr.title": "Une étude du cœur",
    "words.fr.why": "Pour dépister plus tôt les maladies du cœur.",
    "words.fr.disease": "les maladies du cœur",
    "words.pt.title": "",
    "words.pt.why": "",
    "words.pt.disease": "",
}
PAGES = (
    "/officer",
    "/officer/requests",
    "/officer/requests/new",
    f"/officer/requests/{STARTER}",
    f"/officer/requests/{STARTER}/edit",
    f"/officer/requests/{STARTER}/coverage",
    f"/officer/requests/{STARTER}/invite",
    f"/officer/requests/{STARTER}/versions/1",
    "/officer/people",
    f"/officer/people/{person_id('anna')}",
    f"/officer/people/{person_id('anna')}/erase",
    "/officer/withdrawals",
    "/officer/exports",
    "/officer/log",
    "/officer/log/checkpoint",
    "/officer/trail",
)


@pytest.fixture
def desk(site: Site) -> Iterator[Desk]:
    made = desk_of(site)
    yield made
    made.client.close()


def publish(desk: Desk, *, status: int = 303, **changed: str) -> str:
    """Write the starter request's next version with some fields changed."""
    page = desk.get(f"/officer/requests/{STARTER}/edit")
    typed = {**fields(page), "change": "Better words.", **changed}
    return words(desk.post(f"/officer/requests/{STARTER}/publish", typed, status=status).text)


def test_only_an_officer_sees_the_officer_s_pages(site: Site, client: httpx.Client, desk: Desk) -> None:
    answer(site, "anna")
    token, _ = site.sessions.begin(Role.PERSON, "anna")
    for path in PAGES:
        desk.get(path)
        for cookie in ("", f"__Host-accord={token}", "__Host-accord=guessed"):
            refused = client.get(path, headers={"Cookie": cookie})
            assert refused.status_code == 403, path
            assert "accord consent officer" in words(refused.text)


def test_a_request_goes_from_an_outline_to_people(site: Site, desk: Desk) -> None:
    page = desk.post("/officer/requests/draft", OUTLINE, status=200).text
    assert "No figure" not in page
    desk.post("/officer/requests/heart-2027/publish", fields(page))
    notice = site.store.open_request("heart-2027")
    assert notice is not None
    assert set(notice.asked.words) == {"en", "fr"}
    assert [purpose.codes for purpose in notice.asked.purposes] == [("DUO:0000007",), ("DUO:0000006",), ()]
    assert notice.asked.purposes[0].diseases == ("MONDO:0005267",)
    assert notice.asked.data_categories == ("pd:HealthHistory", "pd:Age", "pd:Gender")
    assert "Une étude du cœur" in desk.get("/officer/requests", headers={"Accept-Language": "fr"})

    page = desk.post("/officer/requests/heart-2027/invite", {"names": "P-1\r\nP-2;Mrs Doe\n\nP-1\n"}, status=200).text
    table = desk.post("/officer/links.csv", fields(page), status=200)
    assert table.headers["content-disposition"] == 'attachment; filename="invitations.csv"'
    lines = table.text.splitlines()
    assert [line.split(",")[0] for line in lines] == ["name", "P-1", "P-2"]
    code = lines[1].split(",")[1].partition("#")[2]
    opened = desk.client.post("/invitation", data={"code": code}, headers={"Cookie": ""})
    assert opened.headers["location"] == "/request/heart-2027"

    answer(site, "P-1", request="heart-2027")
    shown = words(desk.get("/officer/requests/heart-2027/coverage"))
    assert "Yes, may be used 1 Not answered 1 Together 2" in shown
    desk.post("/officer/requests/heart-2027/close")
    assert site.store.open_request("heart-2027") is None
    assert decision_of(site, "P-1", "heart-2027") is Status.PERMITTED


def decision_of(site: Site, ref: str, request: str) -> Status:
    asked = site.store.notices(request)[-1].asked
    (_, use), *_ = uses_of(asked, site.registry.institution.did)
    return site.registry.decide_all(use, site.registry.now(), [ref])[ref].status


def test_what_is_wrong_with_an_outline_is_said_beside_each_field(desk: Desk) -> None:
    wrong = OUTLINE | {"name": "Heart!", "epsilon_max": "9", "words.fr.why": "", "diseases": ""}
    page = desk.post("/officer/requests/draft", {**wrong, "data": []}, status=422).text
    for field in ("name", "epsilon_max", "words.fr.why", "data"):
        assert f'href="#{field}"' in page
        assert f'id="{field}"' in page
        assert re.search(rf'id="{field}"[^>]*aria-describedby="[^"]*{field}-problem"', page) or field == "data"
    assert fields(page)["words.fr.title"] == "Une étude du cœur"


def test_a_name_that_is_taken_is_refused_before_anything_is_written(desk: Desk) -> None:
    page = desk.post("/officer/requests/draft", {**OUTLINE, "name": STARTER}, status=422).text
    assert "There is a request of this name already." in page


def plan_text() -> str:
    template = (resources.files("federation.cli") / "plan_template.toml").read_text(encoding="utf-8")
    filled = re.sub(r"^commitment = .*$", f'commitment = "{64 * "0"}"', template, flags=re.MULTILINE)
    return re.sub(r"^code_approved = .*$", f'code_approved = ["{64 * "0"}"]', filled, flags=re.MULTILINE)


def test_a_plan_fills_the_outline_in(site: Site, desk: Desk) -> None:
    title = tomllib.loads(plan_text())["title"]
    page = desk.post("/officer/requests/prefill", files={"plan": ("plan.toml", plan_text())}, status=200).text
    assert fields(page)["words.en.title"] == title
    key = person("coordinator")
    plan = plan_from_toml(plan_text(), source="test")
    signed = plan.sign(key).to_bytes()
    site.registry.note_study(plan.study_id, title=title, plan_bytes=signed, epsilon="1", delta="0.00001")
    page = desk.post("/officer/requests/prefill", {"study": plan.study_id}, status=200).text
    assert fields(page)["words.en.title"] == title
    page = desk.post("/officer/requests/prefill", files={"plan": ("plan.toml", "not a plan")}, status=422).text
    assert 'href="#plan"' in page
    assert title in desk.get(f"/officer/studies/{plan.study_id}")


def test_what_a_person_found_about_a_study_is_shown_with_whether_it_counts(site: Site, desk: Desk) -> None:
    plan = plan_from_toml(plan_text(), source="test")
    signed = plan.sign(person("coordinator")).to_bytes()
    site.registry.note_study(plan.study_id, title="A study", plan_bytes=signed, epsilon="1", delta="0.00001")
    path = f"/officer/studies/{plan.study_id}"
    assert "What a person found" not in words(desk.get(path))
    now = site.registry.now()
    found = Approval(
        duo="DUO:0000021",
        plan_hash=plan.plan_hash,
        by="Dr Sousa",
        grounds="Ethics committee, decision 17",
        given_at=format_instant(now),
        valid_until=format_instant(now + timedelta(days=90)),
    )
    site.registry.approve(found)
    page = words(desk.get(path))
    assert "Ethics committee, decision 17 By Dr Sousa on" in page
    assert "counts" in page.partition("decision 17")[2]
    site.registry.disapprove(found.identifier[:12])
    assert "taken back" in words(desk.get(path)).partition("decision 17")[2]


def test_a_yes_can_be_for_one_study_only(site: Site, desk: Desk) -> None:
    page = desk.post("/officer/requests/draft", OUTLINE | {"only_study": "heart-0a1b2c3d4e5f"}, status=200).text
    typed = fields(page)
    assert typed["conditions.DUO:0000027"] == "heart-0a1b2c3d4e5f"
    desk.post("/officer/requests/heart-2027/publish", typed)
    answer(site, "anna", request="heart-2027")
    assert decision(site, "anna", "heart-2027").permitted
    asked = site.store.notices("heart-2027")[0].asked
    (_, use), *_ = uses_of(asked, site.registry.institution.did)
    other = replace(use, declared=replace(use.declared, study=("another-000000000000",)))
    assert not site.registry.decide_all(other, site.registry.now(), ["anna"])["anna"].permitted
    assert "only in a certain project heart-0a1b2c3d4e5f" in words(desk.get("/officer/requests/heart-2027"))
    assert fields(desk.get("/officer/requests/heart-2027/edit"))["conditions.DUO:0000027"] == "heart-0a1b2c3d4e5f"


def test_a_yes_to_a_replaced_notice_counts_no_longer_until_it_is_given_anew(site: Site, desk: Desk) -> None:
    answer(site, "anna", language="fr")
    answer(site, "ben", yes=False)
    publish(desk, again="no", **{"words.en.why": "The same, in better words."})
    assert decision(site, "anna").permitted
    new = {f"words.{name}.why": f"For something else as well ({name})." for name in ("en", "fr")}
    said = publish(desk, again="yes", status=422, **new)
    assert "This text is the same as before, so its readers are not asked again." in said
    publish(desk, again="yes", **new, **{"words.pt.why": "Para mais uma coisa."})
    stopped = decision(site, "anna")
    assert (stopped.status, stopped.reasons[0].code) == (Status.EXPIRED, "notice")
    assert decision(site, "ben").status is Status.REFUSED
    shown = words(desk.get(f"/officer/requests/{STARTER}/coverage"))
    assert "To be asked again: the notice changed 1" in shown
    assert fields(desk.get(f"/officer/requests/{STARTER}/invite?who=again"))["names"] == "anna"
    page = words(desk.get(f"/officer/requests/{STARTER}"))
    assert page.count("counts no longer") == 2
    answer(site, "anna")
    assert decision(site, "anna").permitted


def test_another_limit_asks_people_again_whatever_the_officer_says(site: Site, desk: Desk) -> None:
    answer(site, "anna")
    page = fields(desk.get(f"/officer/requests/{STARTER}/edit"))
    new = {key: value.replace("365", "400") for key, value in page.items() if key.endswith(".duration")}
    publish(desk, again="no", valid_days="400", **new)
    assert decision(site, "anna").reasons[0].code == "notice"


def test_a_version_needs_a_reason_and_a_choice_and_true_figures(site: Site, desk: Desk) -> None:
    said = publish(desk, status=422, change="", epsilon_max="2")
    assert "Please choose whether people are asked again." in said
    assert "Please say in one or two sentences what changed." in said
    assert "This text has to name the figure that it asks for: 2." in said
    assert [notice.version for notice in site.store.notices(STARTER)] == [1]


def test_what_changed_is_marked_by_more_than_colour(desk: Desk) -> None:
    publish(desk, again="no", **{"words.en.title": "May scientists learn from your health data?"})
    page = desk.get(f"/officer/requests/{STARTER}/versions/2")
    assert re.search(r"<del>.*researchers.*</del>.*<ins>.*scientists.*</ins>", page)
    assert "[taken out:] researchers [end]" in words(page)


def test_who_needs_a_judgement_is_named_with_the_reason(site: Site, desk: Desk) -> None:
    answer(site, "anna")
    notice = site.store.open_request(STARTER)
    assert notice is not None
    purposes = (notice.asked.purposes[0].model_copy(update={"codes": ("DUO:0000006", "DUO:0000021")}),)
    site.store.publish("ethics", notice.asked.model_copy(update={"purposes": purposes}))
    answer(site, "ben", request="ethics")
    page = words(desk.get("/officer/requests/ethics/coverage"))
    assert "These need your judgement" in page
    assert "ben : Not permitted: a person has to judge" in page or "ben: Not permitted" in page


def test_the_officer_withdraws_for_somebody_who_asks(site: Site, desk: Desk) -> None:
    answer(site, "anna")
    (_, use), *_ = uses_of(site.store.notices(STARTER)[0].asked, site.registry.institution.did)
    site.registry.decide_all(use, site.registry.now(), ["anna"], round_use=RoundOf("heart", 4))
    path = f"/officer/people/{person_id('anna')}"
    assert "1 round that began with this person is not over yet." in words(desk.get(path))
    desk.post(f"{path}/withdraw")
    assert decision(site, "anna").status is Status.WITHDRAWN
    assert "Withdrawn, by the institution at the person's request" in words(desk.get(path))
    waiting = words(desk.get("/officer/withdrawals"))
    assert "heart, round 4" in waiting
    assert "waiting" in waiting
    site.registry.finish_round(RoundOf("heart", 4), released=True)
    done = words(desk.get("/officer/withdrawals"))
    assert "Longest time to stop" in done
    assert "Withdrew for a person who asked" in words(desk.get("/officer/trail"))
    assert "anna" not in words(desk.get("/officer/trail"))


def test_a_new_link_signs_everybody_else_out(site: Site, desk: Desk, client: httpx.Client) -> None:
    answer(site, "anna")
    token, _ = site.sessions.begin(Role.PERSON, "anna")
    page = desk.post(f"/officer/people/{person_id('anna')}/link", status=200).text
    assert site.sessions.who(token) is None
    code = fields(page)["links"].strip().partition("#")[2]
    assert client.post("/invitation", data={"code": code}).status_code == 303


def test_erasing_takes_two_steps_and_leaves_nothing_but_a_valid_log(site: Site, desk: Desk) -> None:
    answer(site, "anna")
    site.sessions.begin(Role.PERSON, "anna")
    site.registry.append_batch(site.registry.now())
    before = site.registry.checkpoint()
    path = f"/officer/people/{person_id('anna')}/erase"
    assert "Nothing was erased." in words(desk.post(path, {"typed": "ann"}, status=422).text)
    assert decision(site, "anna").permitted
    desk.post(path, {"typed": " anna "}, status=200)
    assert decision(site, "anna").status is Status.MISSING
    assert rows_with(site, "anna") == []
    site.registry.append_batch(site.registry.now())
    assert opened(site, site.registry.checkpoint().to_bytes()).checkpoint.size == 2
    assert site.registry.consistency(before.checkpoint.size)
    assert desk.client.get(path).status_code == 404
    assert "Erased a person" in words(desk.get("/officer/trail"))


def opened(site: Site, note: bytes) -> SignedCheckpoint:
    return open_checkpoint(note, origin=site.registry.origin, signer=site.registry.institution, witnesses=())


def rows_with(site: Site, value: str) -> list[str]:
    """Every table of the database in which a text stands anywhere."""
    found = []
    with read(site.engine) as session:
        connection = session.connection()
        tables = connection.execute(text("SELECT name FROM sqlite_schema WHERE type = 'table'")).scalars().all()
        for table in tables:
            rows = connection.execute(text(f'SELECT * FROM "{table}"')).all()  # noqa: S608 -- names of the schema
            if any(value in str(cell) for row in rows for cell in row):
                found.append(table)
    return found


def test_a_person_is_found_by_a_part_of_the_name_which_stands_in_no_address(site: Site, desk: Desk) -> None:
    answer(site, "Anna-17")
    site.sessions.invite(Role.PERSON, "ben")
    page = desk.post("/officer/people", {"q": "anna"}, status=200).text
    assert "Anna-17" in words(page)
    assert "ben" not in words(page)
    assert not re.search(r'(href|action)="[^"]*(Anna|anna)', page)
    assert "Nobody of that name is known here." in words(desk.post("/officer/people", {"q": "x"}, status=200).text)


def test_names_that_cannot_be_invited_invite_nobody(site: Site, desk: Desk) -> None:
    path = f"/officer/requests/{STARTER}/invite"
    for names in ("", " \n ", "*\nanna", "x" * 201, "\n".join(map(str, range(501)))):
        page = desk.post(path, {"names": names}, status=422).text
        assert "Nobody was invited" in page
    assert site.sessions.pending_invitations("anna") == 0


def test_the_log_s_page_says_what_is_wrong_with_it(site: Site, desk: Desk) -> None:
    assert "No batch has been closed for a while" not in words(desk.get("/officer"))  # nothing to close
    answer(site, "anna")
    assert "No batch has been closed for a while" in words(desk.get("/officer"))
    site.registry.append_batch(site.registry.now())
    assert "No problem is known" in words(desk.get("/officer/log"))
    site.registry.set_witnesses([person("witness").public.did], 1)
    page = words(desk.get("/officer/log"))
    assert "1 of 1 have to cosign before a yes counts." in page
    assert "nothing is permitted at present" in page
    note = desk.client.get("/officer/log/checkpoint").content
    assert opened(site, note).checkpoint.size == 1


def test_every_export_holds_every_record(site: Site, desk: Desk) -> None:
    answer(site, "=anna")
    answer(site, "ben", yes=False)
    site.registry.withdraw("=anna")
    rows = list(csv.DictReader(desk.post("/officer/exports/csv", status=200).text.splitlines()))
    assert [(row["name"], row["action"]) for row in rows] == [
        ("'=anna", "grant"),
        ("'=anna", "withdraw"),
        ("ben", "refuse"),
    ]
    assert rows[0]["notice_version"] == f"{STARTER}/1"
    for kind in ("fhir", "odrl", "duo", "kantara"):
        lines = desk.post(f"/officer/exports/{kind}", status=200).text.splitlines()
        assert len([json.loads(line) for line in lines]) == 3, kind
    assert "Exported all records as csv" in words(desk.get("/officer/trail"))
    desk.post("/officer/exports/xml", status=422)


def test_a_patient_number_that_looks_like_a_formula_stays_a_text(desk: Desk) -> None:
    page = desk.post(f"/officer/requests/{STARTER}/invite", {"names": "=1+1"}, status=200).text
    assert desk.post("/officer/links.csv", fields(page), status=200).text.splitlines()[1].startswith("'=1+1,")


def test_the_officer_reads_everything_in_their_language(site: Site, desk: Desk) -> None:
    site.clock.ahead = timedelta(minutes=1)
    for language, said in (("fr", "Vue d’ensemble"), ("pt", "Visão geral")):
        page = desk.get("/officer", headers={"Accept-Language": language})
        assert f'<html lang="{language}">' in page
        assert said in page


def test_an_epsilon_is_written_as_the_language_does(desk: Desk) -> None:
    page = desk.post("/officer/requests/draft", {**OUTLINE, "epsilon_max": "0.5"}, status=200).text
    typed = fields(page)
    assert Decimal(typed["epsilon_max"]) == Decimal("0.5")
    assert "epsilon 0.5" in typed["words.en.privacy"]
    assert "0,5" in typed["words.fr.privacy"]
