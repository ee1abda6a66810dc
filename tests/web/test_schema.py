"""The OpenAPI document is true: schemathesis asks for all sorts of things, and believes nothing."""

import re
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from shoal.result import Result
from shoal.web.app import ENDPOINTS, app
from shoal.web.endpoints import Endpoint
from shoal.web.safety import GUARD, Door
from tests.made import experiment

DOOR = Door("127.0.0.1", None, frozenset({"testserver"}))
CHECKS = [
    not_a_server_error, status_code_conformance, content_type_conformance,
    response_headers_conformance, response_schema_conformance, negative_data_rejection,
]  # fmt: skip
FEW = 8


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Result:
    return experiment(tmp_path_factory.mktemp("schema"), population=3, steps=3)


@pytest.fixture(scope="module")
def schema(served: Result) -> Any:
    site = app(served.folder.path.parent, DOOR)
    return schemathesis.openapi.from_asgi("/api/openapi.json", site)


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda one: one.path)
def test_the_document_is_true(schema: Any, served: Result, endpoint: Endpoint) -> None:
    path = re.sub(r":\w+}", "}", endpoint.path)
    operation = schema[path][endpoint.method]
    slow = endpoint.body is not None or path.endswith(
        "/report"
    )  # a process begins, or all is drawn

    @given(operation.as_strategy())
    @settings(max_examples=FEW if slow else 20,
              deadline=None, derandomize=True, database=None,
              suppress_health_check=list(HealthCheck))  # fmt: skip
    def asked(case: Any) -> None:
        if "id" in case.path_parameters:
            case.path_parameters["id"] = served.id
        if endpoint.body is not None:
            case.headers = {**(case.headers or {}), GUARD: DOOR.guard}
        case.call_and_validate(checks=CHECKS)

    asked()
