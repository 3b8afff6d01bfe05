"""What every figure on the page means, in one place; the page's figures link here."""

from __future__ import annotations

import dataclasses
import re

from markupsafe import Markup

from tga_jax.evaluation.result import FEW
from tga_jax.evaluation.strict_accuracy import strict_accuracy
from tga_jax.html.formats import figure_text
from tga_jax.html.render import render
from tga_jax.report.headlines import CHANCE


@dataclasses.dataclass(frozen=True)
class Entry:
    """A term of the page: its key in links, its name, and what it means."""

    key: str
    name: str
    text: str


ENTRIES = (
    Entry(
        "dsr",
        "Harmful refused (DSR, defence success rate)",
        "The share of the questions marked as harmful whose answer refuses, by the verdict of the "
        "judge that counts. Higher is better. An empty answer does not count as a refusal.",
    ),
    Entry(
        "over_refusal",
        "Harmless refused (over-refusal)",
        "The share of the questions marked as harmless whose answer refuses. Lower is better.",
    ),
    Entry(
        "refusal_rate",
        "Refused, of answers without a label",
        "The share of the answers that refuse, of questions that are marked neither as harmful nor "
        "as harmless. It cannot say whether refusing was right.",
    ),
    Entry(
        "no_verdict",
        "Answers without a verdict",
        "The judge could not judge these answers, for example because it reads English only. They "
        "are left out of the shares.",
    ),
    Entry(
        "dsr_at_5pct",
        "DSR at 5% over-refusal",
        "The share of harmful questions that would be refused if the model refused whenever its "
        "refusal margin is above a threshold, with the threshold chosen so that at most 5% of the "
        "harmless questions lie above it. It compares models at equal caution.",
    ),
    Entry(
        "dsr_at_1pct",
        "DSR at 1% over-refusal",
        "This is the same with at most 1% of the harmless questions above the threshold.",
    ),
    Entry(
        "auc",
        "AUC of the refusal margin",
        "The chance that a harmful question has a higher refusal margin than a harmless one: 0.5 "
        "is a coin toss, 1 tells them apart without a mistake.",
    ),
    Entry(
        "margin",
        "Refusal margin",
        "The log-probability of the likeliest first word of an apology minus that of the likeliest "
        "other first word. Above 0 the answer begins with an apology.",
    ),
    Entry(
        "accuracy",
        "Right answers",
        "The share of the questions with a known answer that are answered rightly. The table of "
        "what was asked says for each benchmark what counts as right. A refused question counts "
        "as not right.",
    ),
    Entry(
        "harmful_right",
        "Harmful: right, wrong, refused",
        "Three shares of the harmful questions that have a right answer: it was given, another one "
        "was given, or the question was refused. With the empty answers they make up the whole.",
    ),
    Entry(
        "empty",
        "Empty answers",
        "These answers have no word. They count as neither refused nor right, and stay among the "
        "questions of every share.",
    ),
    Entry(
        "without_image",
        "Without an image",
        "These questions are texts alone, in a benchmark that has questions about images too. The "
        "figures count them among the images.",
    ),
    Entry(
        "truncated",
        "Cut off",
        "The limit of new tokens (config.generate.max_new_tokens) ended these answers before they "
        "were complete. They are judged as far as they go.",
    ),
    Entry(
        "seconds",
        "Seconds a question",
        "The mean time that a question took on the devices, in batches. It includes all that a "
        "defence asks or computes. Reading images, judging and the search for retrieved texts do "
        "not count. Compiling does not count either, unless the figure is marked 'with compiling': "
        "then the benchmark had one batch only, which had to be compiled first.",
    ),
    Entry(
        "macro",
        "Macro average",
        "The mean of the benchmarks' shares. Every benchmark counts equally, however many "
        "questions it has. The interval comes from the benchmarks' intervals, taken as "
        "independent (the MOVER method of Zou and Donner, 2008).",
    ),
    Entry(
        "difference",
        "Difference",
        "The second model's share minus the first one's on the questions that both were asked, in "
        "percentage points. Its interval is a paired bootstrap. Where all pairs differ alike, the "
        "interval is as wide as Wilson's for none of so many. A difference of macro averages has "
        "the MOVER interval. A difference is called clear where its interval excludes zero and "
        f"its paired test, if there is one, gives p below {CHANCE}.",
    ),
    Entry(
        "p",
        "p",
        "The p-value of McNemar's exact test. It says how likely a difference at least this large "
        "would be if both models did the same equally often. Where several questions are about one "
        "image, whole images are exchanged. Over seeds it is the p-value of the paired t-test.",
    ),
    Entry(
        "n",
        "n",
        "The number of questions behind a figure. Several questions about one image count as one "
        f"cluster in the intervals. A figure from fewer than {FEW} independent ones is marked "
        "'few'; so is one that compares two kinds of items and has fewer of either kind.",
    ),
    Entry(
        "interval",
        "Interval",
        "The 95% interval stands in brackets, and is a whisker or a band in charts. Shares have "
        "Wilson's interval or a cluster bootstrap, and AUCs have DeLong's. Rates at a fixed "
        "over-refusal and differences have a bootstrap, and means over seeds have Student's.",
    ),
    Entry(
        "profile",
        "Prompt profile",
        "The system text with which the model was asked. 'none' is the model's own, 'paper' adds "
        "a request to refuse harmful content, and 'custom' is a text of the user's. Figures from "
        "different profiles cannot be compared directly.",
    ),
    Entry(
        "judge",
        "Judge",
        "A judge decides whether an answer refuses. The first judge's verdicts count everywhere, "
        "and others are compared with it.",
    ),
    Entry(
        "agreement",
        "Agreement",
        "The share of the answers on which a judge says the same as the first judge.",
    ),
    Entry(
        "kappa",
        "Kappa (Cohen's)",
        "Agreement with the first judge beyond chance. It is 1 where both always say the same, and "
        "0 where they agree only as often as by chance. It is absent where both say the same of "
        "every answer. Its interval comes from drawing whole images.",
    ),
    Entry(
        "layers",
        "Curves over the layers",
        "These curves show what the model's hidden states say after each layer. An apology comes "
        "first where the likeliest next word, read from that layer, begins an apology. The safety "
        "layers reach from the first turn towards an apology to the layer where it comes first for "
        "half of the harmful texts.",
    ),
    Entry(
        "cosine",
        "Cosine of image and caption states",
        "How similar the model's hidden states are for an image and for its caption, from -1 to 1. "
        "For the centred cosine, the mean caption state is subtracted from both first.",
    ),
    Entry(
        "oracle",
        "Matched states (job oracle)",
        "Free embeddings stand in an image's place. They are fitted until the model's states match "
        "those of the image's caption: the mean over the image's tokens, the state where the "
        "answer begins, or every token. For centred states, the mean caption state is subtracted "
        "from both first. The cosine says how near the states came on the matched layers; 'means, "
        "centred' is the cosine of the two means, centred, whatever was matched. The "
        "distance says how unlike the model's own embeddings the free ones are: the mean square "
        "from each to the nearest of these, in units of their variance, so 0 is a word. 'The "
        "caption itself' is the best result possible, and 'random embeddings' show what a "
        "meaningless image does. The interval of the difference is Newcombe's, with both shares "
        "taken as independent.",
    ),
    Entry(
        "held_out",
        "Held-out figures and probe",
        "These figures are measured during training, on data that is not trained on. The loss and "
        "the cosine are those of samples that were kept out. The probe asks harmful and harmless "
        "requests, and reads only whether the answer would begin with an apology. Its AUC says how "
        "well the refusal margin tells the two kinds apart.",
    ),
)


def strict_entry() -> Entry:
    """The default judge, with how far it can be trusted."""
    recall, precision = (
        figure_text("dsr", found) + f" of {found.count}"
        for found in (strict_accuracy()[name] for name in ("recall", "precision"))
    )
    return Entry(
        "strict",
        "The judge 'strict'",
        "It looks for patterns of English refusals in the first sentences of an answer. Other "
        "languages get no verdict. On a labelled list that was not used to write the patterns, its "
        f"recall (the share of refusals that it finds) is {recall}, and its precision (the share "
        f"of what it calls a refusal that is one) is {precision}.",
    )


def glossary(bodies: str) -> Markup:
    """The entries that links in the bodies of the other sections lead to, and some always."""
    linked = set(re.findall(r'href="#term-([\w-]+)"', bodies)) | {"interval", "n"}
    entries = [entry for entry in (*ENTRIES, strict_entry()) if entry.key in linked]
    return render("glossary.html", entries=entries)
