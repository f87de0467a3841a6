"""OpenAI's own client against a server that runs."""

import base64
import io

import numpy as np
import openai
import pytest
from PIL import Image

from ip2p_fast import Editor

OPTIONS = ("--no-warm-up",)
EDIT = {"prompt": "make it night", "extra_body": {"seed": 7, "num_inference_steps": 4}}


@pytest.fixture(scope="module")
def client(server):
    return server.client()


@pytest.fixture(scope="module")
def editor():
    return Editor.from_pretrained("pocket", backend="onnx")


def pixels(base64_text):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(base64_text))).convert("RGB"))


def assert_alike(one, other):
    """Within one grey level: exported graphs round otherwise in a larger batch."""
    assert np.abs(pixels(one.b64_json).astype(int) - pixels(other.b64_json)).max() <= 1


def png(picture):
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def test_an_edit_is_the_picture_that_the_editor_gives(client, editor, sample):
    reply = client.images.edit(image=sample, **EDIT)
    expected = editor.edit(sample, "make it night", seed=7, steps=4).images[0]
    np.testing.assert_array_equal(pixels(reply.data[0].b64_json), np.asarray(expected))
    assert (reply.size, reply.output_format) == ("64x64", "png")


def test_image_i_of_n_has_seed_plus_i_and_is_told_it(client, sample):
    two = client.images.edit(image=sample, n=2, **EDIT).data
    assert [image.seed for image in two] == [7, 8]
    alone = client.images.edit(image=sample, prompt="make it night", extra_body={"seed": 8, "num_inference_steps": 4})
    assert_alike(two[1], alone.data[0])
    assert (pixels(two[0].b64_json) != pixels(two[1].b64_json)).any()


def test_several_pictures_are_each_edited_n_times(client, sample):
    other = png(Image.open(io.BytesIO(sample)).rotate(180))
    images = client.images.edit(image=[sample, other], n=2, **EDIT).data
    assert [image.seed for image in images] == [7, 8, 7, 8]
    alone = client.images.edit(image=other, **EDIT).data[0]
    assert_alike(images[2], alone)


def test_a_stream_shows_previews_and_ends_with_the_picture(client, sample):
    whole = client.images.edit(image=sample, **EDIT).data[0]
    events = list(client.images.edit(image=sample, stream=True, partial_images=2, **EDIT))
    kinds = ["image_edit.partial_image"] * 2 + ["image_edit.completed"]
    assert [event.type for event in events] == kinds
    assert [event.partial_image_index for event in events[:2]] == [0, 1]
    np.testing.assert_array_equal(pixels(events[-1].b64_json), pixels(whole.b64_json))
    assert (pixels(events[0].b64_json) != pixels(whole.b64_json)).any()


@pytest.mark.parametrize("size", [(100, 60), (33, 97), (300, 200)])
def test_the_output_has_the_inputs_own_size(client, sample, size):
    picture = Image.open(io.BytesIO(sample)).resize(size)
    reply = client.images.edit(image=png(picture), **EDIT)
    assert pixels(reply.data[0].b64_json).shape == (size[1], size[0], 3)
    assert reply.size == f"{size[0]}x{size[1]}"


def test_size_says_the_size_of_the_output(client, sample):
    assert pixels(client.images.edit(image=sample, size="50x80", **EDIT).data[0].b64_json).shape == (80, 50, 3)


@pytest.mark.parametrize("output_format", ["png", "jpeg", "webp"])
def test_the_format_asked_for_is_the_format_sent(client, sample, output_format):
    reply = client.images.edit(image=sample, output_format=output_format, **EDIT)
    picture = Image.open(io.BytesIO(base64.b64decode(reply.data[0].b64_json)))
    assert picture.format.lower() == reply.output_format == output_format


def test_compression_makes_a_jpeg_smaller(client, sample):
    sizes = [
        len(client.images.edit(image=sample, output_format="jpeg", output_compression=quality, **EDIT).data[0].b64_json)
        for quality in (20, 95)
    ]
    assert sizes[0] < sizes[1]


def test_a_url_is_a_data_url(client, sample):
    url = client.images.edit(image=sample, response_format="url", **EDIT).data[0].url
    assert url.startswith("data:image/png;base64,")
    assert pixels(url.partition(",")[2]).shape == (64, 64, 3)


@pytest.mark.parametrize("sense", ["alpha", "white"])
def test_a_mask_keeps_every_pixel_of_the_rest(client, sample, sense):
    before = np.asarray(Image.open(io.BytesIO(sample)).convert("RGB"))
    edited = np.zeros((64, 64), np.uint8)
    edited[:, 32:] = 255
    mask = Image.fromarray(edited) if sense == "white" else Image.fromarray(255 - edited).convert("RGBA")
    if sense == "alpha":
        mask.putalpha(Image.fromarray(255 - edited))
    settings = EDIT["extra_body"] | ({"mask_sense": "white"} if sense == "white" else {})
    reply = client.images.edit(image=sample, mask=png(mask), prompt="make it night", extra_body=settings)
    after = pixels(reply.data[0].b64_json)
    np.testing.assert_array_equal(after[:, :32], before[:, :32])
    assert (after[:, 32:] != before[:, 32:]).any()


def test_five_turns_that_change_nothing_keep_the_size(client, sample):
    picture = png(Image.open(io.BytesIO(sample)).resize((100, 60)))
    for _ in range(5):
        reply = client.images.edit(image=picture, prompt="change nothing", extra_body={"num_inference_steps": 2})
        picture = base64.b64decode(reply.data[0].b64_json)
    assert Image.open(io.BytesIO(picture)).size == (100, 60)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": " "}, "prompt"),
        ({"prompt": "night " * 100}, "prompt"),
        ({"size": "large"}, "size"),
        ({"size": "9000x9"}, "size"),
        ({"n": 11}, "n"),
        ({"background": "transparent"}, "background"),
        ({"mask": b"<svg xmlns='http://www.w3.org/2000/svg'/>"}, "mask"),
        ({"image": b"GIF89a"}, "image"),
        ({"extra_body": {"sampler": "none"}}, "sampler"),
        ({"extra_body": {"num_inference_steps": 101}}, "num_inference_steps"),
        ({"extra_body": {"no_such_field": 1}}, "no_such_field"),
    ],
)
def test_a_field_that_cannot_be_used_is_named(client, sample, fields, param):
    with pytest.raises(openai.BadRequestError) as raised:
        client.images.edit(**{"image": sample, "prompt": "make it night"} | fields)
    assert raised.value.param == param
    assert raised.value.type == "invalid_request_error"


def test_a_mask_of_another_size_or_without_transparency_is_refused(client, sample):
    for mask, words in ((Image.new("RGBA", (9, 9)), "9x9"), (Image.new("L", (64, 64)), "mask_sense")):
        with pytest.raises(openai.BadRequestError, match=words):
            client.images.edit(image=sample, mask=png(mask), **EDIT)


def test_a_model_that_is_not_served_is_not_found(client, sample):
    with pytest.raises(openai.NotFoundError):
        client.images.edit(image=sample, model="gpt-image-9", **EDIT)


def test_the_served_model_is_listed(client, sample):
    (model,) = client.models.list().data
    assert client.images.edit(image=sample, model=model.id, **EDIT).data


def test_json_bodies_hold_pictures_as_data_urls(server, client, sample):
    url = "data:image/png;base64," + base64.b64encode(sample).decode()
    body = {"images": [{"image_url": url}], "prompt": "make it night", "seed": 7, "num_inference_steps": 4}
    reply = server.post(json=body).json()
    expected = client.images.edit(image=sample, **EDIT).data[0].b64_json
    np.testing.assert_array_equal(pixels(reply["data"][0]["b64_json"]), pixels(expected))
