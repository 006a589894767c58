"""As much of a Kubernetes API as kubectl needs to create, watch, read and delete a job's objects.

There is no cluster: no pod runs. What is created is held to the published schemas of JobSet and of
what it consists of, and is kept as a cluster would keep it.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jsonschema

GROUP, VERSION = "jobset.x-k8s.io", "v1alpha2"
CORE = {"configmaps": "ConfigMap", "secrets": "Secret", "pods": "Pod"}
JOBSETS = {"jobsets": "JobSet"}
VERBS = ["create", "delete", "get", "list"]


class Cluster:
    """What a cluster holds: objects by (namespace, kind, name), and what it was asked."""

    def __init__(self, schema: dict[str, Any]):
        self.schema, self.objects, self.asked = schema, {}, []
        self.conditions: list[dict[str, str]] = []  # of every JobSet
        self.logs: dict[str, str] = {}  # by pod
        self.forbidden: set[str] = set()  # kinds that may not be created
        self.broken: set[str] = set()  # kinds for which a dry run says too much
        self.has_jobsets = True

    def create(self, namespace: str, kind: str, body: dict[str, Any], dry: bool) -> tuple[int, Any]:
        """The status and the answer."""
        key = (namespace, kind, body["metadata"]["name"])
        if kind in self.forbidden:
            return _failure(403, "Forbidden", f'{kind} "{key[2]}" is forbidden: no rights')
        if kind in self.broken and not dry:
            return _failure(500, "InternalError", f"{kind}: the webhook does not answer")
        if key in self.objects:
            return _failure(409, "AlreadyExists", f'{kind} "{key[2]}" already exists')
        if kind == "JobSet":
            try:
                jsonschema.validate(body, self.schema, jsonschema.Draft202012Validator)
            except jsonschema.ValidationError as error:
                return _failure(422, "Invalid", f"{kind} is invalid: {error.message}")
        if not dry:
            self.objects[key] = body
        return 201, body


def _failure(code: int, reason: str, message: str) -> tuple[int, Any]:
    status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code}
    return code, {**status, "reason": reason, "message": message}


def _resources(version: str, kinds: dict[str, str]) -> dict[str, Any]:
    resources = [
        {"name": name, "singularName": "", "namespaced": True, "kind": kind, "verbs": VERBS}
        for name, kind in kinds.items()
    ]
    return {"kind": "APIResourceList", "groupVersion": version, "resources": resources}


def _fixed(path: str) -> dict[str, Any] | None:
    """What kubectl asks to find out what there is."""
    version = {"groupVersion": f"{GROUP}/{VERSION}", "version": VERSION}
    group = {"name": GROUP, "versions": [version], "preferredVersion": version}
    validated = [{"name": "fieldValidation", "in": "query", "schema": {"type": "string"}}]
    answers: dict[str, dict[str, Any]] = {
        "/api": {"kind": "APIVersions", "versions": ["v1"]},
        "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": [group]},
        "/api/v1": _resources("v1", CORE),
        f"/apis/{GROUP}/{VERSION}": _resources(f"{GROUP}/{VERSION}", JOBSETS),
        "/version": {"major": "1", "minor": "32", "gitVersion": "v1.32.0"},
        "/openapi/v3": {
            "paths": {
                place: {"serverRelativeURL": f"/openapi/v3/{place}"}
                for place in ("api/v1", f"apis/{GROUP}/{VERSION}")
            }
        },
    }
    for place, version, kinds in (
        ("api/v1", {"group": "", "version": "v1"}, CORE),
        (f"apis/{GROUP}/{VERSION}", {"group": GROUP, "version": VERSION}, JOBSETS),
    ):
        paths = {
            f"/{place}/namespaces/{{namespace}}/{plural}/{{name}}": {
                "patch": {
                    "parameters": validated,
                    "x-kubernetes-group-version-kind": {**version, "kind": kind},
                }
            }
            for plural, kind in kinds.items()
        }
        answers[f"/openapi/v3/{place}"] = {
            "openapi": "3.0.0",
            "info": {"title": "Kubernetes", "version": "v1.32.0"},
            "paths": paths,
        }
    return answers.get(path)


class _Handler(BaseHTTPRequestHandler):
    cluster: Cluster

    def log_message(self, format: str, *args: Any) -> None:
        """Prints nothing."""

    def answer(self, code: int, body: Any) -> None:
        data = body.encode() if isinstance(body, str) else json.dumps(body, default=str).encode()
        self.send_response(code)
        kind = "text/plain" if isinstance(body, str) else "application/json"
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def place(self) -> tuple[str, str, str, str, dict[str, list[str]]]:
        """(namespace, kind, name, what of it, query) of a path below namespaces/."""
        url = urlsplit(self.path)
        _, _, below = url.path.partition("/namespaces/")
        namespace, plural, name, part = [*below.split("/"), "", "", ""][:4]
        return namespace, (CORE | JOBSETS).get(plural, ""), name, part, parse_qs(url.query)

    def do_GET(self) -> None:
        self.cluster.asked.append(f"GET {self.path}")
        fixed = _fixed(urlsplit(self.path).path)
        if fixed and "groups" in fixed and not self.cluster.has_jobsets:
            fixed["groups"] = []
        if fixed is not None:
            return self.answer(200, fixed)
        namespace, kind, name, part, _ = self.place()
        if kind == "Pod" and part == "log":
            return self.answer(200, self.cluster.logs[name])
        if kind == "Pod" and not name:
            pods = [_pod(namespace, each) for each in self.cluster.logs]
            return self.answer(200, {"kind": "PodList", "apiVersion": "v1", "items": pods})
        if kind == "Pod":
            return self.answer(200, _pod(namespace, name))
        found = self.cluster.objects.get((namespace, kind, name))
        if not found:
            return self.answer(*_failure(404, "NotFound", f'{kind} "{name}" not found'))
        return self.answer(200, {**found, "status": {"conditions": self.cluster.conditions}})

    def do_POST(self) -> None:
        namespace, kind, _, _, query = self.place()
        body = _read(self.rfile.read(int(self.headers["Content-Length"])))
        dry = query.get("dryRun") == ["All"]
        self.cluster.asked.append(f"POST {namespace} {kind}{' (dry)' if dry else ''}")
        self.answer(*self.cluster.create(namespace, kind, body, dry))

    def do_DELETE(self) -> None:
        namespace, kind, name, _, _ = self.place()
        self.cluster.asked.append(f"DELETE {namespace} {kind}")
        found = self.cluster.objects.pop((namespace, kind, name), None)
        if not found:
            return self.answer(*_failure(404, "NotFound", f'{kind} "{name}" not found'))
        return self.answer(200, {"kind": "Status", "apiVersion": "v1", "status": "Success"})


def _read(data: bytes) -> dict[str, Any]:
    """An object as kubectl sends it: JSON, or a ConfigMap in Kubernetes' envelope of protobuf.

    k8s.io/apimachinery/pkg/runtime: `k8s`, 0, then a message with the object's bytes in field 2.
    """
    if not data.startswith(b"k8s\0"):
        return json.loads(data)
    (whole,) = _fields(data[4:])[2]
    parts = _fields(whole)
    (metadata,) = parts[1]
    (name,) = _fields(metadata)[1]
    pairs = [_fields(pair) for pair in parts.get(3, [])]  # of binaryData
    files = {pair[1][0].decode(): pair[2][0] for pair in pairs}
    return {"metadata": {"name": name.decode()}, "files": files}


def _fields(message: bytes) -> dict[int, list[bytes]]:
    """The fields of a protobuf message that have a length, by number."""
    found: dict[int, list[bytes]] = {}
    at = 0

    def number() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(message):
        field, kind = divmod(number(), 8)
        size = number()
        if kind == 2:
            found.setdefault(field, []).append(message[at : at + size])
            at += size
    return found


def _pod(namespace: str, name: str) -> dict[str, Any]:
    spec = {"containers": [{"name": "worker", "image": "python"}]}
    metadata = {"name": name, "namespace": namespace}
    status = {"phase": "Running"}
    return {"kind": "Pod", "apiVersion": "v1", "metadata": metadata, "spec": spec, "status": status}


@contextmanager
def api(schema: dict[str, Any]) -> Generator[tuple[Cluster, str]]:
    """A cluster, and the URL of its API."""
    cluster = Cluster(schema)
    handler = type("Handler", (_Handler,), {"cluster": cluster})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield cluster, f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
