"""JobSet manifests: the Job inside against Kubernetes' schema, the JobSet's own required fields."""

from __future__ import annotations

from typing import Any

import kubernetes_validate
import pytest
import yaml

from launch import gke

FLAGS = ["--config=configs/llava_mistral_7b.py", "--config.prompt.system=be: kind $HOME"]
TPU = ["tpu", "--topology=4x4", "--accelerator=tpu-v5-lite-podslice", "--hosts=4", "--chips=4"]
GPU = ["gpu", "--accelerator=nvidia-h100-80gb", "--hosts=2", "--chips=8"]


@pytest.fixture(autouse=True)
def names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GKE_IMAGE", "example/tga:1")
    monkeypatch.setenv("GKE_CLAIM", "share")


def made(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    """The manifest of a dry run."""
    assert gke.main(["gke", *words, "--name=tga-7b", "--dry-run", "--", *FLAGS]) == 0
    out = capsys.readouterr().out
    assert out.startswith("# kubectl apply -f -\n") and "$name" not in out
    return yaml.safe_load(out)


@pytest.mark.parametrize("words", [TPU, [*TPU, "--slices=2"], GPU], ids=["tpu", "slices", "gpu"])
def test_a_jobset_of_valid_jobs(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    jobset = made(capsys, *words)
    assert (jobset["apiVersion"], jobset["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    (jobs,) = jobset["spec"]["replicatedJobs"]
    assert set(jobs) == {"name", "replicas", "template"}
    assert jobs["replicas"] == (2 if "--slices=2" in words else 1)
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "x"}, **jobs["template"]}
    kubernetes_validate.validate(job, "1.34", strict=True)
    spec = job["spec"]
    assert spec["parallelism"] == spec["completions"] and spec["completionMode"] == "Indexed"
    (container,) = spec["template"]["spec"]["containers"]
    hosts = spec["completions"] * jobs["replicas"]
    assert container["args"] == [*FLAGS, f"--config.distributed.hosts={hosts}"]
    assert spec["podFailurePolicy"]["rules"][0]["onExitCodes"]["values"] == [2]
    assert jobset["spec"]["failurePolicy"]["maxRestarts"] > 0


def test_the_schema_finds_a_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    jobs = made(capsys, *GPU)["spec"]["replicatedJobs"][0]
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "x"}, **jobs["template"]}
    job["spec"]["template"]["spec"]["containers"][0]["imag"] = "x"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(job, "1.34", strict=True)


def test_gpu_pods_know_the_coordinator(capsys: pytest.CaptureFixture[str]) -> None:
    jobset = made(capsys, *GPU)
    (jobs,) = jobset["spec"]["replicatedJobs"]
    (container,) = jobs["template"]["spec"]["template"]["spec"]["containers"]
    env = {e["name"]: e.get("value") for e in container["env"]}
    # <jobset>-<job>-<job index>-<pod index>.<subdomain>, the subdomain being the jobset's name
    assert env["JAX_COORDINATOR_ADDRESS"] == f"tga-7b-{jobs['name']}-0-0.tga-7b:1234"
    assert env["JAX_NUM_PROCESSES"] == "2" and "JAX_PROCESS_ID" in env
    assert jobset["spec"]["network"]["enableDNSHostnames"] is True


def test_names_come_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("GKE_IMAGE")
    with pytest.raises(SystemExit):
        gke.main(["gke", *GPU, "--name=x", "--", *FLAGS])
    assert "GKE_IMAGE" in capsys.readouterr().err
