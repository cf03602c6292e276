"""Where events are delivered to. An endpoint's secrets: the newest first; several while one is replaced."""

from __future__ import annotations

from devstack.stripe_standin.errors import invalid
from devstack.stripe_standin.routing import Call, listed, route
from devstack.stripe_standin.settings import API_VERSION
from devstack.stripe_standin.store import Obj
from devstack.stripe_standin.world import World, new_id, token


def make(world: World, *, url: str, secrets: list[str], events: list[str], metadata: dict[str, str]) -> Obj:
    return world.put(
        {
            "id": new_id("we"),
            "object": "webhook_endpoint",
            "api_version": API_VERSION,
            "application": None,
            "created": world.now(),
            "description": None,
            "enabled_events": events,
            "livemode": False,
            "metadata": metadata,
            "status": "enabled",
            "url": url,
            "_secrets": secrets,
        }
    )


@route("POST", "/v1/webhook_endpoints", "webhook_write")
def create(call: Call) -> Obj:
    params = call.params
    url = params.needed("url")
    if not url.startswith(("http://", "https://")):
        raise invalid("url", "Invalid URL: An explicit scheme (such as https) must be provided.")
    secret = "whsec_" + token(32)
    made = make(
        call.world,
        url=url,
        secrets=[secret],
        events=params.texts("enabled_events") or ["*"],
        metadata=params.metadata(),
    )
    made["description"] = params.text("description")
    made["api_version"] = params.text("api_version", API_VERSION)
    params.flag("connect")
    call.world.put(made)
    # Shown once, when it is made.
    return made | {"secret": secret}


@route("GET", "/v1/webhook_endpoints/{webhook_endpoint}", "webhook_read")
def retrieve(call: Call) -> Obj:
    return call.world.get("webhook_endpoint", call.id)


@route("POST", "/v1/webhook_endpoints/{webhook_endpoint}", "webhook_write")
def update(call: Call) -> Obj:
    params = call.params
    endpoint = call.world.get("webhook_endpoint", call.id)
    endpoint["url"] = params.text("url", endpoint["url"])
    endpoint["enabled_events"] = params.texts("enabled_events") or endpoint["enabled_events"]
    endpoint["description"] = params.text("description", endpoint["description"])
    if params.has("disabled"):
        endpoint["status"] = "disabled" if params.flag("disabled") else "enabled"
    endpoint["metadata"] = params.metadata(old=endpoint["metadata"])
    return call.world.put(endpoint)


@route("GET", "/v1/webhook_endpoints", "webhook_read")
def list_all(call: Call) -> Obj:
    return listed(call, "webhook_endpoint")
