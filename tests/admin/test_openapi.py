"""The description and the routes are the same, in both directions."""

from copy import deepcopy
from typing import Any

from starlette.applications import Starlette
from starlette.routing import Route

from agent.admin.api import Api
from agent.admin.auth import Gatekeeper
from agent.admin.guard import Guard
from agent.admin.openapi import OPENAPI
from tests.admin.described import strangers
from tests.admin.stand_in import StandIn
from tests.admin.stand_in_detection import DETECTION
from tests.admin.stand_in_service import SERVICE, SHADOW

METHODS = {"get", "post", "put", "patch", "delete"}


def routes() -> set[tuple[str, str]]:
    """(path, method) of everything that answers, in the spelling of OpenAPI."""
    gatekeeper = Gatekeeper(tokens=(), hosts=frozenset(), open_reads=True)
    guard = Api(StandIn(), gatekeeper).application()
    assert isinstance(guard, Guard)
    inside = guard._application
    assert isinstance(inside, Starlette)
    return {
        (route.path.replace(":path}", "}"), method.lower())
        for route in inside.routes
        if isinstance(route, Route)
        for method in route.methods or ()
        if method != "HEAD"
    }


def described() -> set[tuple[str, str]]:
    return {
        (path, method)
        for path, item in OPENAPI["paths"].items()
        for method in item.keys() & METHODS
    }


def test_what_answers_is_described_and_what_is_described_answers() -> None:
    assert routes() == described()


def test_parameters_of_a_path_are_those_in_its_braces() -> None:
    for path, item in OPENAPI["paths"].items():
        braces = {part[1:-1] for part in path.split("/") if part.startswith("{")}
        for method in item.keys() & METHODS:
            given = {p["name"] for p in item[method].get("parameters", ()) if p["in"] == "path"}
            assert given == braces, (path, method)


def test_everything_that_changes_state_names_its_security() -> None:
    for path, item in OPENAPI["paths"].items():
        if "post" in item and not path.endswith("/callback"):
            assert item["post"]["security"] == [{"bearer": []}], path


def test_the_status_is_described_member_by_member() -> None:
    view = StandIn()
    view.service, view.rollout = deepcopy(SERVICE) | deepcopy(DETECTION), deepcopy(SHADOW)
    status = view.status()
    for apart in ("run", "processes"):
        del status[apart]
    for apart in ("measurements", "transitions"):
        del status["rollout"][apart]
    described = OPENAPI["components"]["schemas"]["Status"]
    assert strangers(status, described) == []
    status["rollout"]["new"] = 1
    status["slo"][0]["remaining"] = "much"
    assert len(strangers(status, described)) == 2


def test_features_are_described_member_by_member() -> None:
    view, schemas = StandIn(), OPENAPI["components"]["schemas"]
    assert strangers({"features": view.features()}, schemas["Features"]) == []
    feature = view.feature("age")
    assert feature is not None
    assert strangers(feature, schemas["Feature"]) == []
    feature["effects"]["1000"]["psi"] = None
    assert len(strangers(feature, schemas["Feature"])) == 1


def test_references_lead_somewhere() -> None:
    def found(value: Any) -> list[str]:
        if isinstance(value, dict):
            here = [value["$ref"]] if "$ref" in value else []
            return here + [ref for item in value.values() for ref in found(item)]
        if isinstance(value, list):
            return [ref for item in value for ref in found(item)]
        return []

    references = found(OPENAPI)
    assert references
    for reference in references:
        node: Any = OPENAPI
        for part in reference.removeprefix("#/").split("/"):
            node = node[part]
