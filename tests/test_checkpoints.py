"""Every form a model comes in loads to the same tensors; every damage is named in one line."""

import json
import pickle
import shutil
from dataclasses import replace

import numpy as np
import original_names
import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel

from ip2p_fast import checkpoints, hub
from ip2p_fast.checkpoints import Checkpoint
from ip2p_fast.errors import ModelError

SAMPLE = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def folder(tiny_pipeline, tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    tiny_pipeline.save_pretrained(path)
    return path


@pytest.fixture
def copy(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "copy")
    return tmp_path / "copy"


def assert_same(checkpoint: Checkpoint, pipe) -> None:
    for ours, theirs in (
        (checkpoint.unet_state, pipe.unet.state_dict()),
        (checkpoint.vae.state_dict(), pipe.vae.state_dict()),
        (checkpoint.text_encoder.state_dict(), pipe.text_encoder.state_dict()),
    ):
        assert ours.keys() == theirs.keys()
        for name in ours:
            assert torch.equal(ours[name], theirs[name].to(ours[name].dtype)), name
    assert not checkpoint.vae.training and not checkpoint.text_encoder.training
    ids = checkpoint.tokenizer.encode("make it night!").ids
    given = pipe.tokenizer("make it night!", padding="max_length", truncation=True, return_tensors="pt").input_ids
    assert torch.equal(torch.from_numpy(ids)[None], given)
    assert torch.equal(checkpoint.text_encoder(given)[0], pipe.text_encoder(given)[0])
    latents = torch.ones(1, 4, 4, 4)
    assert torch.equal(checkpoint.vae.decode(latents).sample, pipe.vae.decode(latents).sample)


def test_a_folder_loads(folder, tiny_pipeline):
    checkpoint = checkpoints.load(folder)
    assert_same(checkpoint, tiny_pipeline)
    assert checkpoint.path == folder and checkpoint.defaults == {}
    assert checkpoint.unet_config["in_channels"] == 8
    assert checkpoint.scheduler_config["beta_schedule"] == "scaled_linear"


def test_defaults_come_from_their_file(copy):
    (copy / "defaults.json").write_text('{"steps": 8}')
    assert checkpoints.load(copy).defaults == {"steps": 8}


def as_pickles(folder, pipe):
    for part, name in (
        ("unet", "diffusion_pytorch_model"),
        ("vae", "diffusion_pytorch_model"),
        ("text_encoder", "model"),
    ):
        state = load_file(folder / part / f"{name}.safetensors")
        (folder / part / f"{name}.safetensors").unlink()
        torch.save(state, folder / part / f"{'pytorch_model' if name == 'model' else name}.bin")


def as_half_variant(folder, pipe):
    shutil.rmtree(folder)
    pipe.save_pretrained(folder, variant="fp16")


def as_shards(folder, pipe):
    shutil.rmtree(folder)
    pipe.save_pretrained(folder, max_shard_size="100KB")
    assert list(folder.glob("unet/*.index.json"))


def with_old_attention_names(folder, pipe):
    path = folder / "vae/diffusion_pytorch_model.safetensors"
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    state = load_file(path)
    for new, name in old.items():
        state = {key.replace(f".{new}.", f".{name}."): tensor for key, tensor in state.items()}
    assert any(".proj_attn." in key for key in state)
    save_file(state, path)


def with_the_text_encoder_of_before(folder, pipe):
    """Names and the buffer as transformers saved them in 2022."""
    path = folder / "text_encoder/model.safetensors"
    state = {f"text_model.{name.removeprefix('text_model.')}": tensor for name, tensor in load_file(path).items()}
    save_file(state | {"text_model.embeddings.position_ids": torch.arange(77)[None]}, path)


@pytest.mark.parametrize(
    "rewrite", [as_pickles, as_half_variant, as_shards, with_old_attention_names, with_the_text_encoder_of_before]
)
def test_layouts_seen_on_the_hub_load(copy, tiny_pipeline, rewrite):
    rewrite(copy, tiny_pipeline)
    assert_same(checkpoints.load(copy), tiny_pipeline)


def test_the_dtype_is_the_files(copy):
    state = {name: tensor.half() for name, tensor in load_file(copy / SAMPLE).items()}
    save_file(state, copy / SAMPLE)
    assert {tensor.dtype for tensor in checkpoints.load(copy).unet_state.values()} == {torch.float16}


def in_hub_cache(folder, cache):
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = cache / "models--someone--edits"
    shutil.copytree(folder, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)


def test_a_hub_id_loads_from_the_cache_offline(folder, tmp_path, monkeypatch, tiny_pipeline):
    in_hub_cache(folder, tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert_same(checkpoints.load("someone/edits"), tiny_pipeline)
    with pytest.raises(ModelError, match="someone/absent is neither .* cache.*HF_HUB_OFFLINE"):
        checkpoints.load("someone/absent")


@pytest.mark.parametrize(
    "changes, fetched",
    [
        ([], {"unet": [".safetensors"], "text_encoder": [".safetensors"]}),
        ([("unet", ".safetensors")], {"unet": [".bin", ".fp16.safetensors"], "text_encoder": [".safetensors"]}),
    ],
)
def test_only_one_form_of_the_weights_is_fetched(folder, tmp_path, monkeypatch, changes, fetched):
    """A repository that holds each weight thrice; `changes` are forms that a part lacks."""
    from huggingface_hub.utils import filter_repo_objects

    files = [str(path.relative_to(folder)) for path in folder.rglob("*.json")]
    stems = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "text_encoder": "model"}
    for part, stem in stems.items():
        forms = {".safetensors", ".fp16.safetensors", ".non_ema.safetensors", ".bin", ".msgpack"}
        files += [f"{part}/{stem}{form}" for form in forms if (part, form) not in changes]

    def snapshot_download(repository, allow_patterns, ignore_patterns):
        for name in filter_repo_objects(files, allow_patterns=allow_patterns, ignore_patterns=ignore_patterns):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).touch()
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    assert hub.download("someone/edits") == tmp_path
    assert (tmp_path / "scheduler/scheduler_config.json").exists()
    for part, forms in fetched.items():
        weights = [
            path.name.removeprefix(stems[part]) for path in (tmp_path / part).iterdir() if path.suffix != ".json"
        ]
        assert sorted(weights) == forms


def test_an_unknown_model_is_named():
    for model in ("nosuch", "./no/such/folder", "no/such.safetensors"):
        with pytest.raises(ModelError, match="neither 'pocket', nor a file or folder, nor a hub id") as caught:
            checkpoints.load(model)
        assert repr(model) in str(caught.value)


# Single files. Group norms have 32 groups in them all, so widths are multiples of 32.


@pytest.fixture(scope="module", params=["version 1", "version 2"])
def original(request, tmp_path_factory):
    """A pipeline's parts at single-file sizes, and their tensors under the original's names, with an EMA."""
    second = request.param == "version 2"
    path = tmp_path_factory.mktemp("original")
    pipe = tiny.pipeline(path)
    torch.manual_seed(3)
    config = CLIPTextConfig.from_dict(
        pipe.text_encoder.config.to_dict()
        | {"hidden_size": 64, "num_attention_heads": 1, "hidden_act": "gelu" if second else "quick_gelu"}
    )
    pipe.text_encoder = CLIPTextModel(config).eval()
    settings = dict(
        block_out_channels=(32, 64, 64),
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=2,
        cross_attention_dim=64,
        norm_num_groups=32,
        attention_head_dim=(1, 1, 1) if second else 8,
        use_linear_projection=second,
    )
    raw, pipe.unet = tiny.unet(seed=4, **settings), tiny.unet(seed=5, **settings)
    torch.manual_seed(6)
    pipe.vae = (
        type(pipe.vae)
        .from_config(
            {**pipe.vae.config, "block_out_channels": (32, 64), "norm_num_groups": 32, "scaling_factor": 0.18215}
        )
        .eval()
    )
    text = original_names.open_clip(pipe.text_encoder) if second else original_names.clip(pipe.text_encoder)
    return pipe, raw, original_names.single_file(raw, pipe.vae, text, average=pipe.unet), path / "tokenizer_source"


def test_a_single_file_loads_its_moving_average(original, tmp_path):
    pipe, _, tensors, tokenizer = original
    save_file(tensors, tmp_path / "model.safetensors")
    checkpoint = checkpoints.load(tmp_path / "model.safetensors", tokenizer=tokenizer)
    assert_same(checkpoint, pipe)
    for key in ("attention_head_dim", "use_linear_projection", "block_out_channels", "down_block_types", "in_channels"):
        theirs = pipe.unet.config[key]
        assert checkpoint.unet_config[key] == (list(theirs) if isinstance(theirs, tuple) else theirs), key
    assert checkpoint.vae.config.scaling_factor == 0.18215
    assert checkpoint.scheduler_config["prediction_type"] == "epsilon"


def test_a_ckpt_without_average_loads_its_weights(original, tmp_path):
    _, raw, tensors, tokenizer = original
    tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith("model_ema.")}
    torch.save({"state_dict": tensors, "global_step": 22000}, tmp_path / "model.ckpt")
    checkpoint = checkpoints.load(tmp_path / "model.ckpt", tokenizer=tokenizer)
    assert all(torch.equal(checkpoint.unet_state[name], tensor) for name, tensor in raw.state_dict().items())
    assert checkpoint.unet_state.keys() == raw.state_dict().keys()


def without(prefix):
    return lambda tensors: {name: tensor for name, tensor in tensors.items() if not name.startswith(prefix)}


def with_four_channels(tensors):
    name = "model.diffusion_model.input_blocks.0.0.weight"
    return tensors | {name: tensors[name][:, :4].contiguous()}


@pytest.mark.parametrize(
    "change, reason",
    [
        (without("model.diffusion_model."), "holds no UNet"),
        (without("first_stage_model."), "holds no VAE"),
        (without("cond_stage_model."), "holds no text encoder"),
        (without("first_stage_model.decoder.conv_out.bias"), "VAE lacks 1 tensors: decoder.conv_out.bias"),
        (without("model.diffusion_model.middle_block.1.proj_in"), "another architecture"),
        (without("model_ema.diffusion_modelout2bias"), "moving average .* lacks model.diffusion_model.out.2.bias"),
        (lambda t: t | {"model.diffusion_model.label_emb.0.weight": torch.ones(1)}, "lacks model.diff.*label_emb"),
        (lambda t: without("model_ema.")(t) | {"model.diffusion_model.label_emb.0.weight": torch.ones(1)}, "no Stable"),
        (with_four_channels, "text-to-image model.* takes 4 input channels.* InstructPix2Pix model needs 8"),
    ],
)
def test_a_single_file_that_is_no_edit_model_is_refused_with_the_reason(original, tmp_path, change, reason):
    _, _, tensors, tokenizer = original
    save_file(change(tensors), tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match=reason):
        checkpoints.load(tmp_path / "model.safetensors", tokenizer=tokenizer)


def test_four_channels_load_where_they_are_asked_for(original, tmp_path):
    _, _, tensors, tokenizer = original
    save_file(with_four_channels(without("model_ema.")(tensors)), tmp_path / "model.safetensors")
    checkpoint = checkpoints.load(tmp_path / "model.safetensors", tokenizer=tokenizer, in_channels=4)
    assert checkpoint.unet_state["conv_in.weight"].shape[1] == 4


def test_a_single_file_finds_a_tokenizer_beside_it_or_asks_for_one(original, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    save_file(original[2], tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match="no tokenizer of its own: put one .* or give tokenizer="):
        checkpoints.load(tmp_path / "model.safetensors")
    shutil.copytree(original[3], tmp_path / "tokenizer")
    assert_same(checkpoints.load(tmp_path / "model.safetensors"), original[0])


class Trap:
    """Would write a file if its pickle were run."""

    def __init__(self, path) -> None:
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("form", ["zip", "old"])
def test_a_pickle_that_wants_more_is_refused_and_not_run(tmp_path, form):
    content = {"state_dict": {"a": torch.ones(1)}, "callback": Trap(tmp_path / "ran")}
    torch.save(content, tmp_path / "model.ckpt", _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(ModelError, match="model.ckpt is refused: .*could run code"):
        checkpoints.load(tmp_path / "model.ckpt")
    assert not (tmp_path / "ran").exists()


# Damage.


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def rewritten(change):
    def rewrite(path):
        save_file(change(load_file(path)), path)

    return rewrite


@pytest.mark.parametrize(
    "name, damage, reason",
    [
        (SAMPLE, cut, "truncated or damaged"),
        (SAMPLE, lambda path: path.write_bytes(b""), "truncated or damaged"),
        (SAMPLE, lambda path: path.write_bytes(b"\xff" * 64 + path.read_bytes()[64:]), "truncated or damaged"),
        (SAMPLE, lambda path: path.unlink(), "unet holds no weights"),
        ("vae/diffusion_pytorch_model.safetensors", cut, "truncated or damaged"),
        ("text_encoder/model.safetensors", cut, "truncated or damaged"),
        (
            "vae/diffusion_pytorch_model.safetensors",
            rewritten(lambda t: t | {"more": torch.ones(1)}),
            "no place for: more",
        ),
        (
            "vae/diffusion_pytorch_model.safetensors",
            rewritten(lambda t: {n: v for n, v in t.items() if n != "encoder.conv_in.bias"}),
            "lacks 1 tensors: encoder.conv_in.bias",
        ),
        (
            "text_encoder/model.safetensors",
            rewritten(lambda t: {n: v[:5].clone() if n.endswith("fc1.bias") else v for n, v in t.items()}),
            r"fc1.bias has shape \[5\], its config says \[64\]",
        ),
        ("unet/config.json", lambda path: path.unlink(), "no such file"),
        ("unet/config.json", cut, "is damaged"),
        ("vae/config.json", lambda path: path.write_text("[]"), "is damaged: it holds a list"),
        ("scheduler/scheduler_config.json", lambda path: path.write_bytes(b"\xff\xfe"), "is damaged"),
        ("tokenizer/tokenizer_config.json", cut, "is damaged"),
    ],
)
def test_damage_is_named_in_one_line(copy, name, damage, reason):
    damage(copy / name)
    with pytest.raises(ModelError, match=reason) as caught:
        checkpoints.load(copy)
    assert str(copy) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("form", ["zip", "old"])
def test_a_truncated_pickle_is_named(copy, tiny_pipeline, form):
    (copy / SAMPLE).unlink()
    path = copy / "unet/diffusion_pytorch_model.bin"
    torch.save(tiny_pipeline.unet.state_dict(), path, _use_new_zipfile_serialization=form == "zip")
    cut(path)
    with pytest.raises(ModelError, match="diffusion_pytorch_model.bin is truncated or damaged"):
        checkpoints.load(copy)
    path.write_bytes(pickle.dumps([1, 2, 3], protocol=2))
    with pytest.raises(ModelError, match="diffusion_pytorch_model.bin is"):
        checkpoints.load(copy)


def test_an_index_may_not_point_outside_its_folder(copy):
    (copy / SAMPLE).rename(copy / "elsewhere.safetensors")
    (copy / f"{SAMPLE}.index.json").write_text(
        json.dumps({"weight_map": {"conv_in.weight": "../elsewhere.safetensors"}})
    )
    with pytest.raises(ModelError, match="points outside its folder"):
        checkpoints.load(copy)


def test_four_channels_in_a_folder_are_refused_with_the_reason(copy):
    config = json.loads((copy / "unet/config.json").read_text())
    (copy / "unet/config.json").write_text(json.dumps(config | {"in_channels": 4}))
    with pytest.raises(ModelError, match="text-to-image model.*give an InstructPix2Pix checkpoint"):
        checkpoints.load(copy)


def test_parts_of_different_models_are_refused(folder, tiny_pipeline):
    checkpoint = checkpoints.load(folder)
    other = replace(checkpoint, unet_config=checkpoint.unet_config | {"cross_attention_dim": 768})
    with pytest.raises(ModelError, match="UNet takes text of width 768, its text encoder gives 32"):
        checkpoints.require_agreement(other)


# Pipelines in memory.


def state_of(pipe):
    parts = (pipe.unet, pipe.vae, pipe.text_encoder)
    return {f"{i}.{name}": tensor.clone() for i, part in enumerate(parts) for name, tensor in part.state_dict().items()}


def assert_unchanged(pipe, before):
    after = state_of(pipe)
    assert after.keys() == before.keys() and all(torch.equal(after[name], before[name]) for name in before)


def test_a_pipeline_is_taken_over_and_left_as_it_was(tiny_pipeline):
    before = state_of(tiny_pipeline)
    checkpoint = checkpoints.from_pipeline(tiny_pipeline)
    assert_same(checkpoint, tiny_pipeline)
    checkpoint.vae.to(torch.float64)
    checkpoint.text_encoder.to(torch.float64)
    assert_unchanged(tiny_pipeline, before)


def test_a_pipeline_of_another_kind_is_refused(tmp_path):
    with pytest.raises(ModelError, match="text-to-image"):
        checkpoints.from_pipeline(tiny.pipeline(tmp_path, in_channels=4))
    with pytest.raises(ModelError, match="object without unet"):
        checkpoints.from_pipeline(object())


def test_textual_inversion_is_kept(tmp_path):
    pipe = tiny.pipeline(tmp_path)
    vectors = torch.randn(2, 32, generator=torch.Generator().manual_seed(0))
    pipe.load_textual_inversion({"<cat>": vectors}, token="<cat>")
    checkpoint = checkpoints.from_pipeline(pipe)
    text = "a <cat> by night"
    converted = pipe.maybe_convert_prompt(text, pipe.tokenizer)
    given = pipe.tokenizer(converted, padding="max_length", truncation=True, return_tensors="np").input_ids[0]
    ids = checkpoint.tokenizer.encode(text).ids
    np.testing.assert_array_equal(ids, given)
    embeddings = checkpoint.text_encoder.get_input_embeddings().weight
    assert embeddings.shape[0] == len(pipe.tokenizer)
    assert torch.equal(embeddings[ids[2:4]], vectors)


def lora(pipe, peft):
    """Random adapters on attention of the UNet and of the text encoder, as pipe.load_lora_weights leaves them."""
    for part, names in ((pipe.unet, ["to_q", "to_out.0", "conv1"]), (pipe.text_encoder, ["q_proj", "fc1"])):
        part.add_adapter(peft.LoraConfig(r=2, lora_alpha=3, target_modules=names, init_lora_weights=False), "first")


def test_lora_is_fused_and_the_pipeline_left_as_it_was(tmp_path):
    peft = pytest.importorskip("peft")
    pipe = tiny.pipeline(tmp_path)
    plain = checkpoints.from_pipeline(pipe)
    lora(pipe, peft)
    before = state_of(pipe)
    checkpoint = checkpoints.from_pipeline(pipe)
    assert_unchanged(pipe, before)
    assert checkpoint.unet_state.keys() == plain.unet_state.keys()
    name = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q.weight"
    assert not torch.equal(checkpoint.unet_state[name], plain.unet_state[name])

    given = pipe.tokenizer("a cat", padding="max_length", return_tensors="pt").input_ids
    context = pipe.text_encoder(given)[0]
    torch.testing.assert_close(checkpoint.text_encoder(given)[0], context)
    ours = tiny.unet()
    ours.load_state_dict(checkpoint.unet_state)
    latents = torch.randn(1, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(ours(latents, 500, context).sample, pipe.unet(latents, 500, context).sample)

    pipe.unet.fuse_lora()
    torch.testing.assert_close(checkpoints.from_pipeline(pipe).unet_state[name], checkpoint.unet_state[name])
    pipe.unet.unfuse_lora()
    pipe.unet.disable_adapters()
    torch.testing.assert_close(checkpoints.from_pipeline(pipe).unet_state[name], plain.unet_state[name])
