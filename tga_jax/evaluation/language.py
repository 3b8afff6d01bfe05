"""Is a text English? Cheap counts, for judges that read English only."""

from __future__ import annotations

import re
import unicodedata

# Words that are frequent in a language and are no English words.
_ENGLISH = frozenset(
    "the of and to in is it that you for with this are as be on not have but from or by at can an "
    "i i'm i'd my we your they there what which was were has will would should could cannot can't "
    "sorry no yes if so do does don't he she his her its their one two image picture photo shows "
    "a am me us about into than then who how when where here help request provide".split()
)
# Without those that are English, too (van, per, pour), or parts of names and addresses (los, com).
_OTHERS = frozenset(
    # German, Dutch
    "ich wir ihr der das und ist nicht auf ein eine einen einem zu dem für bild "
    "kann leider dir dabei helfen zeigt auch sind keine kein bei wird leid neben steht sich oder "
    "ik je het een niet en kan helaas dat dit zijn op voor maar deze geen ook naar naast wordt aan "
    # French
    "je ne peux pas vous une est dans avec cette aider désolé désolée mais "
    "ce c'est qui que elle aux sont à et d'un d'une "
    # Spanish, Portuguese, Italian
    "una es en por para puedo ayudarte ayudarle lo siento pero esta este imagen "
    "muestra se su eso como más un está hay junto "
    "não posso ajudar desculpe mas isso uma na imagem mostra ao pela sinto muito é "
    "non posso aiutarti mi dispiace questo questa gli nella che sono immagine è nel sulla alla "
    # Indonesian, Vietnamese, Turkish, Polish
    "saya tidak dapat membantu maaf yang dan ini itu dengan untuk adalah gambar tetapi dari "
    "tôi không thể giúp xin lỗi bạn này là một có "
    "bu bir ve için yardımcı olamam üzgünüm değil "
    "nie mogę pomóc przepraszam jest się tym na że".split()
)
# Of texts of one to three words: apologies and a plain no, which say enough by themselves.
_ALONE = frozenset(
    "entschuldigung nein désolé désolée non desculpe desculpa scusa spiacente mi perdón maaf "
    "lamento sorry'lo przepraszam üzgünüm".split()
)
FOREIGN_LETTERS = 0.3  # share of the letters from which on a text is of another script


def is_english(text: str) -> bool:
    """Whether a text is English, or too short to tell (a name, a number, a letter).

    Another script is known by its letters; another language in Latin letters by function words:
    it has more different ones of theirs than of English, and at least two.
    """
    letters = [letter for letter in text if letter.isalpha()]
    foreign = sum(not unicodedata.name(letter, "").startswith("LATIN") for letter in letters)
    if letters and foreign > FOREIGN_LETTERS * len(letters):
        return False
    words = re.findall(r"[^\W\d_]+(?:'[^\W\d_]+)?", text.lower())
    other, english = (len(known.intersection(words)) for known in (_OTHERS, _ENGLISH))
    alone = len(words) <= 3 and bool(words) and words[0] in _ALONE
    return not (alone or (other >= 2 and other > english))
