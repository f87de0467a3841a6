"""The words of the world: tables that `language` puts together.

Phrases of one slot differ between values, so that every sentence says one thing only. Canonical phrasings come first.
"""

from __future__ import annotations

NUMBERS = {1: "one", 2: "two", 3: "three"}
ORDINALS = {2: "second", 3: "third"}

PHRASES: dict[str, dict[str, tuple[str, ...]]] = {
    "setting": {
        "meadow": ("in a meadow", "in a green meadow", "in a meadow of flowers", "on the grass of a meadow"),
        "beach": ("on a beach", "on a sandy beach", "on the beach by the sea", "at the seaside"),
        "desert": ("in a desert", "in the desert", "in a desert with cacti", "on the sand of a desert"),
        "mountains": ("in the mountains", "in a mountain valley", "below high mountains", "before snowy peaks"),
        "city": ("in a city", "on a city street", "in the streets of a city", "before a city skyline"),
    },
    "time": {
        "day": ("by day", "in daylight", "during the day", "in the daytime"),
        "sunset": ("at sunset", "at dusk", "as the sun goes down", "in the evening light"),
        "night": ("at night", "by moonlight", "under the moon", "in the middle of the night"),
    },
    "weather": {
        "clear": ("in clear weather", "with a clear sky", "in fine weather", "under a clear sky"),
        "rain": ("in the rain", "with rain falling", "in rainy weather", "while it rains"),
        "snow": ("in the snow", "while it snows", "in snowy weather", "under falling snow"),
        "fog": ("in the fog", "in foggy weather", "in thick fog", "in thick mist"),
    },
    "position": {
        "left": ("on the left", "at the left", "on the left side", "to the left"),
        "middle": ("in the middle", "in the centre", "at the centre", "in the middle of the picture"),
        "right": ("on the right", "at the right", "on the right side", "to the right"),
    },
    "style": {
        "render": ("a clean render", "a digital illustration", "a vector drawing", "a flat illustration"),
        "watercolour": ("a watercolour", "a watercolour painting", "a soft watercolour", "an aquarelle"),
        "pencil sketch": ("a pencil sketch", "a coloured pencil drawing", "a pencil drawing", "a sketch in pencil"),
        "pixel art": ("pixel art", "a pixel art picture", "an 8-bit picture", "a retro game picture"),
    },
}
"""Slot of a caption -> value -> its phrases."""

CAPTIONS = (
    "{style} of {subject} {position}, {setting}, {time}, {weather}",
    "{style} of {subject} {setting}, {position}, {time}, {weather}",
    "{style} showing {subject} {position}, {time} and {weather}, {setting}",
    "{subject} {position}, {setting}, {time}, {weather}, as {style}",
    "{subject} {setting} {time}, {weather}, {position}, {style}",
    "{setting}, {time} and {weather}: {subject} {position}, {style}",
    "{time}, {weather}: {style} of {subject} {position}, {setting}",
)
CAPTIONS_OF_EMPTY_SCENES = (
    "{style} of an empty scene {setting}, {time}, {weather}",
    "{style} of nothing {setting}, {time}, {weather}",
    "an empty scene {setting}, {time} and {weather}, as {style}",
    "nothing but the view {setting} {time}, {weather}, {style}",
    "{time}, {weather}: {style} of nothing but the view {setting}",
)

# {it} is what stands there ("the cats", "the red cats"), {them} its pronoun, {new} the new value in words.
SUBJECT_INSTRUCTIONS = (
    "turn {it} into {new}",
    "replace {it} with {new}",
    "swap {it} for {new}",
    "change {it} to {new}",
    "make {it} {new} instead",
    "I want {new} instead of {it}",
    "put {new} in place of {it}",
    "let {it} become {new}",
)
COLOUR_INSTRUCTIONS = (
    "turn {it} {new}",
    "make {it} {new}",
    "paint {it} {new}",
    "colour {it} {new}",
    "change the colour of {it} to {new}",
    "give {it} a {new} colour",
    "I want {it} in {new}",
    "make {them} {new}",
)
POSITION_INSTRUCTIONS = (
    "move {it} {to}",
    "put {it} {at}",
    "shift {it} {to}",
    "place {it} {at}",
    "bring {it} {to}",
    "{it} should be {at}",
    "have {it} {at}",
    "move {them} {to}",
)
TO_PLACE = {
    "left": ("to the left", "to the left side", "over to the left"),
    "middle": ("to the middle", "to the centre", "into the middle"),
    "right": ("to the right", "to the right side", "over to the right"),
}
AT_PLACE = {
    "left": ("on the left", "on the left side"),
    "middle": ("in the middle", "in the centre"),
    "right": ("on the right", "on the right side"),
}

# {kind} is "cats" or, for one, "cat"; {more} is set only when one is added: "a second cat".
COUNT_INSTRUCTIONS = (
    "make it {number} {kind}",
    "show {number} {kind}",
    "there should be {number} {kind}",
    "change the number of {plural} to {number}",
    "I want {number} {kind}",
    "have exactly {number} {kind}",
)
ONE_MORE_INSTRUCTIONS = ("add a {ordinal} {singular}", "put in a {ordinal} {singular}", "add one more {singular}")
ONE_LESS_INSTRUCTIONS = ("remove one of the {plural}", "take away one {singular}", "make it one {singular} less")

ADD_INSTRUCTIONS = (
    "add {new} {at}",
    "put {new} {at}",
    "place {new} {at}",
    "draw {new} {at}",
    "there should be {new} {at}",
    "{at}, add {new}",
    "I want {new} {at}",
)
REMOVE_INSTRUCTIONS = (
    "remove {it}",
    "take {it} away",
    "erase {it}",
    "delete {it}",
    "get rid of {it}",
    "make {it} disappear",
    "leave out {it}",
    "empty the scene",
)

SCENE_INSTRUCTIONS: dict[str, dict[str, tuple[str, ...]]] = {
    "setting": {
        "meadow": (
            "make it a meadow",
            "move the scene to a meadow",
            "change the setting to a meadow",
            "set it in a meadow",
            "put a green meadow behind it",
            "turn the background into a meadow",
        ),
        "beach": (
            "make it a beach",
            "move the scene to the beach",
            "change the setting to a beach",
            "set it on a beach",
            "take it to the seaside",
            "turn the background into a beach",
        ),
        "desert": (
            "make it a desert",
            "move the scene to the desert",
            "change the setting to a desert",
            "set it in a desert",
            "put it among cacti in the desert",
            "turn the background into a desert",
        ),
        "mountains": (
            "make it mountains",
            "move the scene to the mountains",
            "change the setting to mountains",
            "set it in the mountains",
            "put high mountains behind it",
            "turn the background into mountains",
        ),
        "city": (
            "make it a city",
            "move the scene to a city",
            "change the setting to a city",
            "set it in a city",
            "put it on a city street",
            "turn the background into a city",
        ),
    },
    "time": {
        "day": (
            "make it day",
            "make it daytime",
            "turn it into day",
            "change the time to day",
            "let it be daylight",
            "show it by day",
        ),
        "sunset": (
            "make it sunset",
            "add a sunset",
            "turn it into a sunset",
            "change the time to sunset",
            "let the sun go down",
            "show it at sunset",
        ),
        "night": (
            "make it night",
            "make it night time",
            "turn it into night",
            "change the time to night",
            "let the moon come out",
            "show it at night",
        ),
    },
    "weather": {
        "clear": (
            "make the weather clear",
            "make it clear",
            "clear the sky",
            "change the weather to clear",
            "let the weather be fine",
            "give it a clear sky",
        ),
        "rain": (
            "make it rain",
            "add rain",
            "make it rainy",
            "change the weather to rain",
            "let it rain",
            "show it in the rain",
        ),
        "snow": (
            "make it snow",
            "add snow",
            "make it snowy",
            "change the weather to snow",
            "let it snow",
            "show it in the snow",
        ),
        "fog": (
            "make it foggy",
            "add fog",
            "cover it in fog",
            "change the weather to fog",
            "let the fog come in",
            "show it in the fog",
        ),
    },
    "style": {
        "render": (
            "make it a clean render",
            "turn it into a render",
            "change the style to a render",
            "make it a digital illustration",
            "draw it as a vector drawing",
            "render it cleanly",
        ),
        "watercolour": (
            "make it a watercolour",
            "turn it into a watercolour",
            "change the style to watercolour",
            "make it a watercolour painting",
            "paint it in watercolour",
            "have it as an aquarelle",
        ),
        "pencil sketch": (
            "make it a pencil sketch",
            "turn it into a pencil sketch",
            "change the style to pencil sketch",
            "make it a pencil drawing",
            "draw it in coloured pencil",
            "sketch it in pencil",
        ),
        "pixel art": (
            "make it pixel art",
            "turn it into pixel art",
            "change the style to pixel art",
            "make it an 8-bit picture",
            "draw it in pixels",
            "have it as a retro game picture",
        ),
    },
}
"""Kind of edit of the whole scene -> new value -> instructions."""
