"""What a model's card says of the corpora that we read: whose emotions they hold, and what their labels mean."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Corpus:
    """A corpus in words.

    Attributes:
        title: Its name.
        expression: How the emotions in it came about, and what its labels are.
        voices: Whose they are.
        identifier: What the Hub's metadata calls it; None if nothing.
    """

    title: str
    expression: str
    voices: str
    identifier: str | None = None


# Corpora by the flag `--source`.
CORPORA: dict[str, Corpus] = {
    "avb": Corpus(
        "HUME-VB (A-VB 2022)",
        "acted on request: speakers imitated vocal bursts, and listeners rated what they heard in them",
        "adults of China, South Africa, the United States and Venezuela who recorded themselves at home",
        "hume-vb",
    ),
    "emogator": Corpus(
        "EmoGator",
        "acted on request: a label is what the contributor was asked to express, not what listeners heard",
        "contributors who recorded themselves, and whose cultures the corpus does not name",
        "emogator",
    ),
    "manifest": Corpus(
        "a table of clips",
        "not known to this card: whoever publishes the model should say here whether the emotions were acted, elicited "
        "or spontaneous, and who labelled them",
        "not known to this card either",
    ),
    "hub": Corpus(
        "a dataset of the Hub",
        "as that dataset's card says; if it does not tell acted from elicited and spontaneous emotion, nobody knows",
        "as that dataset's card says",
    ),
    "demo": Corpus(
        "the demo corpus of avb_hf",
        "none: the sounds are synthetic, and sounds and labels follow from numbers drawn at random",
        "nobody's: a model of this corpus shows that the path works, and hears nothing in real voices",
    ),
}
