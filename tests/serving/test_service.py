"""A server among many clients: company, clients that leave, full queues, deadlines, keys, shutdown."""

import base64
import random
import re
import socket
import threading
import time
from pathlib import Path

import httpx2
import openai
import pytest

OPTIONS = ("--max-queue", 2, "--max-rows", 6, "--max-steps", 1000)


def edit(server, sample, **fields):
    return server.post(files={"image": ("a.png", sample)}, data={"prompt": "make it night", **fields})


def start_long(server, sample, steps=300):
    """A client that reads the stream of a long edit until it is closed."""
    client = httpx2.Client(timeout=60)
    fields = {"prompt": "make it night", "stream": "true", "num_inference_steps": steps, "deadline": 3600}
    request = client.build_request(
        "POST", f"{server.url}/v1/images/edits", files={"image": ("a.png", sample)}, data=fields
    )
    return client, client.send(request, stream=True)


def test_a_client_that_leaves_takes_its_edit_with_it(server, sample):
    client, response = start_long(server, sample)
    server.wait_for("ip2p_edits_in_flight", 1)
    response.close()
    client.close()
    server.wait_for("ip2p_edits_in_flight", 0)
    assert edit(server, sample, num_inference_steps=2).status_code == 200


def test_a_client_that_leaves_without_a_stream_takes_its_edit_with_it(server, sample):
    with pytest.raises(httpx2.TimeoutException):
        httpx2.post(
            f"{server.url}/v1/images/edits",
            files={"image": ("a.png", sample)},
            data={"prompt": "make it night", "num_inference_steps": 1000, "deadline": 3600},
            timeout=1,
        )
    server.wait_for("ip2p_edits_in_flight", 0)


def test_a_full_queue_is_429_and_says_when_to_come_again(server, sample):
    streams = [start_long(server, sample) for _ in range(2)]
    try:
        server.wait_for("ip2p_edits_in_flight", 2)  # as many as there are rows for
        streams += [start_long(server, sample) for _ in range(2)]
        server.wait_for("ip2p_queue_length", 2)
        refused = edit(server, sample)
        assert refused.status_code == 429
        assert int(refused.headers["Retry-After"]) >= 1
        assert refused.json()["error"]["code"] == "queue_full"
        with pytest.raises(openai.RateLimitError):
            server.client().images.edit(image=sample, prompt="make it night")
    finally:
        for client, response in streams:
            response.close()
            client.close()
    server.wait_for("ip2p_queue_length", 0)
    server.wait_for("ip2p_edits_in_flight", 0)


def test_a_request_of_more_edits_than_the_queue_holds_is_refused_whole(server, sample):
    assert edit(server, sample, n=3).status_code == 429
    assert server.metric("ip2p_queue_length") == 0


def test_a_deadline_that_cannot_be_met_is_refused_at_once(server, sample):
    began = time.monotonic()
    refused = edit(server, sample, num_inference_steps=1000, deadline=0.5)
    assert refused.status_code == 503
    assert refused.json()["error"]["code"] == "deadline"
    assert int(refused.headers["Retry-After"]) >= 1
    assert server.metric("ip2p_edits_in_flight") == 0 and time.monotonic() - began < 30
    assert edit(server, sample, num_inference_steps=2, deadline=30).status_code == 200


def test_sizes_take_turns(server, sample):
    """A short edit of another size is done while a long one runs."""
    client, response = start_long(server, sample)
    try:
        server.wait_for("ip2p_edits_in_flight", 1)
        assert edit(server, sample, num_inference_steps=3, resolution=32).status_code == 200
        assert server.metric("ip2p_edits_in_flight") == 1
    finally:
        response.close()
        client.close()
    server.wait_for("ip2p_edits_in_flight", 0)


def test_metrics_and_logs_hold_no_prompt(server, sample):
    secret = "xyzzy plugh\n\x1b[31mforged line"
    assert edit(server, sample, num_inference_steps=1, seed=1, prompt=secret).status_code == 200
    server.post(json={"prompt": secret, "images": secret})
    server.get("/%1b%5b31mred%0aforged")
    assert "xyzzy" not in server.get("/metrics").text
    log = server.log.read_text()
    assert "xyzzy" not in log and "forged line" not in log and "\x1b" not in log
    assert r"/\x1b[31mred\nforged 404" in log


@pytest.mark.parametrize("name", ["User-Agent", "X-Request-Id", "Authorization", "Content-Type", "X\x1b[31m", "Host"])
def test_control_characters_in_headers_never_reach_the_log(server, name):
    host, port = server.url.removeprefix("http://").split(":")
    header = f"{name}: \x1b[31msmug\x08gled\x07\x85 line"
    lines = ("POST /v1/images/edits HTTP/1.1", "Content-Length: 2", header, "", "{}")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall("\r\n".join(lines).encode("latin-1"))
        status = int(connection.recv(4096).split()[1])
    assert 400 <= status < 500
    log = server.log.read_bytes()
    assert not set(log) & (set(range(32)) - {ord("\n")}) and b"\x85" not in log
    assert b"gled" not in log


def test_every_metric_of_the_document_is_there(server):
    document = (Path(__file__).parents[2] / "docs" / "serving.md").read_text().split("\n## More machines")[0]
    shown = server.get("/metrics").text
    names = set(re.findall(r"\bip2p_[a-z_]+[a-z]\b", document)) - {"ip2p_fast"}
    assert len(names) == 8 and all(f"# TYPE {name}" in shown for name in names)


def test_unknown_paths_and_methods_are_told_in_openais_form(server):
    assert server.get("/v1/nothing").json()["error"]["code"] == "not_found"
    wrong = server.get("/v1/images/edits")
    assert (wrong.status_code, wrong.json()["error"]["type"]) == (405, "invalid_request_error")


def test_health_readiness_and_documents_are_there(server):
    assert server.get("/healthz").text == "ok"
    assert server.get("/readyz").text == "ready"
    assert server.get("/docs").headers["x-request-id"]


def test_the_documents_page_loads_nothing_from_elsewhere(server):
    page = server.get("/docs").text
    addresses = re.findall(r"""(?:href|src)=["']([^"']+)""", page)
    assert len(addresses) >= 3 and all(address.startswith(server.url) for address in addresses)
    assert "https://" not in page
    for address in addresses:
        assert server.get(address.removeprefix(server.url)).status_code == 200


def test_sigterm_finishes_what_is_in_flight_and_takes_no_more(starts, tmp_path, sample):
    with starts(tmp_path, "--grace", 60, "--no-warm-up") as server:
        answers = []
        thread = threading.Thread(target=lambda: answers.append(edit(server, sample, num_inference_steps=20)))
        thread.start()
        server.wait_for("ip2p_edits_in_flight", 1)
        assert server.stop() == 0
        thread.join(20)
        assert answers[0].status_code == 200 and answers[0].json()["data"]
        with pytest.raises(httpx2.TransportError):
            server.get("/healthz")


def test_sigterm_gives_up_what_the_grace_does_not_suffice_for(starts, tmp_path, sample):
    options = ("--grace", 0.2, "--max-steps", 1000, "--no-warm-up")
    with starts(tmp_path, *options) as server:
        answers = []
        thread = threading.Thread(
            target=lambda: answers.append(edit(server, sample, num_inference_steps=1000, deadline=3600))
        )
        thread.start()
        server.wait_for("ip2p_edits_in_flight", 1)
        assert server.stop() == 0
        thread.join(20)
        assert answers[0].status_code == 503
        assert answers[0].json()["error"]["code"] == "unavailable"


def test_keys_limits_cors_checker_and_provenance(starts, tmp_path, sample, monkeypatch):
    keys = tmp_path / "keys"
    keys.write_text("first-key\nsecond-key\n")
    (tmp_path / "checkers.py").write_text(
        "def check(pictures, prompt):\n"
        "    if 'crash' in prompt: raise RuntimeError(prompt)\n"
        "    return 'no beaches' if 'beach' in prompt else None\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    options = ("--api-keys", keys, "--cors-origin", "https://page.example", "--safety-checker", "checkers:check")
    more = ("--provenance", "--max-body", 20_000, "--body-seconds", 1, "--name", "m", "--alias", "gpt-image-1")
    with starts(tmp_path, *options, *more, "--no-warm-up") as server:
        _keys_are_asked_for(server, sample)
        client = server.client("second-key")
        _pages_of_listed_origins_may_call(server)
        _the_checker_refuses(server, client, sample)
        _a_png_tells_its_model(client, sample)
        _large_and_slow_bodies_are_cut_off(server)


def _keys_are_asked_for(server, sample):
    for key in ("third-key", "first-ke", ""):
        with pytest.raises((openai.AuthenticationError, httpx2.LocalProtocolError)):
            server.client(key or "x").images.edit(image=sample, prompt="make it night")
    assert server.get("/v1/models").status_code == 401
    assert server.get("/healthz").status_code == 200


def _pages_of_listed_origins_may_call(server):
    for origin, allowed in (("https://page.example", True), ("https://other.example", False)):
        reply = httpx2.get(f"{server.url}/healthz", headers={"Origin": origin})
        assert (reply.headers.get("access-control-allow-origin") == origin) is allowed
        asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        assert (httpx2.options(f"{server.url}/v1/images/edits", headers=asked).status_code == 200) is allowed


def _the_checker_refuses(server, client, sample):
    few = {"num_inference_steps": 2}
    with pytest.raises(openai.BadRequestError, match="no beaches"):
        client.images.edit(image=sample, prompt="add a beach", extra_body=few)
    with pytest.raises(openai.APIError, match="no beaches"):
        list(client.images.edit(image=sample, prompt="add a beach", stream=True, extra_body=few))
    with pytest.raises(openai.InternalServerError) as raised:
        client.images.edit(image=sample, prompt="crash", extra_body=few)
    assert "Traceback" not in str(raised.value) and "RuntimeError" not in str(raised.value)
    identity = raised.value.response.headers["x-request-id"]
    assert identity in str(raised.value)
    log = server.log.read_text()
    assert f"request {identity} failed" in log and "    | RuntimeError: crash" in log


def _a_png_tells_its_model(client, sample):
    reply = client.images.edit(image=sample, model="gpt-image-1", prompt="night", extra_body={"num_inference_steps": 1})
    assert b"edited by m" in base64.b64decode(reply.data[0].b64_json)


def _large_and_slow_bodies_are_cut_off(server):
    headers = {"Authorization": "Bearer first-key", "Content-Type": "application/json"}
    whole = server.post(content=b"{" + b" " * 30_000, headers=headers)
    chunked = server.post(content=(b" " * 1_000 for _ in range(30)), headers=headers)
    assert (whole.status_code, chunked.status_code) == (413, 413)
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as slow:
        lines = ("POST /v1/images/edits HTTP/1.1", "Host: x", "Content-Length: 99", *map(": ".join, headers.items()))
        slow.sendall("\r\n".join((*lines, "", "{")).encode())
        assert b" 408 " in slow.recv(4096).split(b"\r\n")[0]
    with socket.create_connection((host, int(port)), timeout=10) as slow:
        slow.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n")
        assert slow.recv(4096) == b""  # closed, as the headers never end


def test_a_connection_serves_many_requests(server):
    with httpx2.Client(base_url=server.url) as client:
        assert [client.get("/healthz").status_code for _ in range(3)] == [200] * 3


def test_clients_that_leave_at_any_moment_leave_nothing_behind(server, sample):
    chance = random.Random(1)
    for _ in range(15):
        fields = {
            "prompt": "make it night",
            "num_inference_steps": 50,
            "deadline": 3600,
            "stream": chance.choice(("true", "false")),
        }
        with pytest.raises(httpx2.TimeoutException):
            files = {"image": ("a.png", sample)}
            wait = chance.uniform(0.001, 0.1)
            reply = httpx2.post(f"{server.url}/v1/images/edits", files=files, data=fields, timeout=wait)
            if reply.status_code == 429:  # those that left a moment ago still wait
                raise httpx2.ReadTimeout("refused")
    server.wait_for("ip2p_edits_in_flight", 0)
    server.wait_for("ip2p_queue_length", 0)
    assert edit(server, sample, num_inference_steps=1).status_code == 200


def test_too_many_bodies_and_images_too_large_together_are_refused(starts, tmp_path, sample):
    with starts(tmp_path, "--max-output", 10_000, "--max-bodies", 1, "--no-warm-up") as server:
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=20) as slow:
            slow.sendall(b"POST /v1/images/edits HTTP/1.1\r\nHost: x\r\n")
            slow.sendall(b"Content-Type: application/json\r\nContent-Length: 9\r\n\r\n{")
            while (refused := edit(server, sample)).status_code != 429:
                time.sleep(0.01)
            assert refused.json()["error"]["code"] == "too_many_requests"
        assert edit(server, sample, n=2, num_inference_steps=1).status_code == 200
        for fields, param in (({"n": 3}, "n"), ({"size": "101x100"}, "size")):
            assert edit(server, sample, **fields).json()["error"]["param"] == param
