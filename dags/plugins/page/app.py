"""Serve the Products page: to Airflow's own page as fragments, and bare; with manifests and reports.

Each address needs Airflow's login, and a product the right to read its DAG. Nothing here changes anything. Without git
and without the libraries of models: a product's status is one object in the store.
"""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import AccessView, DagDetails
from airflow.api_fastapi.common.db.common import SessionDep
from airflow.api_fastapi.core_api.security import GetUserDep, requires_access_view
from fastapi import Depends, FastAPI, HTTPException, Request, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from dags.plugins.page import meanings, words
from dags.plugins.page.airflow_runs import seen_by_airflow
from dags.plugins.page.cards import Card, make_cards
from dags.plugins.page.products import declared, read_object, read_statuses
from tasks import params
from tasks.publication.manifests import NightPlace, decode_checked
from tasks.publication.object_store import Store
from tasks.runtime.errors import TransientError, UserError

FOLDER = Path(__file__).resolve().parent
CONTENT_POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""What a browser may load for the bare page: our own style sheet and icon, and no script at all."""
REPORT_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; sandbox allow-popups"
)
"""The same for a report, which is one file with its style and pictures in it."""
HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "same-origin"}
REPORT_NAME = re.compile(r"\d{4}-\d{2}-\d{2}-[0-9a-z]{1,64}\.html")
FILES = {
    "page.js": "text/javascript",
    "style.css": "text/css",
    "icon.svg": "image/svg+xml",
    "icon-dark.svg": "image/svg+xml",
}

app = FastAPI(
    dependencies=[Depends(requires_access_view(AccessView.WEBSITE))], docs_url=None, redoc_url=None, openapi_url=None
)
templates = Environment(
    loader=FileSystemLoader(FOLDER / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
templates.filters.update(number=words.number, count=words.count, moment=words.moment, signed=words.signed)
templates.filters.update(metric_meaning=meanings.of_metric, gate_meaning=meanings.of_gate)


@app.get("/")
def overview(request: Request, user: GetUserDep, session: SessionDep) -> Response:
    """Return the page of all products without Airflow around it."""
    return _page(request, "overview.html", _overview(user, session), is_bare=True)


@app.get("/fragment")
def overview_fragment(request: Request, user: GetUserDep, session: SessionDep) -> Response:
    """Return what Airflow's page shows of all products."""
    return _page(request, "overview.html", _overview(user, session), is_bare=False)


@app.get("/products/{name}")
def product(request: Request, name: str, user: GetUserDep, session: SessionDep) -> Response:
    """Return the page of a product without Airflow around it."""
    return _page(request, "product.html", _product(name, user, session), is_bare=True)


@app.get("/fragment/{name}")
def product_fragment(request: Request, name: str, user: GetUserDep, session: SessionDep) -> Response:
    """Return what Airflow's page shows of a product."""
    return _page(request, "product.html", _product(name, user, session), is_bare=False)


@app.get("/products/{name}/quarantine/{as_of}")
def quarantine(request: Request, name: str, as_of: date, user: GetUserDep, session: SessionDep) -> Response:
    """Return the page of a night's rows in quarantine without Airflow around it."""
    return _page(request, "quarantine.html", _quarantine(name, as_of, user, session), is_bare=True)


@app.get("/fragment/{name}/quarantine/{as_of}")
def quarantine_fragment(request: Request, name: str, as_of: date, user: GetUserDep, session: SessionDep) -> Response:
    """Return what Airflow's page shows of a night's rows in quarantine."""
    return _page(request, "quarantine.html", _quarantine(name, as_of, user, session), is_bare=False)


@app.get("/products/{name}/nights/{as_of}/manifest")
def manifest(name: str, as_of: date, user: GetUserDep) -> Response:
    """Return the manifest of a night, as it lies in the store."""
    described = _readable(name, user)
    place = NightPlace(store=Store(described.publish.url), product=name, as_of=as_of)
    stored = _found(lambda: read_object(described, place.manifest), f"no night of {as_of} is published")
    _answered(lambda: decode_checked(stored))
    return Response(stored.body, media_type="application/json", headers=HEADERS)


@app.get("/products/{name}/reports/{file}")
def report(name: str, file: str, user: GetUserDep) -> Response:
    """Return the report of a run."""
    described = _readable(name, user)
    if not REPORT_NAME.fullmatch(file):
        raise HTTPException(404, "a report is named like 2013-06-30-6862ea31.html")
    stored = _found(lambda: read_object(described, f"{name}/_reports/{file}"), "no report of this run is in the store")
    return Response(stored.body, media_type="text/html", headers=HEADERS | {"Content-Security-Policy": REPORT_POLICY})


@app.get("/{file}")
def static_file(file: str) -> Response:
    """Return the script, the style sheet or the icon."""
    if file not in FILES:
        raise HTTPException(404, "there is no such page")
    return Response((FOLDER / "static" / file).read_bytes(), media_type=FILES[file], headers=HEADERS)


def _overview(user: Any, session: Any) -> Mapping[str, object]:
    products = [each for name, each in _answered(declared).items() if _may_read(name, user)]
    return {"cards": _cards(products, session)}


def _product(name: str, user: Any, session: Any) -> Mapping[str, object]:
    return {"card": _cards([_readable(name, user)], session)[0]}


def _quarantine(name: str, as_of: date, user: Any, session: Any) -> Mapping[str, object]:
    card = _cards([_readable(name, user)], session)[0]
    if card.damage:
        raise HTTPException(503, card.damage)
    night = next((each for each in card.nights if each.as_of == as_of), None)
    if night is None:
        raise HTTPException(404, f"no night of {as_of} is on record, or it is older than a quarter")
    return {"card": card, "night": night}


def _cards(products: list[params.Product], session: Any) -> list[Card]:
    seen = seen_by_airflow(session, [each.name for each in products])
    return make_cards(products, read_statuses(products), seen, datetime.now(UTC))


def _page(request: Request, template: str, values: Mapping[str, object], *, is_bare: bool) -> Response:
    """Fill in a template; addresses begin with whatever Airflow's own begin with."""
    own = request.scope.get("root_path", "").rstrip("/")
    base = own.rpartition("/")[0]
    home, product = (
        (f"{own}/", f"{own}/products/") if is_bare else (f"{base}/plugin/products", f"{base}/plugin/products/")
    )
    text = templates.get_template(template).render(
        **values, airflow=base, own=own, home=home, product_page=product, is_bare=is_bare, now=datetime.now(UTC)
    )
    return Response(text, media_type="text/html", headers=HEADERS | {"Content-Security-Policy": CONTENT_POLICY})


def _readable(name: str, user: Any) -> params.Product:
    """Return a product; who may not read its DAG learns no more than of one that is not declared."""
    found = _answered(declared).get(name)
    if found is None or not _may_read(name, user):
        raise HTTPException(404, "params.yaml declares no such product, or you may not read its DAG")
    return found


def _may_read(name: str, user: Any) -> bool:
    details = DagDetails(id=f"predict__{name}")
    return bool(get_auth_manager().is_authorized_dag(method="GET", details=details, user=user))


def _answered(work: Callable[[], Any]) -> Any:
    """Do `work`; what a person or waiting can mend is an answer, not a failure of the server."""
    try:
        return work()
    except (UserError, TransientError) as error:
        raise HTTPException(503, str(error)) from None


def _found(work: Callable[[], Any], otherwise: str) -> Any:
    found = _answered(work)
    if found is None:
        raise HTTPException(404, otherwise)
    return found
