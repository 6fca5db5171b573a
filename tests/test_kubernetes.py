"""Oracle: Kubernetes' own schemas (kubernetes-validate), the pods that Airflow's executor builds, the Dockerfile."""

import json
import re

import kubernetes_validate
import pytest
import yaml
from airflow.providers.cncf.kubernetes.pod_generator import PodGenerator
from builders import a_product
from conftest import ROOT
from kubernetes.client import ApiClient

from dags.pods import GPU_STAGES, TRAINING_POD
from dags.products import declare

FOLDER = ROOT / "docker" / "kubernetes"
VALUES = yaml.safe_load((FOLDER / "values.yaml").read_text())
COMMAND = ["python", "-m", "airflow.sdk.execution_time.execute_workload", "--json-string", "{}"]
GPU = "nvidia.com/gpu"


def template(name):
    return yaml.safe_load((FOLDER / f"{name}.yaml").read_text())


def pod_of_a_task(name):
    """The pod that the executor makes of a template, as Kubernetes is sent it."""
    pod = PodGenerator.construct_pod(
        dag_id="train__tiny",
        task_id="train",
        pod_id="train-tiny-train",
        try_number=1,
        kube_image=VALUES["config"]["kubernetes_executor"]["worker_container_repository"] or None,
        date=None,
        args=COMMAND,
        pod_override_object=None,
        base_worker_pod=PodGenerator.deserialize_model_file(str(FOLDER / f"{name}.yaml")),
        namespace="lamplighter",
        scheduler_job_id="1",
        run_id="manual",
    )
    return ApiClient().sanitize_for_serialization(pod)


@pytest.mark.parametrize(("name", "image", "gpus"), [("task", "worker", None), ("training", "worker-cuda", "1")])
def test_pod_fits_the_schema_and_runs_the_task_in_the_image_of_its_kind(name, image, gpus):
    for pod in (template(name), pod_of_a_task(name)):
        kubernetes_validate.validate(pod, kubernetes_validate.latest_version(), strict=True)
    (container,) = pod_of_a_task(name)["spec"]["containers"]
    assert container["image"] == f"lamplighter-{image}:latest"
    assert (container["command"], container["args"]) == (["env"], COMMAND)
    assert container["resources"]["limits"].get(GPU) == gpus
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_schema_refuses_a_key_that_is_misspelt():
    wrong = template("task")
    wrong["spec"]["restartPolice"] = wrong["spec"].pop("restartPolicy")
    with pytest.raises(kubernetes_validate.ValidationError, match="restartPolice"):
        kubernetes_validate.validate(wrong, kubernetes_validate.latest_version(), strict=True)


def test_training_differs_from_other_tasks_in_image_resources_and_nodes_alone():
    task, training = template("task"), template("training")
    del training["spec"]["tolerations"]
    for pod in (task, training):
        (container,) = pod["spec"]["containers"]
        del container["image"], container["resources"]
    assert task == training


def test_tasks_that_train_ask_for_the_template_that_the_image_holds():
    chosen = {
        (dag.dag_id, task.task_id): task.executor_config["pod_template_file"]
        for dag in (declare(a_product(), kind, None) for kind in ("train", "predict"))
        for task in dag.tasks
        if task.executor_config
    }
    assert chosen == {("train__tiny", stage): TRAINING_POD for stage in GPU_STAGES}
    image = (ROOT / "docker" / "airflow.Dockerfile").read_text()
    (source, target) = re.search(r"^COPY (docker/kubernetes/\S+) (/\S+)$", image, re.MULTILINE).groups()
    assert target + source.rpartition("/")[2] == TRAINING_POD
    assert f"!{source}" in (ROOT / "docker" / "airflow.Dockerfile.dockerignore").read_text().splitlines()


def test_services_and_tasks_keep_logs_in_the_same_place():
    (container,) = template("task")["spec"]["containers"]
    of_task = {each["name"]: each["value"] for each in container["env"]}
    for name, value in VALUES["config"]["logging"].items():
        assert of_task.get(f"AIRFLOW__LOGGING__{name.upper()}", "True") == value
    (connection,) = [each for each in VALUES["env"] if each["name"] == "AIRFLOW_CONN_LAMPLIGHTER_LOGS"]
    assert of_task[connection["name"]] == connection["value"]
    assert json.loads(connection["value"])["conn_type"] == "aws"
