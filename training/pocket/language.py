"""The world in words: captions of scenes and instructions for edits, each in many phrasings.

A caption is a sentence form with one phrase a slot. Within a slot no two values share a phrase, so a caption says its
scene exactly and `parse_caption` can read it back. The first form and the first phrase of a value are canonical.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import SequenceMatcher
from functools import lru_cache
from itertools import product

import numpy as np

from ip2p_fast.errors import BadInput

from . import phrases
from .scene import ATTRIBUTES, NONE, NOTHING, Edit, Scene


def caption(scene: Scene, rng: np.random.Generator | None = None) -> str:
    """A sentence that says all of a scene; the canonical one when `rng` is None."""
    form = _pick(_forms(scene), rng)
    slots = {
        slot: _pick(values[getattr(scene, slot)], rng)
        for slot, values in phrases.PHRASES.items()
        if not (scene.empty and slot == "position")
    }
    return form.format(subject=_counted(scene), **slots)


def instruction(scene: Scene, edit: Edit, rng: np.random.Generator | None = None) -> str:
    """What to say so that `scene` becomes `edit.scene`; the canonical phrasing when `rng` is None."""
    after = edit.scene
    if edit.kind in phrases.SCENE_INSTRUCTIONS:
        return _pick(phrases.SCENE_INSTRUCTIONS[edit.kind][getattr(after, edit.kind)], rng)
    if edit.kind == "count":
        return _count_instruction(scene, after, rng)
    words = {"at": "", "to": ""}
    if not after.empty:
        words = {
            "at": _pick(phrases.AT_PLACE[after.position], rng),
            "to": _pick(phrases.TO_PLACE[after.position], rng),
        }
    if edit.kind == "add":
        return _pick(phrases.ADD_INSTRUCTIONS, rng).format(new=_counted(after), **words)
    if edit.kind == "remove":
        return _pick(phrases.REMOVE_INSTRUCTIONS, rng).format(it=_mention(scene, rng))
    forms = {
        "subject": phrases.SUBJECT_INSTRUCTIONS,
        "colour": phrases.COLOUR_INSTRUCTIONS,
        "position": phrases.POSITION_INSTRUCTIONS,
    }[edit.kind]
    words["new"] = after.colour if edit.kind == "colour" else _plain(after)
    return _pick(forms, rng).format(it=_mention(scene, rng), them="it" if scene.count == 1 else "them", **words)


def parse_caption(text: str) -> Scene:
    """The scene that a caption says: the inverse of `caption` in every phrasing.

    Raises:
        BadInput: a text that `caption` cannot have written.
    """
    return _scene_from_slots(_form_and_slots(text)[1])


def edited_caption(text: str, after: Scene, rng: np.random.Generator | None = None) -> str:
    """A caption of `after` that keeps every word of `text` that still holds, as Prompt-to-Prompt needs it.

    The sentence form stays, and so do the phrases of all values that `after` shares with the scene of `text`; the
    others get the canonical phrase, or any when `rng` is given. Where a subject comes or goes, the form is the one of
    the other table that changes least.

    Raises:
        BadInput: a text that is no caption.
    """
    form, said = _form_and_slots(text)
    before = _scene_from_slots(said)
    slots = {
        slot: said[slot] if value == getattr(before, slot) else _pick(phrases.PHRASES[slot][value], rng)
        for slot, value in ((slot, getattr(after, slot)) for slot in phrases.PHRASES)
        if value in phrases.PHRASES[slot]
    }
    slots["subject"] = _counted(after)
    if before.empty == after.empty:
        return form.format(**slots)
    candidates = [form.format(**slots) for form in _forms(after)]
    return max(candidates, key=lambda candidate: SequenceMatcher(None, text.split(), candidate.split()).ratio())


def vocabulary() -> list[str]:
    """Sentences that together hold every word and phrase of the world, to train a tokenizer on."""
    rng = np.random.default_rng(0)
    texts = [phrase for values in phrases.PHRASES.values() for options in values.values() for phrase in options]
    texts += [text for kind in phrases.SCENE_INSTRUCTIONS.values() for options in kind.values() for text in options]
    subjects, colours = _values("subject"), _values("colour")
    for subject, colour, count in product(subjects, colours, (1, 2, 3)):
        scene = Scene("meadow", "day", "clear", subject, colour, count, "left", "render")
        texts += [_counted(scene), _plain(scene), f"the {colour} {_noun(scene)}"]
    places = [
        place for table in (phrases.AT_PLACE, phrases.TO_PLACE) for options in table.values() for place in options
    ]
    forms = [
        *phrases.CAPTIONS,
        *phrases.CAPTIONS_OF_EMPTY_SCENES,
        *phrases.SUBJECT_INSTRUCTIONS,
        *phrases.COLOUR_INSTRUCTIONS,
        *phrases.POSITION_INSTRUCTIONS,
        *phrases.COUNT_INSTRUCTIONS,
        *phrases.ONE_MORE_INSTRUCTIONS,
        *phrases.ONE_LESS_INSTRUCTIONS,
        *phrases.ADD_INSTRUCTIONS,
        *phrases.REMOVE_INSTRUCTIONS,
    ]
    for form in forms:
        slots = re.findall(r"{(\w+)}", form)
        for _ in range(4):
            texts.append(form.format(**{slot: _sample_of_slot(slot, rng) for slot in slots}))
    return texts + places


def _count_instruction(scene: Scene, after: Scene, rng: np.random.Generator | None) -> str:
    forms: Sequence[str] = phrases.COUNT_INSTRUCTIONS
    if after.count == scene.count + 1:
        forms = (*forms, *phrases.ONE_MORE_INSTRUCTIONS)
    elif after.count == scene.count - 1:
        forms = (*forms, *phrases.ONE_LESS_INSTRUCTIONS)
    return _pick(forms, rng).format(
        number=phrases.NUMBERS[after.count],
        kind=_noun(after),
        singular=after.subject,
        plural=f"{after.subject}s",
        ordinal=phrases.ORDINALS.get(after.count, ""),
    )


def _noun(scene: Scene) -> str:
    return scene.subject if scene.count == 1 else f"{scene.subject}s"


def _plain(scene: Scene) -> str:
    """The subject without its colour: "a cat", "two cats"."""
    return f"{'a' if scene.count == 1 else phrases.NUMBERS[scene.count]} {_noun(scene)}"


def _counted(scene: Scene) -> str:
    """The subject as a caption has it: "a red cat", "two red cats"; empty for nothing."""
    if scene.empty:
        return ""
    return f"{'a' if scene.count == 1 else phrases.NUMBERS[scene.count]} {scene.colour} {_noun(scene)}"


def _mention(scene: Scene, rng: np.random.Generator | None) -> str:
    """The subject as something known: "the cats", or at times "the red cats"."""
    return _pick((f"the {_noun(scene)}", f"the {scene.colour} {_noun(scene)}"), rng)


def _pick(options: Sequence[str], rng: np.random.Generator | None) -> str:
    return options[0 if rng is None else int(rng.integers(len(options)))]


def _values(attribute: str) -> list[str]:
    return [value for value in ATTRIBUTES[attribute] if value not in (NOTHING, NONE, "0")]


def _forms(scene: Scene) -> tuple[str, ...]:
    return phrases.CAPTIONS_OF_EMPTY_SCENES if scene.empty else phrases.CAPTIONS


def _form_and_slots(text: str) -> tuple[str, dict[str, str]]:
    for form, pattern in _caption_patterns().items():
        found = pattern.fullmatch(text)
        if found:
            return form, found.groupdict()
    raise BadInput(f"not a caption of the pocket world: {text!r}; captions read like {caption(_EXAMPLE)!r}")


@lru_cache(maxsize=1)
def _caption_patterns() -> dict[str, re.Pattern[str]]:
    """Sentence form -> what matches its captions, with a group a slot."""
    slots = {
        slot: _any_of([phrase for options in values.values() for phrase in options])
        for slot, values in phrases.PHRASES.items()
    }
    number = _any_of(["a", *phrases.NUMBERS.values()])
    slots["subject"] = f"{number} {_any_of(_values('colour'))} {_any_of(_values('subject'))}s?"
    named = {slot: f"(?P<{slot}>{pattern})" for slot, pattern in slots.items()}
    forms = (*phrases.CAPTIONS, *phrases.CAPTIONS_OF_EMPTY_SCENES)
    return {form: re.compile(form.format(**named)) for form in forms}


def _any_of(options: Sequence[str]) -> str:
    # Longest first: a phrase may begin with another.
    return "(?:" + "|".join(re.escape(option) for option in sorted(options, key=len, reverse=True)) + ")"


def _scene_from_slots(slots: dict[str, str]) -> Scene:
    said = {slot: _said_value(slot, slots[slot]) for slot in phrases.PHRASES if slot in slots}
    if "subject" not in slots:
        return Scene(**said, subject=NOTHING, colour=NONE, count=0, position=NONE)
    number, colour, noun = slots["subject"].split(" ")
    count = next((n for n, word in phrases.NUMBERS.items() if word == number), 1)
    scene = Scene(**said, subject=noun.removesuffix("s"), colour=colour, count=count)
    if _counted(scene) != slots["subject"]:
        raise BadInput(f"not a caption of the pocket world: it says {slots['subject']!r} for {_counted(scene)!r}")
    return scene


def _said_value(slot: str, phrase: str) -> str:
    return next(value for value, options in phrases.PHRASES[slot].items() if phrase in options)


def _sample_of_slot(slot: str, rng: np.random.Generator) -> str:
    if slot in phrases.PHRASES:
        options = [phrase for values in phrases.PHRASES[slot].values() for phrase in values]
        return _pick(options, rng)
    noun = _pick(_values("subject"), rng)
    return {
        "subject": f"a red {noun}",
        "it": f"the {noun}",
        "them": _pick(("it", "them"), rng),
        "new": f"a {noun}",
        "at": _pick([place for options in phrases.AT_PLACE.values() for place in options], rng),
        "to": _pick([place for options in phrases.TO_PLACE.values() for place in options], rng),
        "number": _pick(list(phrases.NUMBERS.values()), rng),
        "kind": f"{noun}s",
        "singular": noun,
        "plural": f"{noun}s",
        "ordinal": _pick(list(phrases.ORDINALS.values()), rng),
    }[slot]


_EXAMPLE = Scene("meadow", "day", "clear", "cat", "red", 1, "left", "render")
