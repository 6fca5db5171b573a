"""Oracle: the wheel in an environment that holds its declared dependencies alone; nights on a real S3 server."""

import importlib.metadata
import json
import select
import subprocess
import sys
import sysconfig
import time
import zipfile
from datetime import timedelta
from pathlib import Path

import boto3
import pandas as pd
import pytest
from builders import a_product
from conftest import ROOT, call, environment, make_project
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from test_publish import AS_OF, by_id, make_night, url  # noqa: F401 (url is a fixture)

from tasks.commands.nights.withdraw import withdraw
from tasks.publish import publish
from tasks.read import read_manifest

pytestmark = pytest.mark.long

LATER = AS_OF + timedelta(days=1)
NOT_THERE = ("tasks", "model", "airflow", "torch", "dvc", "boto3", "great_expectations", "sqlalchemy", "sklearn")


def needed_by(requirement, found):
    """Add a distribution and all that it declares to need to those that were found, by name."""
    wanted = Requirement(requirement)
    name = canonicalize_name(wanted.name)
    if name in found or (wanted.marker and not wanted.marker.evaluate({"extra": ""})):
        return found
    found[name] = importlib.metadata.distribution(name)
    for each in found[name].requires or []:
        needed_by(each, found)
    return found


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The programs of an environment with the wheel and its dependencies, which are links to those of here."""
    folder = tmp_path_factory.mktemp("reader")
    pip = [sys.executable, "-m", "pip", "--quiet"]
    build = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(ROOT / "reader")]
    subprocess.run([*pip, *build], check=True)
    [wheel] = folder.glob("*.whl")
    assert wheel.stat().st_size < 100_000
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")], check=True)
    programs = folder / "venv" / "bin"
    subprocess.run(
        [*pip, "--python", str(programs / "python"), "install", "--no-deps", "--no-index", str(wheel)], check=True
    )
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(folder / "venv")}))
    [distribution] = importlib.metadata.distributions(path=[str(packages)])
    for found in {name: each for line in distribution.requires for name, each in needed_by(line, {}).items()}.values():
        for top in {file.parts[0] for file in found.files or []} - {"..", "__pycache__", "bin"}:
            if not (packages / top).exists():
                (packages / top).symlink_to(found.locate_file(top))
    return programs


@pytest.fixture
def published(url):  # noqa: F811
    product, table = make_night(url)
    publish(product, AS_OF)
    return url, table


def reader(installed, s3, *arguments, expect=0):
    """The lines of JSON that a command of the reader prints, or its message where it fails."""
    program = str(installed / "lamplighter-reader")
    printed = call([program, *map(str, arguments)], installed, environment(installed, **s3), expect)
    return [json.loads(line) for line in printed.splitlines()] if expect == 0 else printed


def flip(key):
    client = boto3.session.Session().client("s3")
    body = client.get_object(Bucket="lamplighter", Key=key)["Body"].read()
    client.put_object(Bucket="lamplighter", Key=key, Body=body[:40] + bytes([body[40] ^ 1]) + body[41:])


def test_it_needs_what_it_declares_and_nothing_of_the_project(installed):
    program = (
        "import importlib.util, lamplighter_reader as package; "
        f"print([name for name in {NOT_THERE} if importlib.util.find_spec(name)], len(package.__all__))"
    )
    printed = call([str(installed / "python"), "-c", program], installed, environment(installed, PYTHONPATH=""))
    assert printed.strip() == "[] 8"


def test_wheel_from_git_is_the_wheel_from_the_folder(tmp_path):
    address = f"git+file://{make_project(tmp_path / 'origin')}#subdirectory=reader"
    contents = []
    for name, source in (("git", address), ("folder", str(ROOT / "reader"))):
        build = ["wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path / name), source]
        subprocess.run([sys.executable, "-m", "pip", *build], check=True)
        [wheel] = (tmp_path / name).glob("*.whl")
        with zipfile.ZipFile(wheel) as opened:
            contents.append({each: opened.read(each) for each in opened.namelist()})
    assert contents[0] == contents[1]


def test_night_is_read_as_it_was_published(installed, s3_here, published, tmp_path):
    url, table = published  # noqa: F811
    for name in ("night.parquet", "night.csv"):
        [line] = reader(installed, s3_here, "read", url, "tiny", "--to", tmp_path / name)
        assert (line["dt"], line["rows"], line["run"]) == ("2024-02-10", 10, read_manifest(url, "tiny").run)
    pd.testing.assert_frame_equal(by_id(pd.read_parquet(tmp_path / "night.parquet")), by_id(table))
    pd.testing.assert_frame_equal(by_id(pd.read_csv(tmp_path / "night.csv")), by_id(table), check_dtype=False)


def test_night_with_a_flipped_byte_is_refused(installed, s3_here, published, tmp_path):
    url, _ = published  # noqa: F811
    assert reader(installed, s3_here, "verify", url, "tiny")[0]["generation"] == 1
    flip(read_manifest(url, "tiny").parts[1].key)
    for command in (("verify", url, "tiny"), ("read", url, "tiny", "--to", tmp_path / "night.csv")):
        message = reader(installed, s3_here, *command, expect=65)
        assert message.startswith("lamplighter-reader: s3://")
        assert "part-00001: must be as the manifest says, and is damaged" in message
    assert not (tmp_path / "night.csv").exists()


def test_nights_that_stand_are_listed(installed, s3_here, published):
    url, _ = published  # noqa: F811
    for days in (1, 2, 3):
        as_of = AS_OF + timedelta(days=days)
        publish(make_night(url, as_of, model=f"model {days}")[0], as_of)
    withdraw(a_product(publish={"url": url}), LATER, "yesterday's weights", "Ann")
    assert [line["dt"][-2:] for line in reader(installed, s3_here, "list", url, "tiny")] == ["10", "12", "13"]
    some = reader(installed, s3_here, "list", url, "tiny", "--first", "2024-02-11", "--last", "2024-02-12")
    assert [line["dt"] for line in some] == ["2024-02-12"]
    assert reader(installed, s3_here, "list", url, "other") == []
    assert "write it like 2013-06-30" in reader(installed, s3_here, "list", url, "tiny", "--first", "x", expect=65)


def test_store_that_does_not_answer_is_told_by_its_exit_code(installed, s3_here):
    elsewhere = {**s3_here, "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9"}
    message = reader(installed, elsewhere, "list", "s3://lamplighter/x", "tiny", expect=75)
    assert "the store did not answer" in message


def test_follower_gets_a_night_once_it_is_whole(installed, s3_here, published, monkeypatch):
    url, _ = published  # noqa: F811
    command = [str(installed / "lamplighter-reader"), "follow", url, "tiny", "--after", "2024-02-10"]
    with subprocess.Popen(
        [*command, "--poll-seconds", "0.1", "--seconds", "120"],
        cwd=installed,
        env=environment(installed, **s3_here),
        stdout=subprocess.PIPE,
        text=True,
    ) as follower:
        seen = []

        def look(label):
            """While the night is being published, seconds long: nothing of it is seen before its commit."""
            if label in ("publish: a part is uploaded", "publish: the history is kept"):
                time.sleep(1)
                seen.append(bool(select.select([follower.stdout], [], [], 0)[0]))

        try:
            monkeypatch.setattr("tasks.publication.publishing.faults.failpoint", look)
            product, table = make_night(url, LATER, n_rows=4)
            publish(product, LATER)
            line = json.loads(follower.stdout.readline())
        finally:
            follower.kill()
    assert (line["dt"], line["rows"]) == ("2024-02-11", len(table))
    assert seen == [False] * 4
