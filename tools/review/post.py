"""One comment a pull request: made, brought up to date in its place, removed when it says nothing.

Which pull request it is, the workflow_run event and the API say; the artifact is not asked.
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from tools.common.errors import ToolError
from tools.common.files import MIB
from tools.common.jsonio import parse_json
from tools.review import artifact
from tools.review.artifact import ARTIFACT, Reports
from tools.review.clean import clean
from tools.review.github import ATTEMPTS, Client, LostReply, NotFound

# Whose comments are ours: the author that GitHub gives to what a workflow's own token writes.
BOT = "github-actions[bot]"
MARKER = "<!-- grug:review -->"
MAX_EVENT = 4 * MIB
# GitHub's bound is 65,536 characters; no text has more of them than bytes.
MAX_BODY = 65_536
CUT = "**There is more in the full report.**"

_REPOSITORY = re.compile(r"[A-Za-z0-9_.-]{1,100}/[A-Za-z0-9_.-]{1,100}")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Run:
    """The run of the unprivileged workflow that has ended, as GitHub's event tells it."""

    id: int
    event: str
    conclusion: str
    repository: str
    base: str
    commit: str
    branch: str
    fork: int | None
    """The id of the repository the branch is in; None if that has been deleted."""
    owner: str


def parse_event(text: str, repository: str) -> Run:
    """The run that a workflow_run event is about.

    Args:
        text: the event, JSON.
        repository: OWNER/NAME that this workflow runs in.

    Raises:
        ToolError: it is another event, or another repository's.
    """
    try:
        event = parse_json(text, "the event")
        run, home = event["workflow_run"], event["repository"]
        origin: Any = run["head_repository"] or {"id": None, "owner": {"login": ""}}
        found = Run(
            id=run["id"],
            event=run["event"],
            conclusion=run["conclusion"] or "",
            repository=home["full_name"],
            base=home["default_branch"],
            commit=run["head_sha"],
            branch=run["head_branch"] or "",
            fork=origin["id"],
            owner=origin["owner"]["login"],
        )
    except (ToolError, KeyError, TypeError) as error:
        raise ToolError(f"the event is no workflow_run event ({str(error)[:100]})") from error
    if found.repository != repository or not _REPOSITORY.fullmatch(repository):
        raise ToolError(f"the event is about {found.repository!r}, not about {repository!r}")
    if type(found.id) is not int or not _COMMIT.fullmatch(found.commit):
        raise ToolError("the event's run has no id or no commit")
    return found


def comment(client: Client, run: Run, server: str, bot: str = BOT) -> str:
    """Makes the pull request's comment say what the run found, and returns what was done.

    Raises:
        ToolError: the artifact is not what it should be, or GitHub refuses.
    """
    if run.event != "pull_request" or run.conclusion != "success":
        return f"run {run.id}: {run.event}, {run.conclusion}: nothing to do"
    number, why = find_pull(client, run)
    if number is None:
        return f"run {run.id}: {why}: nothing to do"
    found, reports = fetch(client, run)
    address = f"{server}/{run.repository}/actions/runs/{run.id}/artifacts/{found}"
    body = compose(reports, run.commit, address) if reports.names else None
    return f"pull request {number}: {sync(client, run.repository, number, body, bot)}"


def find_pull(client: Client, run: Run) -> tuple[int | None, str]:
    """The number of the open pull request that the run built, or None and why there is none.

    An event lists no pull requests of forks, so they are looked for by branch, and taken by
    repository and commit. A branch has at most one open pull request against another.
    """
    if run.fork is None or not run.branch:
        return None, "its repository has been deleted"
    asked = {"state": "open", "head": f"{run.owner}:{run.branch}", "base": run.base}
    for pull in client.pages(f"/repos/{run.repository}/pulls?{urlencode(asked)}&per_page=100"):
        head, base = pull["head"], pull["base"]
        if (head["repo"] or {}).get("id") != run.fork or head["ref"] != run.branch:
            continue
        if pull["state"] != "open" or base["ref"] != run.base:
            continue
        if base["repo"]["full_name"] != run.repository:
            continue
        if head["sha"] != run.commit:
            return None, f"stale, pull request {pull['number']} is at another commit"
        return pull["number"], ""
    return None, "no open pull request of its branch"


def fetch(client: Client, run: Run) -> tuple[int, Reports]:
    """The id of the run's newest artifact, and what is in it."""
    place = f"/repos/{run.repository}/actions"
    listed = client.get(f"{place}/runs/{run.id}/artifacts?name={quote(ARTIFACT)}&per_page=100")
    found = [one for one in listed["artifacts"] if one["name"] == ARTIFACT and not one["expired"]]
    if not found:
        raise ToolError(f"run {run.id} has no artifact {ARTIFACT}: run its workflow again")
    newest = max(found, key=lambda one: one["id"])
    if newest["size_in_bytes"] > artifact.MAX_ZIP:
        raise ToolError(f"the artifact has more than {artifact.MAX_ZIP:,} bytes")
    data = client.download(f"{place}/artifacts/{newest['id']}/zip", artifact.MAX_ZIP)
    return newest["id"], artifact.read(data)


def compose(reports: Reports, commit: str, address: str) -> str:
    """The comment's Markdown, at most MAX_BODY bytes; whole blocks are left out at its end.

    Args:
        reports: what was handed over, hostile.
        commit: of the pull request's branch, 40 digits.
        address: of the full report.
    """
    many = len(reports.names) != 1
    head = (
        f"{MARKER}\n**{len(reports.names)} variant{'s' if many else ''} added or edited** at "
        f"`{commit[:12]}`: [the full report]({address}), a zip file of pages. The pull request's "
        "own code wrote them, as it wrote what follows.\n"
    )
    blocks = clean(reports.summary).rstrip("\n").split("\n\n")
    room = MAX_BODY - len(f"{head}\n\n{CUT}\n".encode())
    kept = []
    for block in blocks:
        room -= len(f"\n{block}\n".encode())
        if room < 0:
            kept.append(CUT)
            break
        kept.append(block)
    return "\n".join([head, *(f"{block}\n" for block in kept)])


def sync(client: Client, repository: str, number: int, body: str | None, bot: str) -> str:
    """Leaves one comment of ours that says `body`; none if it is None. Returns what was done."""
    place = f"/repos/{repository}/issues"
    for attempt in range(ATTEMPTS):
        ours = _ours(client, f"{place}/{number}/comments?per_page=100", bot)
        keep = ours[0] if ours and body is not None else None
        for extra in ours[1 if keep else 0 :]:
            _gone(client, f"{place}/comments/{extra['id']}")
        removed = len(ours) - bool(keep)
        also = f", {removed} removed" if removed else ""
        if body is None:
            return f"nothing to show{also}"
        try:
            if keep is None:
                client.post(f"{place}/{number}/comments", {"body": body})
                return f"created{also}"
            if keep["body"] == body:
                return f"unchanged{also}"
            client.patch(f"{place}/comments/{keep['id']}", {"body": body})
            return f"updated{also}"
        except NotFound:
            if keep is None:
                raise
            # Somebody deleted it meanwhile: look again.
        except LostReply as lost:
            client.wait(client.backoff * 2**attempt, str(lost))
    raise ToolError(f"pull request {number}: no comment after {ATTEMPTS} attempts: run it again")


def _ours(client: Client, path: str, bot: str) -> list[dict[str, Any]]:
    """Comments that `bot` wrote and that begin with our marker, the oldest first."""
    found = [
        one
        for one in client.pages(path)
        if (one["user"] or {}).get("login") == bot and (one["body"] or "").startswith(MARKER)
    ]
    return sorted(found, key=lambda one: one["id"])


def _gone(client: Client, path: str) -> None:
    with contextlib.suppress(NotFound):
        client.delete(path)
