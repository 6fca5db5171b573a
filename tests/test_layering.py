"""Oracle: the files themselves, read as syntax trees; and sys.modules after a parse in a fresh interpreter."""

import ast
import functools
import re
import subprocess
import sys

import pytest
import yaml
from conftest import ROOT, environment

from tasks.params import yaml_file
from tasks.runs.dvc import read_yaml
from tasks.runtime.errors import UserError

LAYERS = {"dags": {"dags", "tasks"}, "tasks": {"tasks", "model"}, "model": {"model"}}
FOREIGN_TO_MODEL = {"pandas", "yaml", "airflow", "dvc", "great_expectations", "boto3", "gto", "ruamel"}
FILES = sorted(file for folder in LAYERS for file in (ROOT / folder).rglob("*.py"))
ALL_FILES = [*FILES, *sorted((ROOT / "tests").glob("*.py")), *sorted((ROOT / "benchmarks").rglob("*.py"))]


@functools.lru_cache(maxsize=2)
def nodes(source):
    """Every node of a text's syntax tree."""
    return list(ast.walk(ast.parse(source)))


def imported(source):
    """The modules that a text imports anywhere in it, with from-imports as module.name."""
    found = set()
    for node in nodes(source):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def packages(source):
    return {name.partition(".")[0] for name in imported(source)}


def imported_on_import(source):
    """The packages that are imported when the module is: not those inside functions, or for the type checker."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        for_types = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        if for_types or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [ast.Pass()]
    return packages(ast.unparse(tree))


def calls(source):
    """The dotted names that a text calls, with the call itself."""
    return [(dotted(node.func), node) for node in nodes(source) if isinstance(node, ast.Call)]


def dotted(node):
    """A name with its attributes as it is written; `ast.unparse`, which takes long, of anything else."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ast.unparse(node)


def relative(file):
    return file.relative_to(ROOT).as_posix()


def test_there_are_files_in_every_layer():
    assert {file.relative_to(ROOT).parts[0] for file in FILES} == set(LAYERS)


def test_imports_run_one_way():
    for file in FILES:
        layer = file.relative_to(ROOT).parts[0]
        ours = packages(file.read_text()) & set(LAYERS)
        assert ours <= LAYERS[layer], f"{relative(file)} must import nothing of {ours - LAYERS[layer]}"


def test_model_knows_no_files_of_products_and_no_scheduler():
    for file in (ROOT / "model").rglob("*.py"):
        assert not packages(file.read_text()) & FOREIGN_TO_MODEL, relative(file)


def test_working_directory_is_never_changed():
    """A program of the fork server is in its folder before it begins, as one that Python starts is."""
    for file in (file for file in FILES if file.name != "fork_server.py"):
        source = file.read_text()
        changed = [name for name, _ in calls(source) if name.split(".")[-1] == "chdir"] if "chdir" in source else []
        assert not changed, relative(file)


def test_only_params_reads_the_declaration():
    for file in FILES:
        source = file.read_text()
        named = calls(source) if "yaml" in source else ()
        parses = any(name.startswith("yaml.") and "load" in name for name, _ in named)
        readers = ("tasks/params/yaml_file.py", "tasks/runs/dvc.py", "tasks/runs/workspace.py")
        assert not parses or relative(file) in readers, "params.yaml has one reader"


def test_airflow_is_imported_by_the_dags_only_and_from_its_sdk():
    for file in FILES:
        source = file.read_text()
        found = {name for name in imported(source) if name.startswith("airflow")} if "airflow" in source else set()
        assert not found or relative(file).startswith("dags/"), relative(file)
        # Operators that ask a human or start a DAG, timetables, and what plugins of the scheduler need, are in no SDK.
        in_no_sdk = (
            "airflow.providers.standard.operators.hitl",
            "airflow.providers.standard.operators.trigger_dagrun",
            "airflow.listeners",
            "airflow.plugins_manager",
            "airflow.timetables",
        )
        # A page that the API server serves asks its login, its permissions and its database.
        of_a_page = ("airflow.api_fastapi", "airflow.models", "airflow.utils.state")
        # The note of a run is written in the scheduler, where no SDK asks the database.
        of_a_note = ("airflow.models.xcom",)
        place = relative(file)
        allowed = in_no_sdk + of_a_note * (place == "dags/plugins/run_notes.py")
        allowed += of_a_page * place.startswith("dags/plugins/page/")
        assert all(name.startswith(("airflow.sdk", *allowed)) for name in found), found


def test_heavy_libraries_are_imported_inside_the_stage_that_needs_them():
    heavy = {
        "torch",
        "great_expectations",
        "onnxruntime",
        "dvc",
        "sklearn",
        "matplotlib",
        "boto3",
        "sqlalchemy",
        "fsspec",
        "transformers",
    }
    for file in (ROOT / "tasks").rglob("*.py"):
        assert not imported_on_import(file.read_text()) & heavy, relative(file)


ABOUT_AMAZON = {"package-name": "apache-airflow-providers-amazon", "name": "Amazon", "description": "nothing more"}
WITHOUT_AMAZON = (
    "import types; sys.modules['airflow.providers.amazon.get_provider_info'] = "
    f"types.SimpleNamespace(get_provider_info=lambda: {ABOUT_AMAZON})"
)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize(
    ("work", "heavy"),
    [
        pytest.param(
            # Airflow imports what every provider says of assets: Amazon's is there only where it keeps logs of tasks.
            f"{WITHOUT_AMAZON}; import runpy; runpy.run_path('dags/products.py')",
            ("torch", "pandas", "great_expectations", "onnxruntime", "dvc", "sklearn", "boto3", "transformers"),
            id="parsing the DAGs",
        ),
        pytest.param(
            "import model.scoring.scorer; import tasks.predict", ("torch", "sklearn", "scipy"), id="scoring a shard"
        ),
        pytest.param("import model.training.train; import tasks.train", ("sklearn", "scipy"), id="training"),
    ],
)
def test_what_happens_often_imports_nothing_heavy_that_it_does_not_use(work, heavy, tmp_path):
    code = f"import sys; {work}; print(sorted(name for name in {heavy} if name in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env=environment(
            tmp_path, AIRFLOW_HOME=str(tmp_path / "airflow"), PYTHONPATH=str(ROOT), AIRFLOW__CORE__LOAD_EXAMPLES="False"
        ),
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.slow
def test_nothing_is_loaded_that_could_run_code():
    for file in ALL_FILES:
        source, place = file.read_text(), relative(file)
        unsafe = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
        assert not packages(source) & unsafe, place
        for name, call in calls(source):
            assert name not in (
                "torch.load",
                "torch.save",
                "pd.read_pickle",
                "eval",
                "exec",
                "yaml.unsafe_load",
                "yaml.full_load",
                "os.system",
            ), f"{place}:{call.lineno}: {name}"
            assert not name.endswith(".to_pickle"), f"{place}:{call.lineno}: {name}"
            if name == "yaml.load":
                safe = ("_Loader", "_FastLoader", "yaml.SafeLoader")
                assert ast.unparse(call.args[1]) in safe, f"{place}:{call.lineno}"
            if name == "np.load":
                assert "allow_pickle" not in ast.unparse(call), f"{place}:{call.lineno}"
            by_shell = [word for word in call.keywords if word.arg == "shell" and ast.unparse(word.value) != "False"]
            assert not by_shell, f"{place}:{call.lineno}"


@pytest.mark.parametrize("load", [yaml_file.raw, read_yaml])
def test_yaml_that_names_a_python_object_makes_none(load):
    with pytest.raises((UserError, yaml.constructor.ConstructorError), match="could not determine a constructor"):
        load("a: !!python/object/apply:os.getcwd []")


def test_no_file_is_named_after_nothing():
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert "tasks/params/schema.py" in listed
    empty = re.compile(r"(^|/)_?(utils?|common|helpers?|managers?|misc)(\.[a-z]+)?(/|$)")
    assert not [name for name in listed if empty.search(name)]


def test_stage_is_one_verb_everywhere():
    from tasks import STAGES

    declared = re.findall(r"^  ([a-z]+):$", (ROOT / "dvc.yaml").read_text(), re.MULTILINE)
    assert tuple(declared) == ("settings", *STAGES)  # settings are written for DVC alone: no run has that stage
    for name in STAGES:
        tree = ast.parse((ROOT / "tasks" / f"{name}.py").read_text())
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_module_says_what_it_is_for():
    assert not [relative(file) for file in FILES if not ast.get_docstring(ast.parse(file.read_text()))]


def test_test_file_names_its_oracle_first():
    """In the first line."""
    files = sorted((ROOT / "tests").glob("test_*.py"))
    assert not [file.name for file in files if not re.match(r'"""(Oracle|Oracles)\b', file.read_text())]
