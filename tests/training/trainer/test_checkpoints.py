"""Checkpoints on the disk: whole or not there, and found again."""

import os
import resource
import signal

import pytest
import torch

from ip2p_fast.errors import BadInput
from ip2p_fast.training.trainer import checkpoints


def test_resume_auto_begins_anew_where_there_is_no_checkpoint(tmp_path):
    assert checkpoints.to_resume(tmp_path / "none", "auto") is None
    with pytest.raises(BadInput, match="is no checkpoint: give auto"):
        checkpoints.to_resume(tmp_path, str(tmp_path))


def test_a_disk_that_is_full_leaves_the_earlier_checkpoint_whole(tmp_path, monkeypatch):
    state = {"weights": {"a": torch.ones(1000)}}
    checkpoints.save_checkpoint(tmp_path, 1, {}, state, keep=1)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # so that writing fails as on a full disk
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        with pytest.raises(BadInput, match="cannot write .*step-00000002"):
            checkpoints.save_checkpoint(tmp_path, 2, {}, state, keep=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
    torch.testing.assert_close(checkpoints.read_state(tmp_path / "step-00000001")["weights"]["a"], torch.ones(1000))


def test_a_damaged_checkpoint_is_refused_by_name(tmp_path):
    path = checkpoints.save_checkpoint(tmp_path, 1, {}, {"weights": {"a": torch.ones(1000)}}, keep=1)
    os.truncate(path / "state.pt", 100)
    with pytest.raises(BadInput, match="state.pt is damaged"):
        checkpoints.read_state(path)
