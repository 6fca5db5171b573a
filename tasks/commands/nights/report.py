"""Bring the report of a training, or make that of the files below data/, and open it where there is a browser.

make report PRODUCT=flight-delays
make report PRODUCT=flight-delays AS_OF=2013-06-30
make report PRODUCT=flight-delays LOCAL=1       of what dvc repro has made in this folder
make report PRODUCT=flight-delays DOCS=1        and Great Expectations' own Data Docs of its rows, beside it
"""

import os
import re
import sys
import webbrowser
from datetime import date
from pathlib import Path

from tasks.commands.embedded.store import enter_with_store
from tasks.params import Product
from tasks.publication.object_store import Store
from tasks.reports.kept import REPORTS
from tasks.runs import remote
from tasks.runs.experiments import experiments
from tasks.runtime.errors import UserError
from tasks.runtime.files import atomic_file, read_json
from tasks.runtime.git import git
from tasks.runtime.paths import Paths
from tasks.runtime.settings import settings


def report(product: Product, as_of: date | None, declared: date, *, local: bool, with_docs: bool = False) -> str:
    """Bring the newest report, of an as_of where one is given, or make that of this folder; return its place.

    `declared` is the as_of of params.yaml. With docs, Great Expectations' page of what was validated is made beside it,
    and its place told too. Raises UserError where there is none.
    """
    page = None if local else _kept(product, as_of)
    run = page and page[0].removesuffix(".html").rpartition("-")[2]
    if page is None:
        page = _made_here(product, as_of or declared, asked=local)
    file = settings().home / "reports" / product.name / page[0]
    with atomic_file(file) as temporary:
        temporary.write_bytes(page[1])
    line = f"{file}{_opened(file)}"
    return f"{line}\n{_data_docs(product, run, file)}" if with_docs else line


def _data_docs(product: Product, run: str | None, report_file: Path) -> str:
    """Make Great Expectations' page of what a run validated, None for that of this folder; return its place."""
    from tasks.reports.data_docs import data_docs

    found, place = Paths(product.name).report("validation.json"), report_file.with_suffix(".validation.json")
    if run:
        commits = [each.commit for each in experiments(product.name) if each.name.endswith(f"-train-{run}")]
        if not commits:
            raise UserError(
                f"{report_file.name}: the experiment of this training must be in {settings().origin}, and is not, so "
                "what it validated is not known; the report itself says what was found"
            )
        place.unlink(missing_ok=True)
        remote.get(commits[0], found, place, f"what the training of {report_file.stem} validated", "read the report")
        found = place
    file = report_file.with_suffix(".data-docs.html")
    with atomic_file(file) as temporary:
        temporary.write_text(data_docs(product.name, read_json(found)), "utf-8")
    return f"{file}{_opened(file)}"


def _kept(product: Product, as_of: date | None) -> tuple[str, bytes] | None:
    """Return name and content of the newest report that the store has; None where it has none."""
    enter_with_store()
    store = Store(product.publish.url)
    written = store.list(f"{product.name}/{REPORTS}/")
    known = {key: moment for key, moment in written.items() if as_of is None or as_of.isoformat() in key.split("/")[-1]}
    if not known:
        return None
    key = max(known, key=lambda each: (re.findall(r"\d{4}-\d\d-\d\d", each.split("/")[-1])[:1], known[each]))
    stored = store.read(key)
    return (key.rpartition("/")[2], stored.body) if stored else None


def _made_here(product: Product, as_of: date, *, asked: bool) -> tuple[str, bytes]:
    from tasks.reports.making import render_here

    paths = Paths(product.name)
    evaluation = paths.report("evaluation.json")
    if not evaluation.exists() or not paths.onnx.exists():
        elsewhere = "" if asked else "in the store, or the files of one "
        raise UserError(
            f"a report of {product.name} must be {elsewhere}in {paths.root}, and is not; train it first: make run "
            f"PRODUCT={product.name} AS_OF={as_of}, or dvc repro export@{product.name}"
        )
    measured = read_json(evaluation)["as_of"]
    if measured != as_of.isoformat():
        raise UserError(
            f"the files in {paths.root} must be of {as_of}, and are of {measured}; give AS_OF={measured}, or train "
            f"anew: make run PRODUCT={product.name} AS_OF={as_of}"
        )
    revision = git("rev-parse", "HEAD").strip()
    return f"{as_of}-local.html", render_here(product, as_of, revision).encode()


def _opened(file: Path) -> str:
    """Show a page in the browser, where a screen is there to show it; return what to say of it."""
    has_screen = sys.platform == "darwin" or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
    return " (open in the browser)" if has_screen and webbrowser.open(file.resolve().as_uri()) else ""
