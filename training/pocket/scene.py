"""What a picture of the pocket world shows, and every way in which it can be edited.

A `Scene` is eight attributes. It says nothing of pixels (`render`) or of words (`language`): a trainer draws a scene
and an edit here, and has them drawn and told there.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np

from ip2p_fast.errors import BadInput

NOTHING = "nothing"
NONE = "none"

ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "setting": ("meadow", "beach", "desert", "mountains", "city"),
    "time": ("day", "sunset", "night"),
    "weather": ("clear", "rain", "snow", "fog"),
    "subject": ("house", "tree", "car", "cat", "balloon", "boat", NOTHING),
    "colour": ("red", "yellow", "green", "blue", "purple", "white", NONE),
    "count": ("0", "1", "2", "3"),
    "position": ("left", "middle", "right", NONE),
    "style": ("render", "watercolour", "pencil sketch", "pixel art"),
}
"""Attribute -> its values, in the order of a reader's classes."""

OF_THE_SUBJECT = ("subject", "colour", "count", "position")
"""Attributes that a scene without a subject does not have."""

_ABSENT = {"subject": NOTHING, "colour": NONE, "count": "0", "position": NONE}
_SHARE_OF_EMPTY_SCENES = 0.1


@dataclass(frozen=True)
class Scene:
    """One picture in words. `count` is 0 exactly when `subject` is "nothing" and colour and position are "none".

    Raises:
        BadInput: a value that its attribute lacks, or a subject in part only (such as a colour of nothing).
    """

    setting: str
    time: str
    weather: str
    subject: str
    colour: str
    count: int
    position: str
    style: str

    def __post_init__(self) -> None:
        for name, values in ATTRIBUTES.items():
            if str(getattr(self, name)) not in values:
                raise BadInput(f"a scene's {name} is one of {', '.join(values)}, not {getattr(self, name)!r}")
        absent = {name for name, value in _ABSENT.items() if str(getattr(self, name)) == value}
        if absent and absent != set(_ABSENT):
            raise BadInput(
                f"a scene has a subject with colour, count and position, or none of the four;"
                f" here {', '.join(sorted(absent))} is absent and the rest is not"
            )

    @property
    def empty(self) -> bool:
        """True when nothing stands in the setting."""
        return self.subject == NOTHING

    def labels(self) -> dict[str, int]:
        """Attribute -> index of its value in `ATTRIBUTES[attribute]`."""
        return {name: values.index(str(getattr(self, name))) for name, values in ATTRIBUTES.items()}


@dataclass(frozen=True)
class Edit:
    """A scene after one edit. `kind` is an attribute's name, "add" (a subject to an empty scene) or "remove" (all)."""

    kind: str
    scene: Scene


def scene_from_labels(labels: dict[str, int]) -> Scene:
    """The inverse of `Scene.labels`."""
    values = {name: ATTRIBUTES[name][index] for name, index in labels.items()}
    return Scene(**{**values, "count": int(values["count"])})  # type: ignore[arg-type]


def random_scene(rng: np.random.Generator) -> Scene:
    """A scene whose attributes are drawn uniformly; one in ten is without a subject."""
    empty = rng.random() < _SHARE_OF_EMPTY_SCENES
    values = {name: str(rng.choice(_present(name))) for name in ATTRIBUTES}
    if empty:
        values |= _ABSENT
    return Scene(**{**values, "count": int(values["count"])})  # type: ignore[arg-type]


def edits(scene: Scene) -> list[Edit]:
    """Every edit of one attribute, and each way to add a subject or to remove it; never the scene itself."""
    return [edit for kind in edit_kinds(scene) for edit in _edits_of_kind(scene, kind)]


def random_edit(scene: Scene, rng: np.random.Generator) -> Edit:
    """An edit of a kind drawn uniformly, to a value drawn uniformly: kinds of few values come as often as others."""
    candidates = _edits_of_kind(scene, str(rng.choice(edit_kinds(scene))))
    return candidates[int(rng.integers(len(candidates)))]


def edit_kinds(scene: Scene) -> list[str]:
    """Kinds of edit that this scene allows."""
    kinds = [field.name for field in fields(Scene) if not (scene.empty and field.name in OF_THE_SUBJECT)]
    return [*kinds, "add" if scene.empty else "remove"]


def _edits_of_kind(scene: Scene, kind: str) -> list[Edit]:
    if kind == "remove":
        return [Edit(kind, replace(scene, subject=NOTHING, colour=NONE, count=0, position=NONE))]
    if kind == "add":
        return [
            Edit(kind, replace(scene, subject=subject, colour=colour, count=int(count), position=position))
            for subject in _present("subject")
            for colour in _present("colour")
            for count in _present("count")
            for position in _present("position")
        ]
    others = [value for value in _present(kind) if value != str(getattr(scene, kind))]
    return [Edit(kind, _with(scene, kind, value)) for value in others]


def _with(scene: Scene, attribute: str, value: str) -> Scene:
    if attribute == "count":
        return replace(scene, count=int(value))
    return replace(scene, **{attribute: value})  # type: ignore[arg-type]


def _present(name: str) -> list[str]:
    return [value for value in ATTRIBUTES[name] if value != _ABSENT.get(name)]
