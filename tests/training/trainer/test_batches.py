"""What a training sees: an order that no division changes, the same picture part for both, nothing broken."""

import io
import itertools
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from trainer_cases import quick, records

from ip2p_fast.errors import BadInput, ModelError
from ip2p_fast.training.dataset.forms.formats import writer_for
from ip2p_fast.training.dataset.forms.shards import write_shard, write_shards
from ip2p_fast.training.trainer import lanes
from ip2p_fast.training.trainer.batches import held_out_batches, load_parts, make_batches, merged
from ip2p_fast.training.trainer.cache import Cache, encode_part
from ip2p_fast.training.trainer.draws import Purpose, rng_of
from ip2p_fast.training.trainer.faults import Faults
from ip2p_fast.training.trainer.lanes import Lane, held_out, order_of
from ip2p_fast.training.trainer.pictures import pixels_of, shapes_of


def take(count, *arguments, **division):
    return list(itertools.islice(make_batches(*arguments, **division), count))


def by_place(batches):
    """Place in the stream -> what the sample is."""
    return {
        int(index): (batch.image[row], batch.target[row], batch.text[row])
        for batch in batches
        for row, index in enumerate(batch.indices)
    }


def same(a, b):
    assert a.keys() == b.keys()
    for index, sample in a.items():
        for ours, theirs in zip(sample, b[index], strict=True):
            # convolutions of other batch sizes differ in the last bits
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def epoch(order, number, count):
    lane = Lane(order, number, Faults())
    return [next(iter(lane.at(place).candidates())).key for place in range(count)]


def test_a_batch_is_latents_and_text_of_the_shapes_that_it_says(parts, shards):
    batch = take(1, [shards], parts, quick())[0]
    assert batch.image.shape == batch.target.shape == (4, 4, 8, 8) and batch.image.dtype == torch.float32
    assert batch.text.shape == (4, 77, 32) and batch.null.shape == (1, 77, 32)
    assert batch.indices.tolist() == [0, 1, 2, 3]


def test_the_image_is_the_unscaled_mode_and_the_target_is_scaled(parts, tmp_path):
    write_shard(records(1), tmp_path / "one.tar")
    recipe = quick(batch=1, zoom=1.0, flip=0.0, sampled_latents=False, held_out=0.0)
    batch = take(1, [str(tmp_path / "one.tar")], parts, recipe)[0]
    pixels = torch.from_numpy(pixels_of(records(1)[0], (16, 16), None)).permute(0, 3, 1, 2) / 127.5 - 1
    modes = parts.vae.encode(pixels).latent_dist.mode()
    torch.testing.assert_close(batch.image[0], modes[0])
    torch.testing.assert_close(batch.target[0], modes[1] * 0.7)


def test_two_processes_see_together_what_one_sees_alone(parts, shards):
    alone = by_place(take(4, [shards], parts, quick(batch=4)))
    divided = [take(4, [shards], parts, quick(batch=2), rank=rank, world=2) for rank in (0, 1)]
    same(by_place(itertools.chain(*divided)), alone)


def test_a_restored_stream_goes_on_where_it_stopped_for_any_number_of_processes(parts, shards):
    recipe = quick(batch=2)
    whole = by_place(take(12, [shards], parts, quick(batch=4)))
    states = []
    for rank in (0, 1):
        batches = make_batches([shards], parts, recipe, rank, 2)
        list(itertools.islice(batches, 9))
        states.append(batches.state())
    state = json.loads(json.dumps(merged(states)))
    batches = make_batches([shards], parts, quick(batch=4))
    batches.restore(state)
    same(by_place(itertools.islice(batches, 3)), {i: whole[i] for i in range(36, 48)})


def test_a_stream_between_two_batches_is_not_restored(parts, shards):
    batches = make_batches([shards], parts, quick(batch=4))
    with pytest.raises(BadInput, match="sample 6"):
        batches.restore({"position": 6, "marks": {}})


def test_a_lane_reads_all_its_records_once_an_epoch_each_time_in_another_order(shards):
    order = order_of([shards], quick(lanes=1, held_out=0.0))
    first, second = (epoch(order, 0, 80)[part] for part in (slice(40), slice(40, None)))
    assert set(first) == set(second) == {f"pair-{n}" for n in range(40)} and first != second


def test_a_process_reads_only_the_files_of_its_own_lanes(parts, shards, monkeypatch):
    opened, real = [], lanes.read_pairs
    monkeypatch.setattr(lanes, "read_pairs", lambda piece: opened.append(piece) or real(piece))
    recipe = quick(batch=2, held_out=0.0)
    of_each = []
    for rank in (0, 1):
        batches = make_batches([shards], parts, recipe, rank, 2)
        opened.clear()
        list(itertools.islice(batches, 1))
        of_each.append(set(opened))
    # four of six files, as each lane has begun with its first
    assert not of_each[0] & of_each[1] and len(of_each[0] | of_each[1]) >= 4


def test_lanes_divide_the_files(shards):
    order = order_of([shards], quick(lanes=4, held_out=0.0))
    assert order.lanes == 4  # of six files
    found = [set(epoch(order, lane, 7)) for lane in range(4)]
    assert all(not a & b for a, b in itertools.combinations(found, 2))


@pytest.mark.parametrize("form, name", [("folder", "set"), ("parquet", "set.parquet"), ("webdataset", "set.tar")])
def test_every_form_can_be_trained_on(parts, tmp_path, form, name):
    writer_for(tmp_path / name, form)(records(6), tmp_path / name)
    batch = take(1, [str(tmp_path / name)], parts, quick(held_out=0.0))[0]
    assert torch.isfinite(batch.target).all()


def test_several_sources_are_shuffled_together(tmp_path):
    for name, part in (("a.tar", slice(4)), ("b.tar", slice(4, 8))):
        write_shard(records(8)[part], tmp_path / name)
    order = order_of([str(tmp_path / "a.tar"), str(tmp_path / "b.tar")], quick(lanes=1, held_out=0.0))
    assert set(epoch(order, 0, 8)) == {f"pair-{n}" for n in range(8)}


def test_both_pictures_are_cropped_and_mirrored_alike():
    gradient = np.arange(32 * 24, dtype=np.uint32).reshape(24, 32) % 251
    file = io.BytesIO()
    Image.fromarray(np.stack([gradient] * 3, 2).astype(np.uint8)).save(file, "PNG")
    record = replace(records(1)[0], input_image=file.getvalue(), edited_image=file.getvalue())
    drawn = [pixels_of(record, (16, 16), rng_of(0, Purpose.AUGMENTATION, i), 1.5, 0.5) for i in range(8)]
    assert all(np.array_equal(*pair) for pair in drawn)
    assert len({pair.tobytes() for pair in drawn}) == 8


def test_a_picture_of_the_crops_size_stays_as_it_is():
    record = records(1)[0]
    pixels = pixels_of(record, (16, 16), rng_of(0, Purpose.AUGMENTATION, 0))
    np.testing.assert_array_equal(pixels[0], np.asarray(Image.open(io.BytesIO(record.input_image)).convert("RGB")))


def test_broken_records_are_named_and_the_next_takes_their_place(parts, tmp_path):
    broken = [replace(record, edited_image=b"no picture") if n == 3 else record for n, record in enumerate(records(8))]
    write_shard(broken, tmp_path / "set.tar")
    recipe = quick(held_out=0.0)
    batches = make_batches([str(tmp_path / "set.tar")], parts, recipe)
    with pytest.warns(UserWarning, match="skipped pair-3: edited picture"):
        found = list(itertools.islice(batches, 2))
    assert len(found) == 2 and list(batches.skipped) == ["pair-3"]
    with pytest.raises(BadInput, match="pair-3 cannot be used.*--strict"):
        take(2, [str(tmp_path / "set.tar")], parts, replace(recipe, strict=True))


def test_broken_and_empty_shards_are_named_and_skipped(parts, tmp_path):
    write_shards(records(12), tmp_path / "set", 4)
    shard = tmp_path / "set" / "000001.tar"
    os.truncate(shard, shard.stat().st_size // 2)
    (tmp_path / "set" / "000003.tar").write_bytes(bytes(1024))
    recipe = quick(lanes=1, held_out=0.0)
    batches = make_batches([str(tmp_path / "set")], parts, recipe)
    with pytest.warns(UserWarning, match="skipped"):
        list(itertools.islice(batches, 6))
    causes = {Path(name).name: cause for name, cause in batches.skipped.items()}
    assert "cut short" in causes["000001.tar"] and "holds no records" in causes["000003.tar"]
    with pytest.raises(BadInput, match="without --strict it would be skipped"):
        take(6, [str(tmp_path / "set")], parts, replace(recipe, strict=True))


def test_wrong_columns_are_refused_at_once_and_listed(parts, tmp_path):
    import pyarrow
    import pyarrow.parquet

    path = tmp_path / "set.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"before": [b""], "after": [b""]}), path)
    with pytest.raises(BadInput, match="has the columns before after; looked for original_prompt"):
        make_batches([str(path)], parts, quick())


def test_a_source_without_a_usable_record_is_refused(parts, tmp_path):
    broken = [replace(record, input_image=b"no picture") for record in records(3)]
    write_shard(broken, tmp_path / "set.tar")
    with pytest.warns(UserWarning), pytest.raises(BadInput, match="none of 3 records in a row can be used"):
        take(1, [str(tmp_path / "set.tar")], parts, quick(held_out=0.0))


def test_held_out_records_are_never_trained_on_and_always_the_same(parts, shards):
    recipe = quick(held_out=0.3)
    used, batches = held_out_batches([shards], parts, recipe)
    assert used and all(held_out(record, 0.3) for record in used)
    order = order_of([shards], replace(recipe, lanes=1))
    trained = set(epoch(order, 0, 40 - len(used)))
    assert not trained & {record.key for record in used} and len(trained) + len(used) == 40
    assert [i for batch in batches for i in batch.indices.tolist()] == list(range(len(used)))


def test_pairs_of_one_caption_are_not_divided_by_the_hold_out():
    siblings = [replace(records(1)[0], key=f"other-{n}") for n in range(20)]
    assert len({held_out(record, 0.5) for record in siblings}) == 1


def test_with_buckets_a_batch_has_the_one_shape_that_suits_its_pictures(parts, tmp_path):
    wide, tall = records(12, (32, 16)), records(12, (16, 32))
    mixed = [replace(r, key=f"mixed-{n}") for n, r in enumerate(itertools.chain(*zip(wide, tall, strict=True)))]
    write_shard(mixed, tmp_path / "set.tar")
    recipe = quick(buckets=True, held_out=0.0, buffer=24)
    batches = take(6, [str(tmp_path / "set.tar")], parts, recipe)
    shapes = sorted(tuple(batch.image.shape[2:]) for batch in batches)
    assert len(shapes) == 6 and {h > w for h, w in shapes} == {True, False}
    assert all(h * w <= 64 for h, w in shapes)
    divided = [take(3, [str(tmp_path / "set.tar")], parts, recipe, rank=r, world=2) for r in (0, 1)]
    same(by_place(itertools.chain(*divided)), by_place(batches))


def test_buckets_are_within_the_budget_and_an_aspect_of_two():
    shapes = shapes_of(256, 64)
    assert (256, 256) in shapes and (320, 192) in shapes and (192, 320) in shapes
    assert all(w * h <= 256**2 and 0.5 <= w / h <= 2 and not w % 64 and not h % 64 for w, h in shapes)


def test_a_resolution_that_the_model_cannot_take_is_refused_with_the_nearest(parts, shards):
    with pytest.raises(BadInput, match="resolution is 18: this model needs multiples of 4, as 16"):
        make_batches([shards], parts, quick(resolution=18))


def test_a_cache_gives_the_unaugmented_samples_each_once_an_epoch(parts, shards, tmp_path):
    recipe = quick(cache=str(tmp_path / "cache"), held_out=0.0)
    found = take(10, [shards], parts, recipe)
    plain = quick(lanes=1, zoom=1.0, flip=0.0, sampled_latents=False, held_out=0.0)
    targets = torch.cat([batch.target for batch in take(10, [shards], parts, plain)])
    cached = torch.cat([batch.target for batch in found])
    distances = torch.cdist(cached.flatten(1), targets.flatten(1)).min(1).values
    assert distances.max() < 0.02 and len({t.numpy().tobytes() for t in cached}) == 40  # half precision
    again = [take(5, [shards], parts, replace(recipe, batch=2), rank=r, world=2) for r in (0, 1)]
    same(by_place(itertools.chain(*again)), by_place(found[:5]))
    with pytest.raises(BadInput, match="was made with another held_out"):
        make_batches([shards], parts, replace(recipe, held_out=0.2))


def test_a_cache_that_two_processes_made_has_all_records(parts, shards, tmp_path):
    recipe = quick(cache=str(tmp_path / "cache"), held_out=0.0)
    order = order_of([shards], recipe)
    for rank in (1, 0):
        encode_part(tmp_path / "cache", order, parts, recipe, rank, 2, Faults())
    with pytest.raises(BadInput, match="was made with another parts"):
        encode_part(tmp_path / "cache", order, parts, recipe, 0, 3, Faults())
    found = Cache.made(order, parts, recipe, 0, 2, Faults()).batches(iter([list(range(40))]), {})
    (_, (image, _, _), _) = next(found)
    assert len({latents.numpy().tobytes() for latents in image}) == 40


def test_a_text_to_image_model_grows_by_channels_of_zeros_and_an_edit_model_is_kept(base_model, tiny_model):
    grown, kept = load_parts(base_model), load_parts(str(tiny_model))
    assert grown.grown and not kept.grown
    assert grown.unet.conv_in.weight.shape[1] == kept.unet.conv_in.weight.shape[1] == 8
    assert not grown.unet.conv_in.weight[:, 4:].any() and grown.unet.conv_in.weight[:, :4].all()
    assert kept.unet.conv_in.weight.all()


def test_a_distilled_model_is_refused(tiny_student):
    with pytest.raises(ModelError, match="is distilled"):
        load_parts(str(tiny_student))


def test_a_model_that_is_not_there_is_refused():
    with pytest.raises(ModelError, match="no folder in Hugging Face layout"):
        load_parts("nowhere")
