"""Put the Products page into Airflow's navigation: what each product predicts, how well, and what waits for a person.

The page is read-only, behind Airflow's login; it shows what the store's _status.json and Airflow's database say. Every
process of Airflow's imports its plugins, and one of them serves pages: the rest is imported when it is first asked for.
"""

from typing import Any

from airflow.plugins_manager import AirflowPlugin

PREFIX = "/lamplighter"
"""Where the page's own addresses begin; `/lamplighter/` alone is the page without Airflow around it, as for a phone."""


async def serve(scope: Any, receive: Any, send: Any) -> None:
    """Answer a request, as the web application that is imported with the first one."""
    from dags.plugins.page.app import app

    await app(scope, receive, send)


class ProductsPage(AirflowPlugin):
    """What Airflow finds in the folder of plugins."""

    name = "lamplighter_products_page"
    fastapi_apps = ({"app": serve, "url_prefix": PREFIX, "name": "Lamplighter"},)
    react_apps = (
        {
            "name": "Products",
            "bundle_url": f"{PREFIX}/page.js".lstrip("/"),
            "destination": "nav",
            "url_route": "products",
            "nav_top_level": True,
            "icon": f"{PREFIX}/icon.svg".lstrip("/"),
            "icon_dark_mode": f"{PREFIX}/icon-dark.svg".lstrip("/"),
        },
    )
