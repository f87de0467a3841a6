"""A server with a bundle: what an edit's company changes is rounding, in the last bits of a prediction."""

import base64
import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

OPTIONS = ("--backend", "onnx", "--model", "pocket")
EDITS = [{"seed": seed, "num_inference_steps": 6 + seed, "guidance_scale": 2 + seed / 2} for seed in range(4)]


def test_edits_in_company_are_within_one_grey_level_of_what_each_is_alone(server, sample):
    def edit(fields):
        reply = server.post(files={"image": ("a.png", sample)}, data={"prompt": "make it night", **fields})
        picture = Image.open(io.BytesIO(base64.b64decode(reply.json()["data"][0]["b64_json"])))
        return np.asarray(picture, np.int16)

    alone = [edit(fields) for fields in EDITS]
    steps_alone = server.metric("ip2p_step_rows_count")
    with ThreadPoolExecutor(len(EDITS)) as pool:
        together = list(pool.map(edit, EDITS))
    assert server.metric("ip2p_step_rows_count") < 2 * steps_alone  # they did share steps
    for picture, other in zip(together, alone, strict=True):
        assert np.abs(picture - other).max() <= 1
