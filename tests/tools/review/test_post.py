"""The comment: made, updated, removed, on the right pull request, whatever GitHub does."""

import json
import time

import pytest

from tests.tools.review.conftest import COMMIT, REPOSITORY, TOKEN, Fault, event, handed_over
from tools.common.errors import ToolError
from tools.review import __main__ as command
from tools.review import post
from tools.review.artifact import Reports
from tools.review.github import ATTEMPTS, Client

OURS = f"{post.MARKER}\nof before"


def run(**changes):
    return post.parse_event(json.dumps(event(**changes)), REPOSITORY)


@pytest.fixture
def ready(github):
    """A fork's pull request whose report has been built."""
    github.pull()
    github.artifacts[31] = handed_over()
    return github


def bodies(github):
    return [one["body"] for one in github.comments]


def writes(github):
    return [method for method, _ in github.asked if method != "GET"]


def test_it_is_created_then_left_then_updated_in_its_place(ready, client):
    assert post.comment(client, run(), "https://github.com") == "pull request 7: created"
    (first,) = ready.comments
    assert first["body"].startswith(post.MARKER)
    assert "### `moe` copied from `base`\n\n**3** added, **1** deleted.\n" in first["body"]
    assert f"(https://github.com/{REPOSITORY}/actions/runs/99/artifacts/31)" in first["body"]
    assert post.comment(client, run(), "https://github.com") == "pull request 7: unchanged"
    ready.artifacts[32] = handed_over(summary="### `moe` copied from `base`\n\n**4** added.\n")
    assert post.comment(client, run(), "https://github.com") == "pull request 7: updated"
    (now,) = ready.comments
    assert now["id"] == first["id"] and "**4** added" in now["body"]
    assert writes(ready) == ["POST", "PATCH"]


def test_it_is_removed_when_nothing_is_left_to_show(ready, client):
    ready.artifacts[32] = handed_over(names=())
    other = ready.say("a word of a person", login="someone")
    ready.say(OURS)
    assert post.comment(client, run(), "s") == "pull request 7: nothing to show, 1 removed"
    assert ready.comments == [other]
    assert post.comment(client, run(), "s") == "pull request 7: nothing to show"


def test_duplicates_go_and_the_oldest_stays(ready, client):
    ready.per_page = 2
    first, *_ = [ready.say(OURS) for _ in range(5)]
    assert post.comment(client, run(), "s") == "pull request 7: updated, 4 removed"
    assert [one["id"] for one in ready.comments] == [first["id"]]


def test_only_comments_of_the_bot_with_the_marker_are_touched(ready, client):
    others = [
        ready.say(OURS, login="someone"),
        ready.say(f"> {OURS}"),
        ready.say("of another workflow"),
        ready.say("ghost"),
    ]
    others[3]["user"] = None
    before = json.dumps(others)
    assert post.comment(client, run(), "s") == "pull request 7: created"
    assert json.dumps(ready.comments[:4]) == before and len(ready.comments) == 5


def test_ours_is_found_on_a_later_page(ready, client):
    ready.per_page = 3
    for at in range(10):
        ready.say(f"word {at}", login="someone")
    ready.say(OURS)
    assert post.comment(client, run(), "s") == "pull request 7: updated"
    assert len(ready.comments) == 11


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"head_sha": "f" * 40}, "stale, pull request 7 is at another commit"),
        ({"head_branch": "another"}, "no open pull request of its branch"),
        ({"head_repository": {"id": 56, "owner": {"login": "someone"}}}, "no open pull request"),
        ({"head_repository": None}, "its repository has been deleted"),
        ({"event": "push"}, "push, success: nothing to do"),
        ({"conclusion": "failure"}, "pull_request, failure: nothing to do"),
        ({"conclusion": None}, "nothing to do"),
    ],
)
def test_a_run_of_no_open_pull_request_changes_nothing(ready, client, changes, said):
    ready.say(OURS)
    assert said in post.comment(client, run(**changes), "s")
    assert bodies(ready) == [OURS] and not writes(ready)


@pytest.mark.parametrize("field, value", [("state", "closed"), ("base", None), ("repo", None)])
def test_a_pull_request_that_is_closed_or_elsewhere_is_not_ours(ready, client, field, value):
    pull = ready.pulls[0]
    if field == "state":
        pull["state"] = value
    elif field == "base":
        pull["base"]["ref"] = "release"
    else:
        pull["head"]["repo"] = value
    assert "no open pull request" in post.comment(client, run(), "s")
    assert not writes(ready)


def test_the_right_one_is_found_among_many(ready, client):
    ready.per_page = 2
    ready.pulls[:0] = [{**ready.pull(n, ref=f"b{n}"), "number": n} for n in range(20, 25)]
    assert post.comment(client, run(), "s") == "pull request 7: created"


@pytest.mark.parametrize(
    "text, said",
    [
        ("{}", "no workflow_run event"),
        ("[]", "no workflow_run event"),
        ("{", "no workflow_run event"),
        (json.dumps(event(head_sha="main")), "no id or no commit"),
        (json.dumps(event(id="99/../1")), "no id or no commit"),
    ],
)
def test_another_event_is_refused(text, said):
    with pytest.raises(ToolError, match=said):
        post.parse_event(text, REPOSITORY)


def test_another_repositorys_event_is_refused():
    with pytest.raises(ToolError, match="not about 'lab/other'"):
        post.parse_event(json.dumps(event()), "lab/other")


def test_a_lost_reply_to_create_makes_no_second_comment(ready, client):
    """The connection ends after GitHub has made the comment; and, worse, with a 502."""
    for status in (0, 502):
        ready.comments.clear()
        ready.faults = [Fault("POST", "comments", status=status, done=True)]
        assert post.comment(client, run(), "s") == "pull request 7: unchanged"
        assert len(ready.comments) == 1 and not ready.faults


def test_a_create_that_was_not_carried_out_is_asked_for_again(ready, client):
    ready.faults = [Fault("POST", "comments"), Fault("POST", "comments", status=503)]
    assert post.comment(client, run(), "s") == "pull request 7: created"
    assert len(ready.comments) == 1 and not ready.faults


def test_failures_that_last_end_with_one_line(ready, client):
    ready.faults = [Fault("POST", "comments", status=502) for _ in range(20)]
    with pytest.raises(ToolError, match="no comment after 5 attempts: run it again"):
        post.comment(client, run(), "s")
    assert writes(ready) == ["POST"] * ATTEMPTS
    ready.faults = [Fault("GET", "pulls", status=500) for _ in range(20)]
    with pytest.raises(ToolError, match="GET /repos/lab/grug/pulls: 500 'as told', 5 times"):
        post.comment(client, run(), "s")
    assert len(ready.faults) == 20 - ATTEMPTS


@pytest.mark.parametrize("status", [0, 500, 502, 503, 504])
def test_passing_failures_are_ridden_out_everywhere(ready, client, status):
    ready.say(OURS)
    ready.say(OURS)
    ready.faults = [
        Fault(method, path, status=status)
        for method, path in [
            ("GET", "pulls"),
            ("GET", "artifacts$"),
            ("GET", "zip"),
            ("GET", "blob"),
            ("GET", "comments"),
            ("DELETE", "comments"),
            ("PATCH", "comments"),
        ]
    ]
    assert post.comment(client, run(), "s") == "pull request 7: updated, 1 removed"
    assert not ready.faults and len(ready.comments) == 1


def test_a_delete_that_was_done_before_its_reply_was_lost(ready, client):
    ready.say(OURS)
    ready.say(OURS)
    ready.faults = [Fault("DELETE", "comments", done=True)]
    assert post.comment(client, run(), "s") == "pull request 7: updated, 1 removed"


def test_a_comment_that_is_deleted_under_our_hands_is_made_anew(ready, client):
    ready.say(OURS)
    ready.faults = [Fault("PATCH", "comments", status=404)]
    kept = ready.answer

    def answer(method, path, query, payload):
        if method == "GET" and path.endswith("comments") and not ready.faults:
            ready.comments.clear()
        return kept(method, path, query, payload)

    ready.answer = answer
    assert post.comment(client, run(), "s") == "pull request 7: created"


@pytest.mark.parametrize(
    "status, headers",
    [
        (429, {"Retry-After": "1"}),
        (403, {"Retry-After": "1"}),
        (403, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "now"}),
    ],
)
def test_a_rate_limit_is_waited_for(ready, client, status, headers):
    if "X-RateLimit-Reset" in headers:
        headers["X-RateLimit-Reset"] = str(int(time.time()) + 2)
    ready.faults = [Fault("POST", "comments", status=status, headers=headers)]
    start = time.monotonic()
    assert post.comment(client, run(), "s") == "pull request 7: created"
    assert 0.9 < time.monotonic() - start < 4
    assert len(ready.comments) == 1 and client.patience < 10


@pytest.mark.parametrize(
    "status, headers, body",
    [
        (429, {"Retry-After": "3600"}, None),
        (403, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "99999999999"}, None),
        (403, {}, {"message": "You have exceeded a secondary rate limit."}),
        (429, {"Retry-After": "9" * 400}, None),
    ],
)
def test_a_long_rate_limit_is_not(ready, client, status, headers, body):
    ready.faults = [Fault("GET", "pulls", status=status, headers=headers, body=body)]
    with pytest.raises(ToolError, match="too long to wait, run it again later") as caught:
        post.comment(client, run(), "s")
    assert "\n" not in str(caught.value) and client.patience == 10


def test_a_limit_without_end_is_given_up(ready, client):
    ready.faults = [
        Fault("GET", "pulls", status=429, headers={"Retry-After": "0"}) for _ in range(99)
    ]
    with pytest.raises(ToolError, match="429 'as told', 5 times"):
        post.comment(client, run(), "s")


@pytest.mark.parametrize(
    "status, said",
    [
        (403, "403 'as told': the token may not do this: the job needs the permissions"),
        (401, "401 'as told': the token is not valid"),
        (404, "404 'as told': it is not there, or the token may not see it"),
        (422, "422 'as told'"),
        (301, "301 'as told'"),
    ],
)
def test_a_refusal_is_one_line_and_not_repeated(ready, client, status, said):
    away = {"Location": f"{ready.store}/blob/31"}
    ready.faults = [Fault("POST", "comments", status=status, headers=away)]
    with pytest.raises(ToolError) as caught:
        post.comment(client, run(), "s")
    assert said in str(caught.value) and "\n" not in str(caught.value)
    assert writes(ready) == ["POST"] and not ready.comments


def test_what_github_says_cannot_begin_a_line(ready, client):
    ready.faults = [
        Fault("GET", "pulls", status=422, body={"message": f"a\n::error::b {'x' * 999}"})
    ]
    with pytest.raises(ToolError) as caught:
        post.comment(client, run(), "s")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


def test_the_token_stays_with_the_api(ready, client):
    post.comment(client, run(), "s")
    seen = dict(ready.tokens)
    assert seen.pop("/blob/31") is None
    assert set(seen.values()) == {f"Bearer {TOKEN}"} and len(seen) == 4
    assert TOKEN not in repr(client)


def test_a_next_page_on_another_host_is_not_asked_for(ready, client):
    link = {"Link": f'<{ready.store}/repos?page=2>; rel="next"'}
    ready.faults = [Fault("GET", "pulls", status=200, body=[{"number": 0}], headers=link)]
    ready.faults[0].body = [{**ready.pulls[0], "state": "closed"}]
    with pytest.raises(ToolError, match="the next page is on another host"):
        post.comment(client, run(), "s")
    assert len(ready.asked) == 1


@pytest.mark.parametrize("place", ["file:///etc/passwd", "https://elsewhere.example/a?sig=secret"])
def test_a_redirect_to_another_scheme_is_refused(ready, client, place):
    ready.faults = [Fault("GET", "zip", status=302, headers={"Location": place})]
    with pytest.raises(ToolError, match="refused a redirect") as caught:
        post.comment(client, run(), "s")
    assert "secret" not in str(caught.value)


def test_redirects_without_end_are_refused(ready, client):
    again = {"Location": f"{ready.store}/blob/31"}
    ready.faults = [Fault("GET", "zip|blob", status=302, headers=again) for _ in range(9)]
    with pytest.raises(ToolError, match="more than 2 redirects"):
        post.comment(client, run(), "s")


def test_a_reply_cut_short_is_asked_for_again(ready, client):
    cut = {"Content-Length": "9999"}
    ready.faults = [Fault("GET", "blob", status=200, body=b"PK", headers=cut)]
    assert post.comment(client, run(), "s") == "pull request 7: created"


def test_a_download_larger_than_it_may_be_is_not_kept(ready, client):
    with pytest.raises(ToolError, match="more than 100 bytes"):
        client.download(f"/repos/{REPOSITORY}/actions/artifacts/31/zip", 100)


def test_a_run_without_artifact(ready, client):
    ready.artifacts.clear()
    with pytest.raises(ToolError, match="run 99 has no artifact variant-reports"):
        post.comment(client, run(), "s")


@pytest.mark.parametrize("api", ["http://api.github.com", "ftp://localhost", "api.github.com"])
def test_the_token_goes_nowhere_in_the_clear(api):
    with pytest.raises(ToolError, match="begins with https://"):
        Client(api, TOKEN)


def test_a_long_summary_is_cut_between_blocks():
    block = "- `" + "é" * 500 + "`"
    body = post.compose(Reports(("a",), f"{block}\n\n" * 400), COMMIT, "https://address")
    assert len(body.encode()) <= post.MAX_BODY < len(body.encode()) + 1100
    assert body.endswith(f"{block}\n\n{post.CUT}\n")
    whole = post.compose(Reports(("a",), f"{block}\n\n" * 4), COMMIT, "https://address")
    assert post.CUT not in whole and whole.count(block) == 4


def test_one_block_longer_than_a_comment_is_left_out():
    body = post.compose(Reports(("a",), "`" + "x" * 70_000 + "`"), COMMIT, "https://address")
    assert body.endswith(f"{post.CUT}\n") and len(body) < 1000


def test_the_command(ready, monkeypatch, tmp_path, capsys):
    (tmp_path / "event.json").write_text(json.dumps(event()))
    for name, value in {
        "GITHUB_API_URL": ready.url,
        "GITHUB_TOKEN": TOKEN,
        "GITHUB_REPOSITORY": REPOSITORY,
        "GITHUB_EVENT_PATH": str(tmp_path / "event.json"),
    }.items():
        monkeypatch.setenv(name, value)
    assert command.main(["comment"]) == 0
    assert capsys.readouterr().out == "pull request 7: created\n"
    monkeypatch.delenv("GITHUB_TOKEN")
    with pytest.raises(ToolError, match=r"\$GITHUB_TOKEN is not set"):
        command.main(["comment"])
    monkeypatch.delenv("GITHUB_EVENT_PATH")
    with pytest.raises(ToolError, match="name the event with --event FILE"):
        command.main(["comment"])
