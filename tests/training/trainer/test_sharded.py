"""Weights divided among processes (FSDP 2, here on CPUs, where accelerate itself does not offer it)."""

import os
import subprocess
import sys

import pytest
import torch
from trainer_cases import free_port


def _one_process(model, out):
    """Two steps, then a state that other networks are given, which take a third step from there."""
    from accelerate.optimizer import AcceleratedOptimizer
    from torch.distributed.fsdp import fully_shard
    from trainer_cases import quick

    from ip2p_fast.training.trainer.loss import diffusion_loss
    from ip2p_fast.training.trainer.networks import Networks, accelerator_for
    from ip2p_fast.training.trainer.parts import load_parts
    from ip2p_fast.training.trainer.plan import random_batch

    recipe = quick(batch=2)
    accelerator = accelerator_for(recipe, None)
    sharded = accelerator.num_processes > 1

    def prepare(unet, optimizer):
        if sharded:
            fully_shard(unet.mid_block)
            fully_shard(unet)
        again = torch.optim.AdamW(unet.parameters(), lr=recipe.learning_rate)
        return unet, AcceleratedOptimizer(again, device_placement=False)

    accelerator.prepare = prepare
    parts = load_parts(model)
    torch.manual_seed(0)
    batch = random_batch(parts, recipe, torch.device("cpu"))
    networks = Networks(parts, recipe, accelerator)
    for step in range(3):
        if step == 2:
            others = Networks(load_parts(model), recipe, accelerator)
            state = networks.state()
            if accelerator.is_main_process:
                torch.save(state, f"{out}.state")
            accelerator.wait_for_everyone()
            others.restore(torch.load(f"{out}.state"))
            networks = others
        accelerator.backward(diffusion_loss(networks.unet, parts.schedule, batch, recipe))
        networks.optimizer.step()
        networks.optimizer.zero_grad()
        networks.average.update(step)
        assert networks.finite()
    if sharded:
        assert all(hasattr(parameter, "full_tensor") for parameter in networks.trained)
    averaged, state = networks.averaged(), networks.state()
    if accelerator.is_main_process:
        torch.save({"averaged": averaged, "weights": state["weights"]}, out)


@pytest.mark.slow
def test_divided_weights_give_the_checkpoint_and_the_model_of_whole_ones(base_model, tmp_path):
    for world in (1, 2):
        meeting = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
        processes = []
        for rank in range(world):
            place = meeting | {"RANK": str(rank), "LOCAL_RANK": str(rank)} if world > 1 else {}
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1", **place}
            command = [sys.executable, __file__, base_model, str(tmp_path / f"{world}.pt")]
            processes.append(subprocess.Popen(command, env=environment))
        assert [process.wait(240) for process in processes] == [0] * world
    whole, divided = (torch.load(tmp_path / f"{world}.pt") for world in (1, 2))
    for part in ("averaged", "weights"):
        assert whole[part].keys() == divided[part].keys()
        for name, tensor in whole[part].items():
            # AdamW makes of the last bits of a small gradient a change of a share of its step of 1e-3
            torch.testing.assert_close(divided[part][name], tensor, rtol=1e-3, atol=1e-5)


if __name__ == "__main__":
    _one_process(*sys.argv[1:])
