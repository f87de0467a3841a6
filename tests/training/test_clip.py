"""What the CLIP's readers are asked for."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from ip2p_fast.training.pocket.clip import UNSAID, instruction_targets, reading_loss
from ip2p_fast.training.pocket.scene import ATTRIBUTES, Edit, Scene
from ip2p_fast.training.pocket.split import KINDS

SCENE = Scene("meadow", "day", "clear", "cat", "red", 2, "left", "render")
EMPTY = Scene("meadow", "day", "clear", "nothing", "none", 0, "none", "render")
VALUES = sum(map(len, ATTRIBUTES.values()))


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (Edit("time", Scene("meadow", "night", "clear", "cat", "red", 2, "left", "render")), {"time"}),
        (Edit("count", Scene("meadow", "day", "clear", "cat", "red", 3, "left", "render")), {"count"}),
        (Edit("remove", EMPTY), {"subject", "colour", "count", "position"}),
    ],
)
def test_an_instruction_is_asked_for_what_it_changes_and_for_its_kind(edit, said):
    *values, kind = instruction_targets(SCENE, edit)
    assert KINDS[kind] == edit.kind
    assert {name for name, value in zip(ATTRIBUTES, values, strict=True) if value != UNSAID} == said
    assert all(value in (UNSAID, edit.scene.labels()[name]) for name, value in zip(ATTRIBUTES, values, strict=True))


@pytest.mark.parametrize("with_kind", [False, True])
def test_the_reading_loss_is_the_mean_over_what_there_is_to_read(with_kind):
    rng = torch.Generator().manual_seed(0)
    heads = len(ATTRIBUTES) + with_kind
    logits = torch.randn(5, VALUES + with_kind * len(KINDS), generator=rng)
    values = torch.zeros(5, heads, dtype=torch.long)
    values[1:, 2] = UNSAID
    sizes = [*map(len, ATTRIBUTES.values()), len(KINDS)][:heads]
    expected = [
        functional.cross_entropy(part[i : i + 1], values[i : i + 1, head]).item()
        for head, part in enumerate(logits.split(sizes, dim=1))
        for i in range(5)
        if values[i, head] != UNSAID
    ]
    assert len(expected) == 5 * heads - 4
    assert reading_loss(logits, values).item() == pytest.approx(np.mean(expected), rel=1e-5)
