"""Let people sign in with the accounts of an identity provider: settings of Airflow's FAB auth manager.

Read by the API server, as AIRFLOW__FAB__CONFIG_FILE says, in containers of docker/compose.people.yaml. Any provider of
OpenID Connect will do: Keycloak, Entra ID, Okta, Auth0, Google, Dex. Roles follow from the groups that it names, at
each sign-in; who is in none of them gets none, and sees nothing.
"""

import json
import os
from typing import Any

from airflow.providers.fab.auth_manager.security_manager.override import FabAirflowSecurityManagerOverride
from flask_appbuilder.const import AUTH_DB, AUTH_OAUTH

PROVIDER = "oidc"
_issuer = os.environ.get("LAMPLIGHTER_OIDC_ISSUER", "").rstrip("/")


class SecurityManager(FabAirflowSecurityManagerOverride):
    """What the provider says of a person, as OpenID Connect names it."""

    def get_oauth_user_info(self, provider: str, resp: Any) -> dict[str, Any]:
        """Return name, address and groups of who has signed in."""
        claims = self.oauth_remotes[provider].userinfo(token=resp)
        return {
            "username": f"{provider}_{claims['sub']}",
            "first_name": claims.get("given_name", ""),
            "last_name": claims.get("family_name", ""),
            "email": claims.get("email", ""),
            "role_keys": claims.get(os.environ.get("LAMPLIGHTER_OIDC_GROUPS_CLAIM", "groups"), []),
        }


if _issuer:
    AUTH_TYPE = AUTH_OAUTH
    SECURITY_MANAGER_CLASS = SecurityManager
    OAUTH_PROVIDERS = [
        {
            "name": PROVIDER,
            "icon": "fa-key",
            "token_key": "access_token",
            "remote_app": {
                "client_id": os.environ["LAMPLIGHTER_OIDC_CLIENT_ID"],
                "client_secret": os.environ["LAMPLIGHTER_OIDC_CLIENT_SECRET"],
                "server_metadata_url": f"{_issuer}/.well-known/openid-configuration",
                "client_kwargs": {"scope": os.environ.get("LAMPLIGHTER_OIDC_SCOPE", "openid email profile groups")},
            },
        }
    ]
    AUTH_USER_REGISTRATION = True
    AUTH_USER_REGISTRATION_ROLE = "Public"
    AUTH_ROLES_SYNC_AT_LOGIN = True
    # Which groups have which roles: {"lamplighter-viewers": ["Viewer"], ...}
    AUTH_ROLES_MAPPING = json.loads(os.environ.get("LAMPLIGHTER_OIDC_ROLES", "{}"))
else:
    AUTH_TYPE = AUTH_DB
