"""What the page says: errors are one line, and the pocket model's examples are in its own language."""

import pytest

from ip2p_fast.app import words
from ip2p_fast.checkpoints import SHIPPED
from ip2p_fast.errors import BadInput, Cancelled, ModelError
from ip2p_fast.serving.tickets import EngineFailure, QueueFull, TooLate
from ip2p_fast.training.pocket.phrases import SCENE_INSTRUCTIONS


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (BadInput("steps is 0: at least\n 1 is needed"), "Steps is 0: at least 1 is needed."),
        (ModelError("gone"), "Gone."),
        (TooLate("too late!"), "Too late!"),
        (Cancelled("the edit was cancelled"), "Stopped."),
    ],
)
def test_an_error_is_one_sentence(error, line):
    assert words.told(error) == line


def test_a_full_queue_is_told_in_the_words_of_a_person():
    assert "try again in a moment" in words.told(QueueFull("9 edits wait and this request has 9"))


@pytest.mark.parametrize("error", [EngineFailure("/secret"), ValueError("/secret")])
def test_our_own_faults_keep_their_causes_in_the_log(error):
    assert "secret" not in words.told(error) and "log" in words.told(error)


def test_the_pocket_models_examples_are_sentences_it_was_trained_on():
    known = {text for kinds in SCENE_INSTRUCTIONS.values() for texts in kinds.values() for text in texts}
    assert set(words.POCKET_EXAMPLES) <= known


def test_the_models_of_the_package_are_known():
    class Shipped:
        model_path = str(SHIPPED["pocket-student"])

    class Other:
        model_path = "timbrooks/instruct-pix2pix"

    assert words.is_pocket(Shipped()) and not words.is_pocket(Other())
