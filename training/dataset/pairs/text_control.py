"""Which of the source's attention to the text an edited picture takes over: replace, refine, reweight, local blend.

Hertz et al. 2022, section 3.2. Each is a matrix from the source's 77 tokens to the target's and a share that the target
keeps of its own, so one form (`sharing.TextControl`) serves all: P' = P_source M + P_own diag(own).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ip2p_fast.errors import BadInput
from ip2p_fast.sharing import LocalBlend, TextControl
from ip2p_fast.tokenizer import Tokenizer

Span = tuple[float, float]
"""From when to when, as shares of the steps: the first included, the last not."""

_WORD = re.compile(r"\w+(?:['’-]\w+)*|[^\w\s]+")
KINDS = ("none", "replace", "refine", "auto")


@dataclass(frozen=True)
class Control:
    """What is done to every pair, beside the sharing of self-attention.

    kind        none; replace: words in the same places exchange, for captions of as many words; refine: tokens common
                to both captions keep the source's attention; auto: replace where it can be, else refine
    steps       when it is done
    word_steps  when, for single words of the edited caption
    weights     words of the edited caption whose attention is multiplied
    blend       words of either caption, the only places where the pictures may differ
    threshold   share of the strongest attention to those words that makes a place theirs
    blend_from  share of the steps after which the latents are blended
    """

    kind: str = "none"
    steps: Span = (0.0, 0.8)
    word_steps: Mapping[str, Span] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=dict)
    blend: tuple[str, ...] = ()
    threshold: float = 0.3
    blend_from: float = 0.2

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise BadInput(f"there is no control {self.kind!r}: choose one of {', '.join(KINDS)}")
        for name, span in {"steps": self.steps, **self.word_steps}.items():
            require_span(name, span)
        if not (0 < self.threshold < 1 and 0 <= self.blend_from <= 1):
            raise BadInput(
                f"a blend's threshold is {self.threshold} and it begins at {self.blend_from}: shares of 1 are needed"
            )


def require_span(name: str, span: Span) -> None:
    """Raises BadInput unless the span lies in the steps."""
    if not 0 <= span[0] <= span[1] <= 1:
        raise BadInput(f"{name} from {span[0]:g} to {span[1]:g}: two shares from 0 to 1, the smaller first, are needed")


def text_controls(
    control: Control, tokenizer: Tokenizer, source: str, target: str, steps: int
) -> tuple[TextControl | None, ...]:
    """What is done to the target's maps at each step; () where nothing ever is.

    Raises:
        BadInput: `replace` for captions of different numbers of words.
    """
    if control.kind == "none" and not control.weights:
        return ()
    words = Words(tokenizer, source), Words(tokenizer, target)
    if control.kind == "refine" or (control.kind == "auto" and len(words[0].tokens) != len(words[1].tokens)):
        matrix, own = refinement(*words)
    elif control.kind == "none":
        matrix, own = np.zeros((tokenizer.length,) * 2, np.float32), np.ones(tokenizer.length, np.float32)
    else:
        matrix, own = replacement(*words), np.zeros(tokenizer.length, np.float32)
    weight = np.ones(tokenizer.length, np.float32)
    for word, value in control.weights.items():
        weight[words[1].of(word)] = value
    when = _when(control, words[1], steps)
    controls: dict[bytes, TextControl | None] = {bytes(tokenizer.length): None}
    for now in when:
        # P' = (P_source M + P_own own) weight where it is time, P_own elsewhere
        controls.setdefault(
            now.tobytes(), TextControl(matrix * (now * weight), np.where(now, own * weight, 1).astype(np.float32))
        )
    return tuple(controls[now.tobytes()] for now in when)


def local_blend(
    control: Control, tokenizer: Tokenizer, source: str, target: str, steps: int, downsampling: int
) -> LocalBlend | None:
    """The blend, or None where the captions have none of its words. downsampling: of the attention to look at."""
    chosen = []
    for caption in (source, target):
        words = Words(tokenizer, caption)
        mask = np.zeros(tokenizer.length, np.float32)
        for word in control.blend:
            mask[words.of(word)] = 1
        chosen.append(mask)
    if not (chosen[0].any() and chosen[1].any()):
        return None
    return LocalBlend(chosen[0], chosen[1], control.threshold, round(control.blend_from * steps), downsampling)


class Words:
    """A text's words and punctuation marks, and the places of their tokens among the tokenizer's 77."""

    def __init__(self, tokenizer: Tokenizer, text: str) -> None:
        encoding = tokenizer.backend.encode(text, add_special_tokens=False)
        room = tokenizer.length - 2
        self.length = tokenizer.length
        self.ids = encoding.ids[:room]
        self.names: list[str] = []
        self.tokens: list[list[int]] = []
        for word in _WORD.finditer(text):
            first, last = word.span()
            inside = [1 + i for i, (begin, _) in enumerate(encoding.offsets[:room]) if first <= begin < last]
            if inside:
                self.names.append(word.group())
                self.tokens.append(inside)

    @property
    def end(self) -> int:
        """The place of the end token; padding lies behind it."""
        return len(self.ids) + 1

    def of(self, word: str) -> list[int]:
        """The places of a word's tokens, wherever it stands."""
        wanted = word.casefold()
        return [
            token
            for name, tokens in zip(self.names, self.tokens, strict=True)
            if name.casefold() == wanted
            for token in tokens
        ]


def replacement(source: Words, target: Words) -> np.ndarray:
    """Word for word in order: [77, 77]. The attention to a word of other length is spread over its tokens evenly."""
    if len(source.tokens) != len(target.tokens):
        raise BadInput(
            f"words can be replaced only among captions of as many words: {' '.join(source.names)!r} has "
            f"{len(source.tokens)}, {' '.join(target.names)!r} has {len(target.tokens)}; choose refine or auto"
        )
    matrix = _ends(source, target)
    for theirs, ours in zip(source.tokens, target.tokens, strict=True):
        if len(theirs) == len(ours):
            matrix[theirs, ours] = 1
        else:
            matrix[np.ix_(theirs, ours)] = 1 / len(ours)
    return matrix


def refinement(source: Words, target: Words) -> tuple[np.ndarray, np.ndarray]:
    """Tokens of the longest common subsequence follow the source, the others keep their own: [77, 77] and [77]."""
    matrix, own = _ends(source, target), np.zeros(target.length, np.float32)
    own[1 : target.end] = 1
    for theirs, ours in _aligned(source.ids, target.ids):
        matrix[1 + theirs, 1 + ours] = 1
        own[1 + ours] = 0
    return matrix, own


def _ends(source: Words, target: Words) -> np.ndarray:
    """The matrix of the start token, and of the end token with the padding behind it."""
    matrix = np.zeros((source.length, target.length), np.float32)
    matrix[0, 0] = 1
    for place in range(source.end, source.length):
        # where the target has less padding, its last place takes the rest
        matrix[place, min(place - source.end + target.end, target.length - 1)] = 1
    return matrix


def _aligned(source: list[int], target: list[int]) -> list[tuple[int, int]]:
    """Pairs of equal tokens, the most there can be in order (a global alignment with gaps of no cost)."""
    best = np.zeros((len(source) + 1, len(target) + 1), np.int64)  # of what follows
    for i in reversed(range(len(source))):
        for j in reversed(range(len(target))):
            match = 1 + best[i + 1, j + 1] if source[i] == target[j] else 0
            best[i, j] = max(match, best[i + 1, j], best[i, j + 1])
    pairs, i, j = [], 0, 0
    while i < len(source) and j < len(target):
        if source[i] == target[j] and best[i, j] == 1 + best[i + 1, j + 1]:
            pairs.append((i, j))
            i, j = i + 1, j + 1
        elif best[i + 1, j] >= best[i, j + 1]:
            i += 1
        else:
            j += 1
    return pairs


def _when(control: Control, words: Words, steps: int) -> np.ndarray:
    """For each step and token whether it is time: bool [steps, 77]."""
    when = np.zeros((steps, words.length), bool)
    when[_steps(control.steps, steps)] = True
    for word, span in control.word_steps.items():
        tokens = words.of(word)
        when[:, tokens] = False
        when[_steps(span, steps), tokens] = True
    return when


def _steps(span: Span, steps: int) -> slice:
    return slice(int(span[0] * steps), int(span[1] * steps))
