"""Say in which pod a task runs, where Airflow runs on Kubernetes; other executors read none of it.

Most tasks run in the pod of docker/kubernetes/task.yaml, which is a setting of the chart; those of GPU_STAGES in that
of training.yaml, a file of the image of the Airflow services.
"""

GPU_STAGES = ("pretrain", "train")
"""Those that compute on a GPU for long. What is exported and measured runs where nights will be scored."""
TRAINING_POD = "/opt/lamplighter/docker/kubernetes/training.yaml"
"""Where the scheduler finds the template: not below this folder, so that a DAG is the same wherever it is parsed."""


def pod_of(stage: str) -> dict[str, dict[str, str]]:
    """Return the options of a task's operator that choose its pod."""
    return {"executor_config": {"pod_template_file": TRAINING_POD}} if stage in GPU_STAGES else {}
