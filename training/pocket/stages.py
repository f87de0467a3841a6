"""The stages of the pocket training, in order: each reads what earlier ones wrote, and can be run or resumed alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from transformers import CLIPModel, CLIPTokenizer

from ip2p_fast.errors import BadInput
from ip2p_fast.model_files import read_json

from ..distill.student import FEW_STEPS
from .base import Captioned, encode_captions, train_base
from .clip import train_clip
from .data import Pairs, load_pairs, render_pairs
from .figures import clip_figures, reader_figures, vae_figures
from .loop import Run
from .parallel import join, rank, world
from .publish import (
    publish_base,
    publish_clip,
    publish_index,
    publish_student,
    publish_unet,
    publish_vae,
    student_folder,
    text_tower,
    writer_folder,
)
from .reader import load_reader, save_reader, train_reader
from .sizes import Size
from .student import WALK, train_few, train_student
from .tokenizer import build_tokenizer
from .unet import Latents, prepare_latents, train_unet
from .vae import train_decoder, train_vae
from .writer import train_writer

HELD_OUT = 1024
"""Held-out pairs rendered for the figures of the stages."""


@dataclass(frozen=True)
class Work:
    """Where a training lives. `runs` holds pictures and checkpoints, `model` receives the finished components.

    watch: called with (stage, share done, a line on how it goes).
    """

    size: Size
    runs: Path
    model: Path
    device: str = "cpu"
    seed: int = 0
    resume: bool = False
    minutes: float | None = None
    compile: bool = False
    watch: Callable[[str, float, str], None] = lambda stage, done, line: None

    def run(self, stage: str) -> Run:
        """The settings of one stage's loop."""

        def report(step: int, done: float, loss: float) -> None:
            if rank() == 0:
                self.watch(stage, done, f"step {step}, loss {loss:.4f}")

        return Run(
            checkpoint=self.runs / f"{self.size.name}-{stage}.pt",
            device=self.device,
            seed=self.seed,
            resume=self.resume,
            minutes=self.minutes,
            compile=self.compile,
            report=report,
        )


@dataclass(frozen=True)
class Route:
    """Stages by name, in order, and which of them run in several processes."""

    stages: Mapping[str, Callable[[Work], dict[str, float]]]
    parallel: tuple[str, ...]


def train_stage(stage: str, work: Work, route: Route | None = None) -> dict[str, float]:
    """Runs one stage of a route (RENDERED when None), publishes its component and returns its figures.

    Raises:
        BadInput: an unknown stage, or one whose predecessors have not been run.
    """
    route = route or RENDERED
    if stage not in route.stages:
        raise BadInput(f"there is no stage {stage!r}; choose one of {', '.join(route.stages)}")
    join()
    if world() > 1 and stage not in route.parallel:
        several = ", ".join(route.parallel)
        raise BadInput(f"stage {stage} runs in one process; start it without torchrun ({several} run in several)")
    return route.stages[stage](work)


def load_vae(folder: Path, device: str = "cpu") -> AutoencoderKL:
    """The published autoencoder as fp32, as are the two below."""
    return _component(folder, "vae", AutoencoderKL, device)


def load_unet(folder: Path, device: str = "cpu") -> UNet2DConditionModel:
    """The published UNet."""
    return _component(folder, "unet", UNet2DConditionModel, device)


def load_clip(folder: Path, device: str = "cpu") -> tuple[CLIPModel, CLIPTokenizer]:
    """The published CLIP and its tokenizer."""
    return _component(folder, "clip", CLIPModel, device), CLIPTokenizer.from_pretrained(folder / "tokenizer")


def load_latents(path: Path, stage: str) -> Latents:
    """What a stage wrote for the UNet's trainers.

    Raises:
        BadInput: it has not; the message names the stage.
    """
    return Latents(**_load(path, stage))


def _data(work: Work) -> dict[str, float]:
    size, done = work.size, 0

    def advance(pairs: int) -> None:
        nonlocal done
        done += pairs
        work.watch("data", min(1.0, done / (HELD_OUT + size.pairs)), f"{done} pairs")

    render_pairs(work.runs / "data", "held-out", size.pixels, HELD_OUT, advance)
    render_pairs(work.runs / "data", "train", size.pixels, size.pairs, advance)
    return {"pairs": float(size.pairs)}


def _vae(work: Work) -> dict[str, float]:
    vae = train_vae(work.size, _pairs(work), work.run("vae"))
    if rank() != 0:
        return {}
    publish_vae(vae, work.model)
    return vae_figures(load_vae(work.model, work.device), _held_out(work))


def _clip(work: Work) -> dict[str, float]:
    tokenizer = build_tokenizer()
    publish_clip(train_clip(work.size, _pairs(work), tokenizer, work.run("clip")), tokenizer, work.size, work.model)
    clip, tokenizer = load_clip(work.model, work.device)
    return clip_figures(clip, tokenizer, _held_out(work))


def _latents(work: Work) -> dict[str, float]:
    clip, tokenizer = load_clip(work.model, work.device)

    def advance(done: int, count: int) -> None:
        work.watch("latents", done / count, f"pair {done} of {count}")

    encoder, vae = text_tower(clip), load_vae(work.model, work.device)
    data = prepare_latents(_pairs(work), vae, encoder, tokenizer, work.seed, advance)
    torch.save(vars(data), _latents_file(work))
    return {"instructions": float(len(data.contexts))}


def _unet(work: Work) -> dict[str, float]:
    unet = train_unet(work.size, _load_latents(work), work.run("unet"))
    if rank() == 0:
        publish_unet(unet, work.model)
        publish_index(work.size, work.model)
    return {"unet_parameters": float(sum(p.numel() for p in unet.parameters()))}


def _decoder(work: Work) -> dict[str, float]:
    latents, vae = _load_latents(work).latents, load_vae(work.model, work.device)
    vae = train_decoder(work.size, vae, latents, _pairs(work), work.run("decoder"))
    if rank() != 0:
        return {}
    publish_vae(vae, work.model)
    return vae_figures(load_vae(work.model, work.device), _held_out(work))


def _reader(work: Work) -> dict[str, float]:
    vae = load_vae(work.model, work.device)
    reader = train_reader(work.size, _pairs(work), vae, work.run("reader"))
    if rank() != 0:
        return {}
    save_reader(reader, work.model / "reader")
    return reader_figures(load_reader(work.model / "reader", work.device), vae, _held_out(work))


def _captions(work: Work) -> dict[str, float]:
    clip, tokenizer = load_clip(work.model, work.device)

    def advance(done: int, count: int) -> None:
        work.watch("captions", done / count, f"caption {done} of {count}")

    contexts = encode_captions(_pairs(work), text_tower(clip), tokenizer, work.seed, advance)
    torch.save(contexts, _captions_file(work))
    return {"captions": float(len(contexts))}


def _base(work: Work) -> dict[str, float]:
    data, contexts = _load_latents(work), _load(_captions_file(work), "captions")
    unet = train_base(work.size, Captioned(data.latents, contexts, data.scale), work.run("base"))
    if rank() == 0:
        publish_base(unet, work.size, work.model)
    return {"base_parameters": float(sum(p.numel() for p in unet.parameters()))}


def _student(work: Work) -> dict[str, float]:
    teacher = load_unet(work.model, work.device)
    student = train_student(work.size, teacher, _load_latents(work), work.run("student"))
    if rank() == 0:
        publish_student(student, work.size, work.model)
    return {"student_parameters": float(sum(p.numel() for p in student.parameters()))}


def _few(work: Work) -> dict[str, float]:
    folder = student_folder(work.model)
    if not (folder / "unet" / "config.json").exists():
        raise BadInput(f"{folder} is not there: train it with `ip2p-fast train pocket student`")
    if FEW_STEPS in read_json(folder / "unet" / "config.json"):
        raise BadInput(
            f"{folder} is brought to few steps already: `ip2p-fast train pocket student --resume` writes again the "
            "student that it was made from"
        )
    student = train_few(work.size, load_unet(folder, work.device), _load_latents(work), work.run("few"))
    if rank() == 0:
        publish_student(student, work.size, work.model, few_steps=WALK.most)
    return {"few_parameters": float(sum(p.numel() for p in student.parameters()))}


def _writer(work: Work) -> dict[str, float]:
    return train_writer(work.size, work.run("writer"), writer_folder(work.model))


def _latents_file(work: Work) -> Path:
    return work.runs / f"{work.size.name}-latents.pt"


def _captions_file(work: Work) -> Path:
    return work.runs / f"{work.size.name}-captions.pt"


def _load_latents(work: Work) -> Latents:
    return load_latents(_latents_file(work), "latents")


def _load(path: Path, stage: str) -> Any:
    if not path.exists():
        raise BadInput(f"{path} is missing: run `ip2p-fast train pocket {stage}` first")
    # mapped: several processes share what they read
    return torch.load(path, weights_only=True, mmap=True)


def _pairs(work: Work) -> Pairs:
    return load_pairs(work.runs / "data", "train", work.size.pixels, work.size.pairs)


def _held_out(work: Work) -> Pairs:
    return load_pairs(work.runs / "data", "held-out", work.size.pixels, HELD_OUT)


def _component(folder: Path, name: str, kind: Any, device: str) -> Any:
    if not (folder / name / "config.json").exists():
        raise BadInput(f"{folder / name} is not there: train it with `ip2p-fast train pocket {name}`")
    return kind.from_pretrained(folder / name, torch_dtype=torch.float32).to(device).eval()


RENDERED = Route(
    {
        "data": _data,
        "vae": _vae,
        "clip": _clip,
        "latents": _latents,
        "unet": _unet,
        "decoder": _decoder,
        "reader": _reader,
        "captions": _captions,
        "base": _base,
        "student": _student,
        "few": _few,
        "writer": _writer,
    },
    parallel=("vae", "unet", "decoder", "reader", "base", "student", "few"),
)
"""The stages that learn from rendered pictures."""
