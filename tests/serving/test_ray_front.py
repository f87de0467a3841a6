"""The whole application as `serve run` and KubeRay deploy it: Ray's proxies, a front, an engine."""

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import httpx2
import openai
import pytest
import yaml

pytestmark = pytest.mark.slow  # a cluster of its own, minutes on a busy machine

pytest.importorskip("ray.serve")

KUBERNETES = Path(__file__).parents[2] / "examples" / "kubernetes"
SECONDS = 60


@contextmanager
def serve_run(folder, config):
    """`serve run` of this configuration on a cluster of its own, until the block ends. -> the address of its proxy"""
    (folder / "serve.yaml").write_text(yaml.safe_dump(config))
    command = [Path(sys.executable).parent / "serve", "run", folder / "serve.yaml"]
    with (folder / "log").open("w") as log:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
        process = subprocess.Popen(list(map(str, command)), stdout=log, stderr=log, env=environment)
    url = f"http://127.0.0.1:{config['http_options']['port']}"
    try:
        _wait_until_ready(process, url, folder / "log")
        yield url
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_ready(process, url, log):
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        assert process.poll() is None, log.read_text()
        try:
            if httpx2.get(f"{url}/readyz", timeout=5).status_code == 200:
                return
        except httpx2.TransportError:
            pass
        time.sleep(0.2)
    raise AssertionError(log.read_text())


@pytest.fixture
def url(tmp_path):
    """The example for KubeRay, as small as a test can have it."""
    service = next(yaml.safe_load_all((KUBERNETES / "ray_service.yaml").read_text()))
    config = yaml.safe_load(service["spec"]["serveConfigV2"])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        config["http_options"] = {"host": "127.0.0.1", "port": free.getsockname()[1]}
    (application,) = config["applications"]
    application["args"] |= {"backend": "onnx", "warm_up": False}
    for deployment in application["deployments"]:
        deployment["ray_actor_options"] = {"num_cpus": 0.2}
        if "num_replicas" in deployment:
            deployment["num_replicas"] = 1
        else:
            deployment["autoscaling_config"] |= {"min_replicas": 1, "max_replicas": 1}
    with serve_run(tmp_path, config) as url:
        yield url


def test_the_example_for_kuberay_serves_the_same_api(url, sample):
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
    few = {"num_inference_steps": 4, "seed": 1}
    reply = client.images.edit(image=sample, prompt="make it night", extra_body=few)
    assert reply.data[0].b64_json
    stream = client.images.edit(image=sample, prompt="make it night", stream=True, partial_images=1, extra_body=few)
    events = list(stream)
    assert [event.type for event in events] == ["image_edit.partial_image", "image_edit.completed"]
    assert events[-1].b64_json == reply.data[0].b64_json
    with pytest.raises(openai.BadRequestError, match="prompt"):
        client.images.edit(image=sample, prompt=" ")
    assert "front=" in httpx2.get(f"{url}/metrics").text
    _a_client_that_leaves_takes_its_edit_with_it(url, sample)


def _a_client_that_leaves_takes_its_edit_with_it(url, sample):
    body = {"prompt": "make it night", "num_inference_steps": 100, "n": 10, "stream": "true"}
    before = _told(url, "ip2p_step_seconds_count")
    files = {"image": ("a.png", sample)}
    with httpx2.stream("POST", f"{url}/v1/images/edits", files=files, data=body, timeout=SECONDS) as reply:
        assert reply.status_code == 200
        _wait_until(lambda: _told(url, "ip2p_edits_in_flight") > 0)
    _wait_until(lambda: _told(url, "ip2p_edits_in_flight") == 0)
    assert _told(url, "ip2p_step_seconds_count") - before < 180  # of 200, as ten images do not fit at once


def _wait_until(condition):
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def _told(url, name):
    """The sum over replicas."""
    shown = httpx2.get(f"{url}/metrics").text
    return sum(float(line.split()[-1]) for line in shown.splitlines() if line.startswith(name))
