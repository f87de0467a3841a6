"""schemathesis against the OpenAPI document of a server that runs."""

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings

OPTIONS = ("--no-warm-up", "--max-steps", 2, "--max-n", 2)
EXAMPLES = {"/v1/images/edits": 60}


@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode), ids=str)
def test_no_request_that_the_schema_allows_or_forbids_is_a_5xx(server, mode):
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    operations = [result.ok() for result in schema.get_all_operations()]
    assert {operation.path for operation in operations} >= {"/v1/images/edits", "/v1/models", "/readyz", "/metrics"}
    for operation in operations:
        if mode == schemathesis.GenerationMode.NEGATIVE and operation.path not in EXAMPLES:
            continue  # without a parameter there is nothing to get wrong

        @settings(
            max_examples=EXAMPLES.get(operation.path, 3),
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(mode))
        def answered(case):
            response = case.call()
            # a deadline of next to nothing is in the schema, and is refused with 503 as any that cannot be met
            missed = response.status_code == 503 and response.json()["error"]["code"] == "deadline"
            assert response.status_code < 500 or missed, response.text

        answered()


def test_a_reply_has_the_form_that_the_schema_says(server):
    error = server.post(json={"prompt": "x"})
    assert set(error.json()["error"]) == {"message", "type", "param", "code"}
    document = server.get("/openapi.json").json()
    described = document["paths"]["/v1/images/edits"]["post"]
    assert set(described["requestBody"]["content"]) == {"multipart/form-data", "application/json"}
    assert str(error.status_code) in described["responses"]
