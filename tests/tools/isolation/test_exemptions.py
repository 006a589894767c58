"""Exemptions from the contract: what counts as one, what is wrong with it, how long it lasts."""

import datetime

import pytest

from tools.isolation.exemptions import CHECKS, Exemption, find, overdue

REASON = "attention runs over the whole text"
GOOD = f"# grug: no-contract causality until 2027-01-31: {REASON}"


def messages(text: str) -> list[str]:
    exemptions, problems = find("model.py", text)
    assert not exemptions
    return [problem.message for problem in problems]


def test_an_exemption_is_read_whole():
    exemptions, problems = find("a/model.py", f'"""Docstring."""\n\nx = 1\n{GOOD}\n')
    assert not problems
    date = datetime.date(2027, 1, 31)
    assert exemptions == [Exemption("a/model.py", 4, "causality", date, REASON)]


@pytest.mark.parametrize(
    "line",
    [
        "#grug: no-contract causality until 2027-01-31: " + REASON,
        "#   grug:  no-contract  causality  until  2027-01-31 :  " + REASON,
        "def f():\n    # grug: no-contract causality until 2027-01-31: " + REASON + "\n    pass",
        "f(\n    # grug: no-contract causality until 2027-01-31: " + REASON + "\n)",
    ],
)
def test_space_and_place_do_not_matter(line):
    exemptions, problems = find("model.py", line + "\n")
    assert [e.check for e in exemptions] == ["causality"] and not problems
    assert exemptions[0].reason == REASON


def test_a_reason_may_hold_colons():
    exemptions, _ = find("model.py", GOOD + ": see arXiv:2105.13626\n")
    assert exemptions[0].reason == REASON + ": see arXiv:2105.13626"


def test_every_check_can_be_exempted_and_says_what_it_holds():
    lines = [GOOD.replace("causality", check) for check in CHECKS]
    exemptions, problems = find("model.py", "\n".join(lines) + "\n")
    assert [e.check for e in exemptions] == list(CHECKS) and not problems
    for name, holds in CHECKS.items():
        assert name == name.lower() and name.replace("-", "").isalpha()
        assert holds.endswith(".") and len(holds) < 100


def test_strings_and_other_comments_do_not_count():
    text = f'x = "{GOOD}"\n"""\n{GOOD}\n"""\n# as grug: no-contract, but not it\n# grugs: no\n'
    assert find("model.py", text) == ([], [])


@pytest.mark.parametrize(
    "text",
    [
        f"{GOOD}\nx = (\n",
        f"{GOOD}\nx = '''\n",
        f"{GOOD}\nif x:\n    y\n  z\n",
        f"{GOOD}\nx = 'unfinished\n",
    ],
)
def test_what_is_no_python_is_left_to_other_tools(text):
    assert find("model.py", text) == ([], [])


@pytest.mark.parametrize(
    "line, message",
    [
        (
            "no-contract casuality until 2027-01-31: " + REASON,
            "'casuality'; did you mean causality",
        ),
        (
            "no-contract xyz until 2027-01-31: " + REASON,
            "did you mean abstract-meshes, branch, causality,",
        ),
        ("no-contract causality: " + REASON, "causality has no date"),
        ("no-contract causality until: " + REASON, "causality has no date"),
        ("no-contract causality until 2027-02-30: " + REASON, "'2027-02-30' is no date"),
        ("no-contract causality until 20270131: " + REASON, "'20270131' is no date"),
        ("no-contract causality until soon: " + REASON, "'soon' is no date"),
        ("no-contract causality until 2027-01-31:", "gives '' as its reason"),
        ("no-contract causality until 2027-01-31: because", "gives 'because' as its reason"),
        ("no-contract causality until 2027-01-31", "is not understood; write # grug: no-contract"),
        ("no-contract", "is not understood"),
        ("contract causality", "is not understood"),
        ("", "'' is not understood"),
    ],
)
def test_what_is_malformed_is_named(line, message):
    assert [message in output for output in messages(f"# grug: {line}\n")] == [True]


def test_an_exemption_stands_on_its_own_line():
    assert "on a line of its own" in messages(f"x = 1  {GOOD}\n")[0]


def test_a_problem_has_its_place():
    _, (problem,) = find("a/train.py", "x = 1\n# grug: what?\n")
    assert (problem.path, problem.line) == ("a/train.py", 2)


def until(date: datetime.date) -> list[Exemption]:
    return find("a/model.py", "\n" + GOOD.replace("2027-01-31", str(date)) + "\n")[0]


def test_an_exemption_ends_after_its_day():
    today = datetime.date(2027, 1, 31)
    assert overdue(until(today), today) == []
    (problem,) = overdue(until(today), today + datetime.timedelta(days=1))
    assert (problem.path, problem.line) == ("a/model.py", 2)
    assert "the exemption from causality ended on 2027-01-31" in problem.message


def test_an_exemption_lasts_a_year_at_most():
    today = datetime.date(2027, 1, 31)
    assert overdue(until(datetime.date(2028, 1, 31)), today) == []
    (problem,) = overdue(until(datetime.date(2028, 2, 29)), today)
    assert "lasts until 2028-02-29" in problem.message
