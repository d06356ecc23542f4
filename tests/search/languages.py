"""Sentences in eight scripts, and queries about them, with an opinion of their own about what is found.

A sentence is made of known words, so that a list tells what is in it; nothing here cuts a text into words.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from unicodedata import normalize

Judge = Callable[["Sentence"], bool]


@dataclass(frozen=True)
class Sentence:
    words: Sequence[str]
    text: str


@dataclass(frozen=True)
class Script:
    words: Sequence[str]
    variants: Callable[[random.Random, str], str]
    """The word as somebody else writes it."""
    has_spaces: bool = True

    def sentence(self, dice: random.Random) -> Sentence:
        words = dice.choices(self.words, k=dice.randint(3, 12))
        if not self.has_spaces:
            return Sentence(words, "".join(words))
        separators = (" ", ", ", " … ", "\n", "_", "/")
        text = "".join(self.variants(dice, word) + dice.choice(separators) for word in words)
        return Sentence(words, text)

    def query(self, dice: random.Random, sentences: Sequence[Sentence]) -> tuple[str, Judge]:
        """A query, and whether a sentence is found by it."""
        if not self.has_spaces:
            return self._piece(dice, sentences)
        kind = dice.choice(["words", "phrase", "without", "without a phrase", "code"])
        some = dice.choice(sentences).words
        if kind == "words":
            wanted = dice.sample(some, k=dice.randint(1, min(3, len(some))))
            return " ".join(self.variants(dice, word) for word in wanted), lambda s: set(wanted) <= set(s.words)
        start = dice.randrange(len(some) - 1)
        phrase = list(some[start : start + 2])
        written = [self.variants(dice, word) for word in phrase]
        if kind == "phrase":
            return f'"{" ".join(written)}"', lambda s: _has_phrase(s, phrase)
        if kind == "code":
            return dice.choice("-_./:").join(written), lambda s: _has_phrase(s, phrase)
        first, other = dice.choice(self.words), dice.choice(self.words)
        if kind == "without":
            return f"{first} -{self.variants(dice, other)}", lambda s: first in s.words and other not in s.words
        return f'{first} -"{" ".join(written)}"', lambda s: first in s.words and not _has_phrase(s, phrase)

    @staticmethod
    def _piece(dice: random.Random, sentences: Sequence[Sentence]) -> tuple[str, Judge]:
        text = dice.choice(sentences).text
        start = dice.randrange(len(text))
        piece = text[start : start + dice.randint(1, 5)]
        # Thai writes one vowel in two ways.
        return piece, lambda s: normalize("NFKC", piece) in normalize("NFKC", s.text)


def _has_phrase(sentence: Sentence, phrase: Sequence[str]) -> bool:
    words = list(sentence.words)
    return any(words[place : place + len(phrase)] == phrase for place in range(len(words)))


def _cased(dice: random.Random, word: str) -> str:
    return dice.choice([word, word.upper(), word.capitalize()])


def _with(accents: dict[str, str]) -> Callable[[random.Random, str], str]:
    def write(dice: random.Random, word: str) -> str:
        written = "".join(accents.get(letter, letter) if dice.random() < 0.5 else letter for letter in word)
        return _cased(dice, written)

    return write


def _plain(_: random.Random, word: str) -> str:
    return word


LATIN = ["ora", "00942", "module", "x", "cafe", "zurich", "naive", "garcon", "strasse", "backup", "42", "v2", "index"]
GREEK = ["νερο", "φως", "πολη", "δρομος", "βιβλιο", "σπιτι", "ημερα", "ωρα", "αγορα", "ονομα"]
CYRILLIC = ["город", "елка", "книга", "дорога", "вода", "день", "письмо", "школа", "улица", "мои"]
ARABIC = ["كتاب", "مدينة", "طريق", "ماء", "يوم", "مدرسة", "شارع", "اسم", "قلم", "باب"]
HEBREW = ["ספר", "עיר", "דרך", "מים", "יום", "בית", "שוק", "שם", "עט", "דלת"]
DEVANAGARI = ["किताब", "शहर", "रास्ता", "पानी", "दिन", "घर", "बाज़ार", "नाम", "कलम", "दरवाज़ा"]
HAN = ["東京", "大阪", "手机", "数据库", "错误", "备份", "恢复", "索引", "消息", "会话"]
THAI = ["ข้าว", "น้ำ", "เมือง", "หนังสือ", "ถนน", "วัน", "บ้าน", "ตลาด", "ชื่อ", "ปากกา"]

SCRIPTS = {
    "Latin": Script(LATIN, _with({"e": "é", "u": "ü", "a": "â", "o": "ö", "c": "ç", "n": "ñ", "i": "i\u0308"})),
    "Greek": Script(GREEK, _with({"ο": "ό", "α": "ά", "ι": "ί", "ω": "ώ"})),
    "Cyrillic": Script(CYRILLIC, _with({"е": "ё", "и": "й"})),
    "Arabic": Script(ARABIC, _with({"ك": "كِ", "م": "مَ", "ا": "أ"})),
    "Hebrew": Script(HEBREW, _with({"ש": "שׁ", "ב": "בּ"})),
    "Devanagari": Script(DEVANAGARI, _plain),
    "Han": Script(HAN, _plain, has_spaces=False),
    "Thai": Script(THAI, _plain, has_spaces=False),
}
