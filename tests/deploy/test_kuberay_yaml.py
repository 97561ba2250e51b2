"""``deploy/kuberay.yaml``: what KubeRay's schema can't say: it is about us, or about several fields at once."""

from __future__ import annotations

from typing import Any

import pytest

from tests.deploy.recipes import GIB, PROCESS, constraints, kuberay

UNITS = {"Ki": 2**10, "Mi": 2**20, "Gi": GIB}
DOCUMENTS = kuberay()


def size(text: str) -> int:
    """Bytes of a quantity of Kubernetes."""
    return int(text[:-2]) * UNITS[text[-2:]]


@pytest.fixture(params=["RayCluster", "RayJob"])
def cluster(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The specification of a cluster."""
    spec = DOCUMENTS[request.param]["spec"]
    found: dict[str, Any] = spec if request.param == "RayCluster" else spec["rayClusterSpec"]
    return found


def groups(cluster: dict[str, Any]) -> list[dict[str, Any]]:
    """Head and workers."""
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


def pod(group: dict[str, Any]) -> dict[str, Any]:
    """Its pods."""
    found: dict[str, Any] = group["template"]["spec"]
    return found


def test_documents_and_their_versions() -> None:
    assert {kind: document["apiVersion"] for kind, document in DOCUMENTS.items()} == {
        "PersistentVolumeClaim": "v1",
        "ConfigMap": "v1",
        "RayCluster": "ray.io/v1",
        "RayJob": "ray.io/v1",
    }
    assert all(document["metadata"]["name"].startswith("ray-qjm") for document in DOCUMENTS.values())


def test_both_clusters_are_alike() -> None:
    assert DOCUMENTS["RayCluster"]["spec"] == DOCUMENTS["RayJob"]["spec"]["rayClusterSpec"]


def test_authentication_is_on(cluster: dict[str, Any]) -> None:
    assert cluster["authOptions"] == {"mode": "token"}
    names = [
        entry["name"] for group in groups(cluster) for entry in pod(group)["containers"][0].get("env", [])
    ]
    assert "RAY_AUTH_MODE" not in names and "RAY_AUTH_TOKEN" not in names  # the operator's own


def test_ray_is_that_of_the_constraints(cluster: dict[str, Any]) -> None:
    assert f"ray=={cluster['rayVersion']}" in constraints("3.12")


def test_no_ray_tasks_on_the_head(cluster: dict[str, Any]) -> None:
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    # Text, as the API has it: a number is refused.
    assert all(isinstance(v, str) for group in groups(cluster) for v in group["rayStartParams"].values())


def test_limits_are_requests_and_hold_what_ray_gives_away(cluster: dict[str, Any]) -> None:
    for group in groups(cluster):
        (container,) = pod(group)["containers"]
        resources, start = container["resources"], group["rayStartParams"]
        assert resources["limits"] == resources["requests"]
        cpus = int(start["num-cpus"])
        assert cpus in (0, int(resources["limits"]["cpu"]))
        given = int(start.get("memory", 0)) + int(start["object-store-memory"]) + cpus * PROCESS + GIB
        assert given <= size(resources["limits"]["memory"])


def test_workers_come_and_go(cluster: dict[str, Any]) -> None:
    assert cluster["enableInTreeAutoscaling"] is True
    (workers,) = cluster["workerGroupSpecs"]
    assert workers["minReplicas"] == workers["replicas"] == 0 < workers["maxReplicas"]
    assert pod(workers)["restartPolicy"] == "Never"


def test_all_pods_see_stores_and_the_head_keeps_journals_there(cluster: dict[str, Any]) -> None:
    claim = DOCUMENTS["PersistentVolumeClaim"]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    for group in groups(cluster):
        (volume,) = [v for v in pod(group)["volumes"] if "persistentVolumeClaim" in v]
        assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
        mounts = {mount["name"]: mount["mountPath"] for mount in pod(group)["containers"][0]["volumeMounts"]}
        assert mounts[volume["name"]] == "/shared"
    environment = {entry["name"]: entry for entry in pod(cluster["headGroupSpec"])["containers"][0]["env"]}
    assert environment["XDG_STATE_HOME"]["value"].startswith("/shared/")
    assert "value" not in environment["QISKIT_IBM_TOKEN"]  # it comes from a Secret


def test_the_job_runs_the_script_that_is_mounted() -> None:
    job, script = DOCUMENTS["RayJob"]["spec"], DOCUMENTS["ConfigMap"]
    (name,) = script["data"]
    head = pod(job["rayClusterSpec"]["headGroupSpec"])
    (volume,) = [
        v["name"] for v in head["volumes"] if v.get("configMap", {}).get("name") == script["metadata"]["name"]
    ]
    (place,) = [m["mountPath"] for m in head["containers"][0]["volumeMounts"] if m["name"] == volume]
    assert job["entrypoint"] == f"python {place}/{name}"
    assert job["backoffLimit"] > 0 and job["shutdownAfterJobFinishes"] is True
