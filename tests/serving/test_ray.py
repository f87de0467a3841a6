"""Two replicas on a local Ray cluster behind one front: the same API, and no edit lost when a replica dies."""

import base64
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import numpy as np
import pytest
from PIL import Image

from ip2p_fast import Editor, EditRequest
from ip2p_fast.serving.metrics import Metrics

pytestmark = pytest.mark.slow  # a cluster of its own, minutes on a busy machine

pytest.importorskip("ray.serve")

MODEL = "pocket-student"
# Room for six edits of one row in a replica: three in flight and three that wait.
OPTIONS = ("--ray", "--replicas", 2, "--replica-cpus", 0.5, "--model", MODEL, "--max-steps", 1000)
OPTIONS += ("--max-rows", 3, "--max-queue", 3, "--grace", 20)
# The student's own sampler takes 50 steps at most.
LONG = {"sampler": "euler_a", "deadline": 3600}
IN_FLIGHT = re.compile(r'^ip2p_edits_in_flight\{replica="(\w+)"\} (\S+)$', re.M)


@pytest.fixture(scope="module")
def editor():
    return Editor.from_pretrained(MODEL, backend="onnx")


def edit(server, sample, **fields):
    return server.post(files={"image": ("a.png", sample)}, data={"prompt": "make it night", **fields})


def picture(reply, index=0):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(reply.json()["data"][index]["b64_json"]))))


def expected(editor, sample, seed, steps):
    return np.asarray(editor.edit(sample, "make it night", seed=seed, steps=steps).images[0])


def close(one, other):
    """Exported models run in company agree to a grey level."""
    return one.shape == other.shape and np.abs(one.astype(int) - other.astype(int)).max() <= 1


def in_flight(server):
    """By replica, as the metrics tell."""
    return {name: float(value) for name, value in IN_FLIGHT.findall(server.get("/metrics").text)}


def steps_taken(server):
    return sum(map(float, re.findall(r"^ip2p_step_seconds_count\{.*\} (\S+)$", server.get("/metrics").text, re.M)))


def wait_until(condition, seconds=15):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not so after {seconds} s"
        time.sleep(0.05)


def replica_processes(server):
    """Process ids of the engines, which are descendants of the server."""
    return [pid for pid in _descendants(server.process.pid) if b"ray::ServeReplica" in _command(pid)]


def _command(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _descendants(pid):
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue  # it has just ended
    found, new = set(), {pid}
    while new:
        found |= new
        new = {child for child, parent in parents.items() if parent in new} - found
    return found - {pid}


def test_the_picture_is_that_of_the_seed(server, sample, editor):
    reply = edit(server, sample, seed=7, num_inference_steps=4, n=2)
    assert [image["seed"] for image in reply.json()["data"]] == [7, 8]
    for index in range(2):
        assert close(picture(reply, index), expected(editor, sample, 7 + index, 4))


def test_a_mask_goes_with_its_picture(server, sample):
    given = Image.open(io.BytesIO(sample)).convert("RGB")
    mask = Image.new("L", given.size, 0)
    mask.paste(255, (0, 0, 32, 64))
    file = io.BytesIO()
    mask.save(file, "PNG")
    files = {"image": ("a.png", sample), "mask": ("m.png", file.getvalue())}
    reply = server.post(files=files, data={"prompt": "make it night", "mask_sense": "white", "seed": 1})
    changed = (picture(reply) != np.asarray(given)).any(axis=2)
    assert changed[:, :32].any() and not changed[:, 32:].any()


def test_previews_stream_through_ray(server, sample, editor):
    events = list(
        server.client().images.edit(
            image=sample,
            prompt="make it night",
            stream=True,
            partial_images=2,
            extra_body={"seed": 3, "num_inference_steps": 6},
        )
    )
    kinds = ["image_edit.partial_image", "image_edit.partial_image", "image_edit.completed"]
    assert [event.type for event in events] == kinds
    last = np.asarray(Image.open(io.BytesIO(base64.b64decode(events[-1].b64_json))))
    assert close(last, expected(editor, sample, 3, 6))


@pytest.mark.parametrize(
    ("fields", "param"), [({"prompt": " "}, "prompt"), ({"n": 0}, "n"), ({"negative_prompt": "snow"}, None)]
)
def test_bad_input_is_the_400_that_one_process_gives(server, sample, editor, fields, param):
    refused = edit(server, sample, **fields)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, param)


def test_a_picture_that_is_none_is_refused_by_the_front(server):
    assert edit(server, b"no picture").json()["error"]["code"] == "invalid_image"


def test_health_readiness_models_and_metrics_are_there(server):
    wait_until(lambda: server.metric("ip2p_replicas") == 2)
    assert (server.get("/healthz").text, server.get("/readyz").text) == ("ok", "ready")
    assert server.get("/v1/models").json()["data"][0]["id"] == MODEL
    shown = server.get("/metrics").text
    own = {family.name for family in Metrics().families()} | {"ip2p_queue_length", "ip2p_edits_in_flight"}
    assert own <= {line.split()[2].removesuffix("_total") for line in shown.splitlines() if line.startswith("# TYPE")}
    assert len(set(re.findall(r'ip2p_step_seconds_count\{replica="(\w+)"\}', shown))) == 2
    assert shown.count("# TYPE ip2p_step_seconds histogram") == 1 and "ip2p_queue_length 0" not in shown


def start_long(server, sample, **more):
    """A client that reads the stream of a long edit until it is closed."""
    client = httpx2.Client(timeout=60)
    fields = {"prompt": "make it night", "stream": "true", "num_inference_steps": 1000, **LONG, **more}
    request = client.build_request(
        "POST", f"{server.url}/v1/images/edits", files={"image": ("a.png", sample)}, data=fields
    )
    return client, client.send(request, stream=True)


def leave(streams):
    for client, response in streams:
        response.close()
        client.close()


def test_requests_spread_over_the_replicas_and_all_full_is_429(server, sample):
    streams = []
    try:
        for _ in range(12):
            streams.append(start_long(server, sample))
        assert [response.status_code for _, response in streams] == [200] * 12
        assert 'cause="refused"' not in server.get("/metrics").text  # each went where there was room
        refused = edit(server, sample)
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "queue_full")
        assert int(refused.headers["Retry-After"]) >= 1
        assert edit(server, sample, stream="true").status_code == 429
        wait_until(lambda: list(in_flight(server).values()) == [3, 3])
    finally:
        leave(streams)
    wait_until(lambda: set(in_flight(server).values()) == {0})


def test_a_client_that_leaves_takes_its_edit_with_it(server, sample):
    before = steps_taken(server)
    stream = start_long(server, sample, n=3)
    wait_until(lambda: sum(in_flight(server).values()) == 3)
    leave([stream])
    wait_until(lambda: sum(in_flight(server).values()) == 0)
    assert steps_taken(server) - before < 900  # of 1000


def test_a_deadline_that_cannot_be_met_is_refused(server, sample):
    refused = edit(server, sample, num_inference_steps=1000, **LONG | {"deadline": 0.3})
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "deadline")


# Twelve clients that read streams, in a process of their own. A stream has begun when its edit was accepted.
LOAD = """
import concurrent.futures, json, sys, time, httpx2
url, sample, count, steps = sys.argv[1], open(sys.argv[2], "rb").read(), int(sys.argv[3]), sys.argv[4]
begun = []
def edit(seed):
    fields = {"prompt": "make it night", "seed": seed, "num_inference_steps": steps, "sampler": "euler_a"}
    body = {"data": {**fields, "stream": "true", "partial_images": 2}, "files": {"image": ("a.png", sample)}}
    while True:
        with httpx2.stream("POST", url + "/v1/images/edits", timeout=100, **body) as reply:
            if reply.status_code == 200:
                begun.append(seed)
                if len(begun) == 12:
                    print("begun", flush=True)
                events = [json.loads(line[6:]) for line in reply.iter_lines() if line.startswith("data: ")]
                return seed, [event.get("type") for event in events], events[-1].get("b64_json", str(events[-1]))
            if reply.status_code != 429:
                return seed, reply.status_code, reply.read().decode()
        time.sleep(0.1)
with concurrent.futures.ThreadPoolExecutor(12) as pool:
    print(json.dumps(list(pool.map(edit, range(count)))))
"""


def test_no_accepted_edit_is_lost_when_a_replica_is_killed(server, sample, editor, tmp_path):
    """Both replicas are full when one dies: its edits wait for room in the other, or in the one that Ray starts."""
    (tmp_path / "a.png").write_bytes(sample)
    victims = replica_processes(server)
    assert len(victims) == 2
    count, steps = 14, 40
    command = [sys.executable, "-c", LOAD, server.url, tmp_path / "a.png", count, steps]
    with subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True) as load:
        assert load.stdout.readline() == "begun\n"
        os.kill(victims[0], signal.SIGKILL)
        answers = json.loads(load.communicate(timeout=100)[0])
    kinds = ["image_edit.partial_image", "image_edit.partial_image", "image_edit.completed"]
    assert [kind for _, kind, _ in answers] == [kinds] * count
    asked = [EditRequest(sample, "make it night", seed=i, steps=steps, sampler="euler_a") for i in range(count)]
    for (seed, _, encoded), alone in zip(answers, editor.edit_many(asked), strict=True):
        got = np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))))
        assert close(got, np.asarray(alone.images[0])), seed
    shown = server.get("/metrics").text
    assert float(re.search(r'ip2p_retries_total\{cause="lost"\} (\S+)', shown)[1]) >= 1
    wait_until(lambda: server.metric("ip2p_replicas") == 2, 60)
    assert victims[0] not in replica_processes(server) and len(replica_processes(server)) == 2
    with ThreadPoolExecutor(4) as pool:
        replies = list(pool.map(lambda seed: edit(server, sample, seed=seed), range(4)))
    assert [reply.status_code for reply in replies] == [200] * 4


def test_shutdown_finishes_what_is_in_flight_and_leaves_no_process(server, sample):
    processes = _descendants(server.process.pid)
    assert len(processes) > 4
    wait_until(lambda: sum(in_flight(server).values()) == 0)  # what metrics tell may be a second old
    answers = []
    thread = threading.Thread(target=lambda: answers.append(edit(server, sample, num_inference_steps=300, **LONG)))
    thread.start()
    wait_until(lambda: sum(in_flight(server).values()) == 1)
    assert server.stop() == 0
    thread.join(20)
    assert answers[0].status_code == 200, answers[0].text
    assert answers[0].json()["data"]
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in processes), 10)
