"""Which encoding the text of a table is in; refused where the text would read as no language does."""

from __future__ import annotations

import codecs
import re
from collections import Counter

from medlora.errors import MedloraError

NAMES = {
    "cp932": "cp932 (Japanese, Shift JIS)",
    "iso2022_jp_ext": "ISO-2022-JP (Japanese)",
    "cp1252": "Windows-1252 (Western European)",
}
"""Encodings besides Unicode's, in words."""

_BOMS = (
    (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"), (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
_ISO_2022_JP = re.compile(rb"\x1b\$[@B]|\x1b\([JI]")
_PAIR = re.compile(rb"(?:[\x81-\x9f\xe0-\xfc][\x40-\x7e\x80-\xfc])+")  # of cp932: a run of kana, kanji or marks

_MARKS = "‘’‚“”„«»‹›–—…•·°±²³¹ªº§©®™€£µ×\xa0"
"""What Western text holds besides letters, beside letters too."""
_BEFORE_NONE = "¢¤¥¦¨¬\xad¯²³¹´¶¸¼½¾†‡‰ˆ˜ƒ"
"""What stands before no letter there; letters of other encodings do."""
_IN_NONE = _BEFORE_NONE + "‘‚“”„«»‹›…•°±§©®™€£×÷¡¿"
"""What stands within no word."""
_RUN = re.compile(r"[^\x00-\x7f]+")
_SURE = 4  # kana and kanji in words of two or more, above which they are no chance
_LONGEST = 3  # characters besides ASCII, one beside the other, in Western words ("ÄÖÜ")
_DOUBTED = 0.25  # of these runs that are like no Western text, above which it is taken for none


def decode(data: bytes, name: str) -> tuple[str, str]:
    """The text of a file, and its encoding: Unicode, ISO-2022-JP, cp932 or Windows-1252.

    What else there is (EUC-JP, GBK, EUC-KR, Big5, Windows-1250 …) cannot be told soundly from a few words.

    Args:
        data: its content.
        name: of the file, for messages.

    Raises:
        MedloraError: it is in none of these, as far as can be told.
    """
    encoding = next((encoding for bom, encoding in _BOMS if data.startswith(bom)), None)
    text = None if encoding is None else data.decode(encoding, errors="replace")
    if b"\0" in data if text is None else "\0" in text:
        raise MedloraError(f"{name} is not a text file (it holds zero bytes)", "give a CSV file")
    if text is not None and encoding is not None:
        return text, encoding
    if _ISO_2022_JP.search(data) and (text := _read(data, "iso2022_jp_ext")) is not None and "\x1b" not in text:
        return text, "iso2022_jp_ext"
    text = _read(data, "utf-8-sig")
    if text is not None and "\x1b" not in text:
        return text, "utf-8"
    if text is None and not _is_damaged(data):
        if (japanese := _read(data, "cp932")) is not None and _is_japanese(data):
            return japanese, "cp932"
        if (western := _read(data, "cp1252")) is not None and _is_western(western):
            return western, "cp1252"
    raise MedloraError(
        f"it cannot be told in which encoding the text of {name} is: it is not UTF-8 without escape characters, and "
        "in no other usual one would it read well",
        "save it as CSV UTF-8 and use that file",
    )


def _read(data: bytes, encoding: str) -> str | None:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError:
        return None


def _is_damaged(data: bytes) -> bool:
    """Whether it is UTF-8 but for a few bytes."""
    text = data.decode("utf-8", errors="replace")
    return sum(character > "\x7f" for character in text) > 4 * text.count("\ufffd")


def _is_japanese(data: bytes) -> bool:
    """Whether bytes that can be read as cp932 (Shift JIS) are that, rather than Western or in EUC-JP.

    Kana, Japanese marks and the common kanji have a first byte of 0x81 to 0x9F. In Western encodings these are rare
    letters and marks, which the letter behind them would be taken together with: a kanji in a word of ASCII letters. In
    EUC-JP there are next to none.
    """
    if _read(data, "euc_jp") is not None:
        return False
    japanese = other = sure = 0
    for run in _PAIR.finditer(data):
        common = sum(first <= 0x9F for first in run.group()[::2])
        touched = data[max(run.start() - 1, 0) : run.start()] + data[run.end() : run.end() + 1]
        as_western = len(run.group()) == 2 or run.group()[1::2].isascii()
        sure += common if common > 1 else 0
        if re.fullmatch(rb"[A-Za-z]{2}", touched) or (as_western and re.search(rb"[a-z\xa1-\xff]", touched)):
            other += common
        else:
            japanese += common
    western = len(re.findall(rb"(?<![\x80-\xff])[\xc0-\xff](?![\x80-\xff])", data))
    # Words of kana and kanji are like nothing Western; beside them a letter may well touch one.
    return japanese > (western if sure > _SURE else max(other, western))


def _is_western(text: str) -> bool:
    runs = Counter(
        (run.group(), text[max(run.start() - 1, 0) : run.start()], text[run.end() : run.end() + 1])
        for run in _RUN.finditer(text)
    )
    return sum(n for run, n in runs.items() if _is_strange(*run)) <= _DOUBTED * runs.total()


def _is_strange(run: str, before: str, behind: str) -> bool:
    """Whether characters besides ASCII, between two others, are as they are not in Western text: too many, a pair with
    a letter that is a word by itself, a sign before a letter or within a word, a capital within a word."""
    if (run == "°" and behind in "CF") or (run == "´" and before.isupper()):
        return False
    letters = run.strip(_MARKS)
    if len(letters) > _LONGEST or any(sign in letters[:-1] for sign in _BEFORE_NONE):
        return True
    if len(run) > 1 and not (before.isalpha() or behind.isalpha()):
        return any(map(str.isalpha, run)) and (len(run) % 2 == 0 or letters.islower())
    if before.isalpha() and behind.isalpha() and any(sign in run for sign in _IN_NONE):
        return True
    within = before.islower() or (before.isalpha() and behind.islower())
    return (run[-1] in _BEFORE_NONE and behind.isalpha()) or (run[0].isupper() and within)
