"""A server with the torch backend: what an edit's company changes, which is nothing."""

from concurrent.futures import ThreadPoolExecutor

OPTIONS = ("--backend", "torch", "--no-warm-up")
EDITS = [
    {"seed": 3, "num_inference_steps": 24, "guidance_scale": 3},
    {"seed": 4, "num_inference_steps": 13, "guidance_scale": 7.5, "image_guidance_scale": 1, "sampler": "ddim"},
    {"seed": 5, "num_inference_steps": 18, "negative_prompt": "snow", "sampler": "dpmpp_2m", "n": 2},
    {"seed": 6, "num_inference_steps": 7, "guidance_scale": 1, "image_guidance_scale": 1, "resolution": 96},
]


def test_edits_in_company_are_bit_for_bit_what_each_is_alone(server, sample):
    def edit(fields):
        reply = server.post(files={"image": ("a.png", sample)}, data={"prompt": "make it night", **fields})
        return reply.json()["data"]

    alone = [edit(fields) for fields in EDITS]
    largest_alone = 6  # rows, of the two images
    assert server.metric(f'ip2p_step_rows_bucket{{le="{largest_alone}.0"}}') == server.metric("ip2p_step_rows_count")
    with ThreadPoolExecutor(len(EDITS)) as pool:
        together = list(pool.map(edit, EDITS))
    assert together == alone
    # they did share steps
    assert server.metric(f'ip2p_step_rows_bucket{{le="{largest_alone}.0"}}') < server.metric("ip2p_step_rows_count")
