"""The management API: its framework, and the description that is made of its code. Imported by base."""

from typing import Any

# JSON in, JSON out; there is no page that shows the API as forms. Endpoints say themselves whom they serve
# (portal/api/endpoints.py), so whatever forgets to serves nobody.
REST_FRAMEWORK: dict[str, Any] = {
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
    "DEFAULT_AUTHENTICATION_CLASSES": ["portal.api.authentication.ManagementKeyAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["portal.api.authentication.Nobody"],
    "DEFAULT_SCHEMA_CLASS": "portal.api.schema.ApiSchema",
    "EXCEPTION_HANDLER": "portal.api.problems.answer_to",
    "UNAUTHENTICATED_USER": None,
    "URL_FORMAT_OVERRIDE": None,
}

SPECTACULAR_SETTINGS: dict[str, Any] = {
    "TITLE": "Sluice management API",
    "VERSION": "1",
    "OAS_VERSION": "3.1.0",
    "SERVE_INCLUDE_SCHEMA": False,
    "SCHEMA_PATH_PREFIX": r"/api/v1",
    "COMPONENT_SPLIT_REQUEST": True,
    "ENUM_GENERATE_CHOICE_DESCRIPTION": False,
    "SORT_OPERATIONS": False,
    # Words of a field are written where the field is, not in components with invented names.
    "POSTPROCESSING_HOOKS": ["portal.api.schema.finish"],
}
