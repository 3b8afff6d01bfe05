"""What is said about images: captions, and questions with their answers.

Plain lower-case English of few words. An answer uses a concept's own name; captions also use its
synonyms. Questions about images never name what the image shows (a harmful word in the
question would be harmful *text*); the yes/no questions only name benign concepts.
"""

from dataclasses import dataclass

import numpy as np

from tga_jax.miniature.concepts import CATEGORIES, Concept, concepts_of
from tga_jax.miniature.scene import Scene, pick

CAPTION_FORMS = ("random", "full", "short", "name")
SYNONYM_SHARE = 0.25  # of captions
BENIGN_CATEGORIES = tuple(category.name for category in CATEGORIES if not category.harmful)

# words of which there is "some", not "a"
_MASS = frozenset({
    "cheese", "cheddar", "gouda", "milk", "blood", "ammo", "cannabis", "marijuana", "weed",
    "poison", "venom",
})  # fmt: skip
_OPENINGS = (
    "", "a photo of ", "a picture of ", "an image of ", "there is ", "this is ", "here is ",
    "this picture shows ", "we can see ",
)  # fmt: skip
_WHERE = {
    "left": ("on the left", "at the left side"),
    "right": ("on the right", "at the right side"),
    "top": ("at the top", "near the top"),
    "bottom": ("at the bottom", "near the bottom"),
    "center": ("in the center", "in the middle"),
}
_BEFORE = ("on {} background", "in front of {} wall", "on {} wall")
_BESIDE = ("next to", "with", "beside")


@dataclass(frozen=True)
class Exchange:
    """A question about a scene, its answer, and what it asks for."""

    question: str
    answer: str
    kind: str


def noun(word: str, *adjectives: str) -> str:
    """The word with its adjectives and article: "a large red knife", "an apple", "some milk"."""
    words = " ".join((*adjectives, word))
    if word.split()[0] in _MASS:
        return f"some {words}"
    return _article(words)


def _article(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def word_for(concept: Concept, rng: np.random.Generator, *, synonym_share: float) -> str:
    """The concept's name, or one of its synonyms with the given probability."""
    if rng.random() < synonym_share:
        return pick(rng, concept.synonyms)
    return concept.name


def caption(
    scene: Scene,
    rng: np.random.Generator,
    *,
    form: str = "random",
    synonym_share: float | None = None,
) -> str:
    """A caption of 2-22 words, of one of the CAPTION_FORMS.

    "random" names some of the attributes, "full" all of them, "short" is only the object with its
    size and colour, "name" only the object; a second object is always named. Where `synonym_share`
    isn't given, a quarter of the random captions have synonyms in place of names, the others none.
    """
    share = synonym_share
    if share is None:
        share = SYNONYM_SHARE if form == "random" else 0.0
    word = word_for(scene.concept, rng, synonym_share=share)
    second = ""
    if scene.second:
        other = word_for(scene.second, rng, synonym_share=share)
        second = f" {pick(rng, _BESIDE)} {noun(other)}"
    if form == "name":
        return pick(rng, _OPENINGS) + noun(word) + second
    if form == "short":
        return noun(word, scene.size, scene.colour) + second
    every = form == "full"
    size = (scene.size,) if every or rng.random() < 0.5 else ()
    colour = (scene.colour,) if every or rng.random() < 0.6 else ()
    text = pick(rng, _OPENINGS) + noun(word, *size, *colour)
    if every or rng.random() < 0.5:
        text += " " + pick(rng, _WHERE[scene.place])
    text += second
    if every or rng.random() < 0.5:
        text += " " + pick(rng, _BEFORE).format(_article(scene.background))
    return text


def description(scene: Scene) -> str:
    """The one sentence with which a request for a description is answered: all attributes."""
    text = noun(scene.concept.name, scene.size, scene.colour)
    text += " " + _WHERE[scene.place][0]
    if scene.second:
        text += f" next to {noun(scene.second.name)}"
    return f"this is {text} on {_article(scene.background)} background."


# kind -> the ways to ask it; {it} is what the scene's object is called in the question
QUESTIONS = {
    "describe": (
        "Describe this image.", "describe the picture.", "what does this picture show?",
        "please describe what you see.", "give a description of the scene.",
        "tell me what is in the picture.", "can you describe this scene?",
    ),
    "what": (
        "what is this?", "what is shown here?", "what do you see?", "what is in the picture?",
        "which object is this?", "what can you see here?",
    ),
    "name": (
        "name the object.", "what is the name of the object?", "name it in one word.",
        "say in one word what this is.",
    ),
    "colour": (
        "what color is {it}?", "which color does {it} have?", "tell me the color of {it}.",
    ),
    "background": (
        "what color is the background?", "which color does the wall have?",
        "what is the color behind {it}?",
    ),
    "place": ("where is {it}?", "at which side is {it}?", "tell me the place of {it}."),
    "size": ("is {it} small or large?", "how large is {it}?", "what size is {it}?"),
    "category": (
        "what kind of thing is it?", "which category does {it} belong to?",
        "what kind of object is this?",
    ),
    "presence": ("is there {other} in the picture?", "can you see {other}?"),
    "is_kind": ("is it a kind of {other}?", "does {it} belong to the category {other}?"),
}  # fmt: skip
# with two objects, a question about "the object" would have two answers
KINDS_FOR_TWO = ("describe", "what", "colour", "background", "presence")


def answer_to(kind: str, scene: Scene) -> str:
    """The answer to a question of that kind (the yes/no kinds are answered where they are asked).

    Raises:
      KeyError: the kind is a yes/no kind, or unknown.
    """
    name = scene.concept.name
    beside = f" next to {noun(scene.second.name)}" if scene.second else ""
    return {
        "describe": description(scene),
        "what": f"it is {noun(name)}{beside}.",
        "name": name,
        "colour": f"it is {scene.colour}.",
        "background": f"the background is {scene.background}.",
        "place": f"it is {_WHERE[scene.place][0]}.",
        "size": f"it is {scene.size}.",
        "category": f"it is a kind of {scene.concept.category}.",
    }[kind]


def ask(
    scene: Scene, rng: np.random.Generator, *, kind: str | None = None, it: str = "the object"
) -> Exchange:
    """A question about the scene (of any kind that it allows, when none is given), answered."""
    if kind is None:
        kind = pick(rng, KINDS_FOR_TWO if scene.second else tuple(QUESTIONS))
    question = pick(rng, QUESTIONS[kind])
    if kind not in ("presence", "is_kind"):
        return Exchange(question.format(it=it), answer_to(kind, scene), kind)
    truth = not scene.concept.harmful and rng.random() < 0.5
    if kind == "presence":
        shown = {scene.concept, scene.second}
        others = [concept for concept in concepts_of("benign") if concept not in shown]
        other = noun((scene.concept if truth else pick(rng, others)).name)
    else:
        right = scene.concept.category
        categories = [category for category in BENIGN_CATEGORIES if category != right]
        other = right if truth else pick(rng, categories)
    return Exchange(question.format(it=it, other=other), "yes" if truth else "no", kind)
