import os

os.environ["HF_HUB_OFFLINE"] = "1"  # no test may depend on a network

import numpy as np
import pytest
import torch
from PIL import Image

torch.set_num_threads(1)  # tiny tensors: threads would only wait for each other


@pytest.fixture(scope="session")
def tiny_pipeline(tmp_path_factory):
    """diffusers' own pipeline with small random weights. Tests must leave it as it is."""
    import tiny

    return tiny.pipeline(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def tiny_editor(tiny_pipeline):
    """Our engine on the same weights, float32."""
    from ip2p_fast import Editor

    return Editor.from_pipeline(tiny_pipeline, device="cpu", dtype="float32")


@pytest.fixture(scope="session")
def pictures():
    """Smooth random pictures of several sizes."""
    random = np.random.default_rng(11)
    sizes = [(16, 16), (24, 16), (16, 32), (16, 16)]
    return [
        Image.fromarray(random.integers(0, 256, (4, 4, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
        for size in sizes
    ]


@pytest.fixture(scope="session")
def tiny_model(tiny_pipeline, tmp_path_factory):
    """The folder of the small model."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tiny_pipeline.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_bundle(tiny_model, tmp_path_factory):
    """tiny_model exported in float32. Tests must not change it."""
    from ip2p_fast.export.bundle_folder import export_bundle

    folder = tmp_path_factory.mktemp("bundles") / "tiny"
    export_bundle(tiny_model, folder)
    return folder


@pytest.fixture(scope="session")
def tiny_student(tmp_path_factory):
    """The folder of a small distilled model, told both guidance scales through an embedding of width 16."""
    import json

    import tiny

    folder = tmp_path_factory.mktemp("distilled") / "student"
    tiny.pipeline(folder.parent / "source", time_cond_proj_dim=16).save_pretrained(folder)
    config = folder / "unet" / "config.json"
    told = {"conditioned_on": ["text_guidance", "image_guidance"]}
    config.write_text(json.dumps(json.loads(config.read_text()) | told))
    return folder


@pytest.fixture(scope="session")
def tiny_student_bundle(tiny_student, tmp_path_factory):
    """tiny_student exported in float32. Tests must not change it."""
    from ip2p_fast.export.bundle_folder import export_bundle

    folder = tmp_path_factory.mktemp("bundles") / "student"
    export_bundle(tiny_student, folder)
    return folder
