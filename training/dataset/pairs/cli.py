"""`ip2p-fast dataset pairs` and `dataset calibrate`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ip2p_fast.errors import BadInput

from ...cli import progress
from ..options import assigned, guidance_of, number, number_range, picture_size, span, word_spans

_JSON = typer.Option("--json", help="Print one JSON object and nothing else.")
_DRAWING, _CHOICE, _CONTROL = "Drawing", "Choosing", "Attention to the text (Hertz et al. 2022)"
_FORMS = ("webdataset", "folder", "parquet")


def pairs(
    source: Annotated[Path, typer.Argument(help="Triplets: JSON lines with caption (or input), edit, output.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder of shards to make.")],
    base: Annotated[str, typer.Option(help="Text-to-image model: pocket-base, a folder, hub id or file.")],
    clip: Annotated[
        str | None,
        typer.Option(help="The CLIP that judges: a folder or hub id.", show_default="pocket for pocket-base"),
    ] = None,
    samples: Annotated[int, typer.Option(help="Drawn of a triplet.", rich_help_panel=_DRAWING)] = 100,
    steps: Annotated[int, typer.Option(rich_help_panel=_DRAWING)] = 100,
    sampler: Annotated[str, typer.Option(rich_help_panel=_DRAWING)] = "euler_a",
    size: Annotated[
        str | None, typer.Option(help="WIDTHxHEIGHT.", show_default="the model's", rich_help_panel=_DRAWING)
    ] = None,
    p: Annotated[
        str, typer.Option(help="From:to; share of the steps with the source's attention.", rich_help_panel=_DRAWING)
    ] = "0.1:0.9",
    cfg: Annotated[
        str | None,
        typer.Option(help="From:to; guidance.", show_default="the model's, else 7.5:15", rich_help_panel=_DRAWING),
    ] = None,
    self_replace_steps: Annotated[
        str | None,
        typer.Option(help="To, or from:to, as shares; in place of p.", show_default="p", rich_help_panel=_DRAWING),
    ] = None,
    control: Annotated[str, typer.Option(help="none, replace, refine or auto.", rich_help_panel=_CONTROL)] = "none",
    cross_replace_steps: Annotated[
        str, typer.Option(help="To or from:to, then WORD=to or WORD=from:to, with commas.", rich_help_panel=_CONTROL)
    ] = "0.8",
    reweight: Annotated[
        str, typer.Option(help="WORD=FACTOR, with commas: attention to it is multiplied.", rich_help_panel=_CONTROL)
    ] = "",
    blend: Annotated[
        str, typer.Option(help="Words, with commas: pictures differ only there.", rich_help_panel=_CONTROL)
    ] = "",
    blend_threshold: Annotated[float, typer.Option(rich_help_panel=_CONTROL)] = 0.3,
    blend_from: Annotated[float, typer.Option(help="Share of the steps.", rich_help_panel=_CONTROL)] = 0.2,
    text_image: Annotated[
        float | None, typer.Option(help="Least cosine.", show_default="the CLIP's", rich_help_panel=_CHOICE)
    ] = None,
    direction: Annotated[float | None, typer.Option(show_default="the CLIP's", rich_help_panel=_CHOICE)] = None,
    image: Annotated[float | None, typer.Option(show_default="the CLIP's", rich_help_panel=_CHOICE)] = None,
    most: Annotated[int | None, typer.Option(help="Kept of a triplet.", rich_help_panel=_CHOICE)] = None,
    no_filter: Annotated[
        bool, typer.Option("--no-filter", help="Keep the first samples, whatever CLIP says.", rich_help_panel=_CHOICE)
    ] = False,
    seed: Annotated[int, typer.Option(help="Of everything that is drawn.", min=0)] = 0,
    longest: Annotated[int, typer.Option(help="Characters of a caption.", min=1)] = 400,
    limit: Annotated[int | None, typer.Option(help="Lines of SOURCE to use.", show_default="all", min=1)] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at a line that is no triplet.")] = False,
    per_shard: Annotated[int, typer.Option(help="Records of a shard.", min=1)] = 1000,
    form: Annotated[
        str, typer.Option("--format", help="webdataset; folder and parquet are made of its shards, in OUT/FORMAT.")
    ] = "webdataset",
    at_once: Annotated[int, typer.Option(help="Pairs in flight.", min=1)] = 8,
    ray: Annotated[
        str | None, typer.Option(help="Make pairs on Ray: local, or a cluster's address.", show_default="here")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Of --ray.", show_default="one a device", min=1)] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where OUT stopped.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto",
    as_json: Annotated[bool, _JSON] = False,
) -> None:
    """Draw pictures before and after of each triplet, and keep the pairs that CLIP approves of."""
    from .generator import Drawing
    from .making import Choice, make_pairs, read_triplets
    from .pair_store import PairStore, whole_shards
    from .samples import Draws
    from .selection import thresholds_of
    from .text_control import Control
    from .workers import Recipe, maker, on_ray

    if form not in _FORMS:
        raise BadInput(f"there is no format {form!r}: choose one of {', '.join(_FORMS)}")
    if clip is None:
        if base != "pocket-base":
            raise BadInput("--clip is needed: pocket knows the pocket world alone; the paper's is ViT-L/14")
        clip = "pocket"
    if ray is None and workers is not None:
        raise BadInput("--workers belongs to --ray")
    cross, word_steps = word_spans(cross_replace_steps)
    drawing = Drawing(
        steps=steps,
        sampler=sampler,
        size=None if size is None else picture_size(size),
        self_steps=None if self_replace_steps is None else span("--self-replace-steps", self_replace_steps),
        control=Control(
            kind=control,
            steps=cross,
            word_steps=word_steps,
            weights={word: number("--reweight", value) for word, value in assigned("--reweight", reweight)},
            blend=tuple(word.strip() for word in blend.split(",") if word.strip()),
            threshold=blend_threshold,
            blend_from=blend_from,
        ),
        at_once=at_once,
    )
    given = {"text_image": text_image, "direction": direction, "image": image, "most": most}
    thresholds = {**vars(thresholds_of(clip)), **{name: value for name, value in given.items() if value is not None}}
    draws = Draws(samples, number_range("--p", p), number_range("--cfg", cfg) if cfg else guidance_of(base))
    choice = Choice(draws, type(thresholds_of(clip))(**thresholds), not no_filter, seed)
    recipe = Recipe(base, clip, drawing, choice, longest, device, dtype)
    settings = {"source": str(source), "limit": limit, **recipe.settings}

    lines = read_triplets(source)
    if limit is not None:
        lines = (line for line in lines if line.number < limit)
    with progress() as watch:
        make = maker(recipe) if ray is None else on_ray(recipe, ray, workers)

        def advance(inputs: int, counts: dict[str, int]) -> None:
            share = 0.0 if limit is None else inputs / limit
            watch("pairs", share, f"{inputs} triplets, {counts.get('samples kept', 0)} pairs kept")

        with PairStore(out, settings, per_shard, resume) as store:
            counts = make_pairs(lines, make, store, strict, advance)
    kept = sum(shard["records"] for shard in whole_shards(out))
    if form != "webdataset":
        _convert(out, form)
    _report(out, kept, counts, as_json)


def calibrate(
    out: Annotated[Path, typer.Option("--out", "-o", help="thresholds.json for the CLIP's folder.")],
    clip: Annotated[str, typer.Option(help="The CLIP that judges: pocket, a folder or hub id.")] = "pocket",
    count: Annotated[int, typer.Option(help="Held-out rendered pairs to measure.", min=20)] = 500,
    histogram: Annotated[Path | None, typer.Option(help="Draw the distributions here.")] = None,
) -> None:
    """Thresholds for a CLIP of the pocket world, from rendered pairs and from pictures that do not belong together."""
    from ip2p_fast.images import save_image

    from .calibration import draw_distributions, measure_known_pairs
    from .clip_scores import ClipScorer
    from .selection import calibrated

    true, unrelated = measure_known_pairs(ClipScorer(clip), count)
    thresholds = calibrated(true, unrelated)
    if histogram is not None:
        save_image(draw_distributions(true, unrelated, thresholds), histogram)
    out.write_text(json.dumps(asdict(thresholds), indent=2) + "\n", encoding="utf-8")
    print(f"{out}: {json.dumps(asdict(thresholds))}")


def controls(
    out: Annotated[Path, typer.Option("--out", "-o", help="The picture to write.")],
    base: Annotated[str, typer.Option(help="A text-to-image model of the pocket world.")] = "pocket-base",
    steps: Annotated[int, typer.Option(min=1)] = 25,
    cfg: Annotated[float, typer.Option(help="Guidance.")] = 3.0,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Draw every control of attention in one picture."""
    from ip2p_fast.images import save_image

    from .control_sheet import draw_controls
    from .generator import Drawing, PairGenerator

    save_image(draw_controls(PairGenerator.from_pretrained(base, Drawing(steps=steps)), cfg, seed), out)
    print(out)


def _convert(out: Path, form: str) -> None:
    """Writes the shards in another form beside them, unless an earlier run has done so."""
    from ..forms.formats import read_pairs, writer_for

    place = out / "parquet" / "pairs.parquet" if form == "parquet" else out / form
    if not place.exists():
        writer_for(place, form)(read_pairs(out), place)


def _report(out: Path, kept: int, counts: dict[str, int], as_json: bool) -> None:
    if as_json:
        print(json.dumps({"pairs": kept, **counts}))
        return
    print(f"{out}: {kept} pairs of {counts.get('done', 0)} triplets")
    for name, count in sorted(counts.items()):
        if count and name != "done":
            print(f"  {name:26} {count}")
