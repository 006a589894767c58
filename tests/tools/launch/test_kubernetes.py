"""`--on k8s` by the real kubectl, to an API that keeps what it is given and runs nothing."""

import io
import json
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tools.launch.conftest import how_to
from tests.tools.launch.kubernetes_api import Cluster, api
from tools.launch import engines
from tools.launch.jobs import read
from tools.launch.main import main

SCHEMA = Path(__file__).parents[1] / "bundle/jobset_schema.json"
URL = "gs://bucket/runs/{name}"
SEND = ["base", "--on", "k8s", "--run-dir", URL, "--data", "gs://bucket/text"]


def old() -> bool:
    """Whether kubectl is missing, or asks for schemas in a form that the API here has not."""
    if not shutil.which("kubectl"):
        return True
    asked = ("kubectl", "version", "--client", "--output=json")
    done = subprocess.run(asked, capture_output=True, text=True)
    minor = json.loads(done.stdout)["clientVersion"]["minor"] if not done.returncode else "0"
    return int(minor.rstrip("+")) < 27


pytestmark = [
    pytest.mark.usefixtures("planned"),
    pytest.mark.skipif(old(), reason="no kubectl 1.27 or later here"),
]


@pytest.fixture
def cluster(workspace, monkeypatch) -> Iterator[Cluster]:
    schema = json.loads(SCHEMA.read_text())
    with api(schema) as (found, url):
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": {"server": url}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "me"}}],
            "users": [{"name": "me", "user": {"token": "x"}}],
            "current-context": "test",
        }
        (workspace / "kubeconfig").write_text(json.dumps(config))
        monkeypatch.setenv("KUBECONFIG", str(workspace / "kubeconfig"))
        monkeypatch.setenv("HOME", str(workspace))
        monkeypatch.setattr(engines, "PAUSE", 0.1)
        yield found


def names(cluster: Cluster, kind: str, namespace: str = "default") -> list[str]:
    return [key[2] for key in cluster.objects if key[:2] == (namespace, kind)]


def test_two_sendings_are_two_jobs_with_a_bundle_each(cluster):
    assert main([*SEND, "--no-follow"]) == main([*SEND, "--no-follow", "--note", "\U0001f600"]) == 0
    one, two = names(cluster, "JobSet")
    assert one != two and names(cluster, "ConfigMap") == [one, two]
    for name in (one, two):
        files = cluster.objects["default", "ConfigMap", name]["files"]
        with tarfile.open(fileobj=io.BytesIO(files["bundle.tar.gz"])) as packed:
            assert f"{name}/run.py" in packed.getnames()
        job = cluster.objects["default", "JobSet", name]["spec"]["replicatedJobs"][0]["template"]
        pod = job["spec"]["template"]["spec"]
        assert pod["volumes"][0]["configMap"]["name"] == name
        variables = {each["name"]: each.get("value") for each in pod["containers"][0]["env"]}
        assert variables["RUN_DIR"] == f"gs://bucket/runs/{name}"
    assert pod["containers"][0]["command"][4:6] == ["--note", "\U0001f600"]


def test_the_how_to_can_be_followed(cluster):
    assert main(["base", *how_to("k8s"), "--no-follow"]) == 0
    (name,) = names(cluster, "JobSet", "team")
    labels = cluster.objects["team", "JobSet", name]["metadata"]["labels"]
    assert labels == {"kueue.x-k8s.io/queue-name": "gpus"}


def test_a_cluster_is_asked_first(cluster, capsys):
    cluster.forbidden.add("JobSet")
    assert main(SEND) == 1
    assert "no rights" in capsys.readouterr().err and not cluster.objects
    assert not [each for each in cluster.asked if each.startswith("POST") and "(dry)" not in each]
    cluster.forbidden.clear()
    assert main([*SEND, "--engine-arg", "pod.restartPolicies=Never"]) == 1
    assert "restartPolicies" in capsys.readouterr().err and not cluster.objects
    cluster.has_jobsets = False
    shutil.rmtree(Path(".kube"), ignore_errors=True)
    assert main(SEND) == 1
    assert 'no matches for kind "JobSet"' in capsys.readouterr().err


def test_what_was_made_for_a_job_that_cannot_be_made_is_removed(cluster, capsys, monkeypatch):
    monkeypatch.setenv("TOKEN", "s3cret")
    cluster.broken.add("JobSet")
    assert main([*SEND, "--secret", "TOKEN"]) == 1
    assert "the webhook does not answer" in capsys.readouterr().err
    assert not cluster.objects
    assert [each for each in cluster.asked if each.startswith(("POST", "DELETE"))] == [
        "POST default JobSet (dry)",
        "POST default ConfigMap",
        "POST default Secret",
        "POST default JobSet",
        "DELETE default Secret",
        "DELETE default ConfigMap",
    ]
    cluster.broken.clear()
    assert main([*SEND, "--secret", "TOKEN", "--no-follow"]) == 0


def test_a_secret_is_the_clusters_and_no_files(cluster, capfd, monkeypatch):
    value = 'it\'s a "s3cret"\nin two lines \U0001f600'
    monkeypatch.setenv("TOKEN", value)
    flags = ["--secret", "TOKEN", "--engine-arg", "namespace=team", "--name", "mine"]
    assert main([*SEND, *flags, "--no-follow"]) == 0
    assert names(cluster, "JobSet", "team") == names(cluster, "ConfigMap", "team") == ["mine"]
    secret = cluster.objects["team", "Secret", "mine"]
    assert secret["stringData"] == {"TOKEN": value}
    files = [path for path in Path("runs").rglob("*") if path.is_file()]
    assert len(files) > 5 and not any(b"s3cret" in path.read_bytes() for path in files)
    assert "s3cret" not in "".join(capfd.readouterr())
    # Its record stops it, with all that was made for it.
    record = read(Path("runs/jobs/mine.json"))
    subprocess.run(record.ways["stop"].split(), check=True)
    assert not cluster.objects


@pytest.mark.parametrize("ended, code", [("Completed", 0), ("Failed", 1)])
def test_a_job_is_followed_to_its_end_and_listed(cluster, capfd, ended, code):
    cluster.logs["mine-worker-0-0-x1"] = "step 1/3  loss 7.4\n"

    class Ends(list):
        """The conditions, until the log was read once."""

        def __iter__(self) -> Iterator:
            read_once = any("/log?" in each for each in cluster.asked)
            return iter([{"type": ended, "status": "True"}] if read_once else [])

    cluster.conditions = Ends()
    assert main([*SEND, "--name", "mine"]) == code
    told = capfd.readouterr().out
    assert "step 1/3  loss 7.4" in told and "mine-worker-0-0-x1" in told
    cluster.conditions = [{"type": ended, "status": "True"}]
    assert main(["--jobs"]) == 0
    row = capfd.readouterr().out.splitlines()[1].split()
    assert row[:3] == ["mine", "k8s", ended]
