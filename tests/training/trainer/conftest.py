import pytest
from trainer_cases import records

from ip2p_fast.training.dataset.forms.shards import write_shards


@pytest.fixture(scope="session")
def base_model(tmp_path_factory):
    """The folder of a small text-to-image model."""
    import tiny

    folder = tmp_path_factory.mktemp("models") / "base"
    tiny.text_to_image(folder.parent / "source").save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def shards(tmp_path_factory):
    """A folder of six shards with 40 pairs."""
    folder = tmp_path_factory.mktemp("data") / "shards"
    write_shards(records(), folder, 7)
    return str(folder)


@pytest.fixture
def parts(base_model):
    from ip2p_fast.training.trainer.parts import load_parts

    return load_parts(base_model)
