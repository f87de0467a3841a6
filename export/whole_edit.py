"""edit.onnx: a whole edit as one graph, so that any language with an ONNX runtime makes it in one call.

It is written below as ONNX's own text, in which `bundle.NAME (...)` stands for another graph of the bundle; those are
put in its place, reading the same weights from the same files. What a step computes that no step changes, as the
texts' keys and values, is moved out of the loop.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import onnx
from onnx import parser

from ip2p_fast.bundle import EDIT, Graph, TensorSpec

_DOMAIN = "bundle"
_TEXT = """
<ir_version: {ir}, opset_import: ["" : {opset}, "bundle" : 1]>
edit (uint8[B, H, W, 3] pixels, int64[B, 2, {length}] ids, float[B, 1] text_guidance, float[B, 1] image_guidance,
      float[B, 1] start_scale, float[B, S] timesteps, float[B, S, 7] coefficients, float[B, N, {channels}, h, w] noise)
  => (uint8[B, H, W, 3] edited)
<float one = {{1.0}}, float none = {{0.0}}, int64[1] first = {{0}}, int64 zero = {{0}}, int64 next = {{1}},
 int64 two = {{2}}, int64 kinds = {{3}}, int64[1] flat = {{-1}}, int64[1] both = {{2}},
 int64[2] texts = {{-1, {length}}}, int64[4] beside = {{-1, 1, 1, 1}}>
{{
  each_ids = Reshape (ids, texts)
  contexts = bundle.text_encoder (each_ids)
  image_latents = bundle.vae_encoder (pixels)

{rows}
  unit = Gather <axis = 1> (noise, zero)
  scale = Reshape (start_scale, beside)
  x = Mul (unit, scale)
  edits = Shape <start = 0, end = 1> (x)
  sides = Shape <start = 1> (x)
  history_shape = Concat <axis = 0> (edits, both, sides)
  history = Expand (none, history_shape)
  steps_1 = Shape <start = 1> (timesteps)
  steps = Squeeze (steps_1, first)

  x_last, history_last = Loop <body = step (int64 i, bool go, float[B, {channels}, h, w] x_i,
      float[B, 2, {channels}, h, w] history_i)
      => (bool go_on, float[B, {channels}, h, w] x_next, float[B, 2, {channels}, h, w] history_next)
  {{
    timesteps_i = Gather <axis = 1> (timesteps, i)
    coefficients_i = Gather <axis = 1> (coefficients, i)
    after = Add (i, next)
    noise_i = Gather <axis = 1> (noise, after)
    x_next, history_next = bundle.guided_step (x_i, history_i, image_latents, contexts, edit, context, image_on, weight,
                                               timesteps_i, coefficients_i, noise_i{scales})
    go_on = Identity (go)
  }}> (steps, , x, history)

  edited = bundle.vae_decoder (x_last)
}}
"""
# Which rows are run: those whose weight is not zero, of s_T, s_I - s_T and 1 - s_I of every edit.
_ROWS = """\
  weight_image = Sub (image_guidance, text_guidance)
  weight_none = Sub (one, image_guidance)
  weights = Concat <axis = 1> (text_guidance, weight_image, weight_none)
  is_none = Equal (weights, none)
  is_some = Not (is_none)
  rows = NonZero (is_some)
  edit = Gather <axis = 0> (rows, zero)
  kind = Gather <axis = 0> (rows, next)
  edit_kinds = Mul (edit, kinds)
  place = Add (edit_kinds, kind)
  all_weights = Reshape (weights, flat)
  weight = Gather <axis = 0> (all_weights, place)
  image_on = Less (kind, two)
  is_text = Equal (kind, zero)
  text = Cast <to = 7> (is_text)
  edit_texts = Mul (edit, two)
  context = Add (edit_texts, text)
"""
# Of a distilled model: one an edit, which is told the scales.
_DISTILLED_ROWS = """\
  batch = Shape <end = 1> (text_guidance)
  edit_count = Squeeze (batch, first)
  edit = Range (zero, edit_count, next)
  weight = Expand (one, batch)
  none_of = Expand (zero, batch)
  image_on = Equal (none_of, zero)
  edit_texts = Mul (edit, two)
  context = Add (edit_texts, next)
  scales = Concat <axis = 1> (text_guidance, image_guidance)
"""


def whole_edit(graphs: Mapping[str, Graph]) -> Graph:
    """What edit.onnx takes and gives: of B edits alike in size and steps S, N = S + 1."""
    ids, x = graphs["text_encoder"].inputs["ids"], graphs["guided_step"].inputs["x"]
    pixels, one = TensorSpec("uint8", ("B", "H", "W", 3)), TensorSpec("float32", ("B", 1))
    return Graph(
        f"{EDIT}.onnx",
        tuple(dict.fromkeys(file for graph in graphs.values() for file in graph.weights)),
        inputs={
            "pixels": pixels,
            "ids": TensorSpec("int64", ("B", 2, ids.shape[1])),
            "text_guidance": one,
            "image_guidance": one,
            "start_scale": one,
            "timesteps": TensorSpec("float32", ("B", "S")),
            "coefficients": TensorSpec("float32", ("B", "S", 7)),
            "noise": TensorSpec("float32", ("B", "N", x.shape[1], "h", "w")),
        },
        outputs={"edited": pixels},
    )


def write_whole_edit(folder: Path, graphs: Mapping[str, Graph]) -> Graph:
    """Writes edit.onnx beside the graphs that it is made of; its weights are theirs."""
    parts = {name: onnx.load(folder / graph.file, load_external_data=False) for name, graph in graphs.items()}
    step = parts["guided_step"]
    whole, distilled = whole_edit(graphs), "scales" in graphs["guided_step"].inputs
    model = parser.parse_model(
        _TEXT.format(
            ir=step.ir_version,
            opset=next(entry.version for entry in step.opset_import if not entry.domain),
            length=whole.inputs["ids"].shape[2],
            channels=whole.inputs["noise"].shape[2],
            rows=_DISTILLED_ROWS if distilled else _ROWS,
            scales=", scales" if distilled else "",
        )
    )
    del model.opset_import[1]
    main: list[onnx.NodeProto] = []
    for node in model.graph.node:
        if node.domain == _DOMAIN:
            main += _spliced(node, parts[node.op_type].graph, model.graph)
            continue
        if node.op_type == "Loop":
            main += _splice_body(node.attribute[0].g, parts, model.graph)
        main.append(node)
    _replace(model.graph.node, main)
    onnx.save(model, folder / whole.file)
    return whole


def _splice_body(body: onnx.GraphProto, parts: Mapping[str, Any], main: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Puts graphs in their places in a loop's body; returns the nodes that need to run but once, before it."""
    varying, once, always = {value.name for value in body.input}, [], []
    for node in body.node:
        for part in _spliced(node, parts[node.op_type].graph, main) if node.domain == _DOMAIN else [node]:
            if varying.isdisjoint(part.input):
                once.append(part)
            else:
                always.append(part)
                varying.update(part.output)
    _replace(body.node, always)
    return once


def _spliced(call: onnx.NodeProto, graph: onnx.GraphProto, main: onnx.GraphProto) -> list[onnx.NodeProto]:
    """The graph's nodes under names of their own, its inputs and outputs named as the call's; weights go to `main`."""
    names = {value.name: argument for value, argument in zip(graph.input, call.input, strict=True)}
    names |= {value.name: result for value, result in zip(graph.output, call.output, strict=True)}

    def renamed(name: str) -> str:
        return names.get(name, f"{call.op_type}/{name}") if name else name

    for tensor in graph.initializer:
        kept = main.initializer.add()
        kept.CopyFrom(tensor)
        kept.name = renamed(tensor.name)
    nodes = []
    for original in graph.node:
        node = onnx.NodeProto()
        node.CopyFrom(original)
        node.name = f"{call.op_type}/{original.name}"
        _replace(node.input, [renamed(name) for name in original.input])
        _replace(node.output, [renamed(name) for name in original.output])
        nodes.append(node)
    return nodes


def _replace(repeated: Any, values: Iterable[Any]) -> None:
    del repeated[:]
    repeated.extend(values)
