"""Whether two values of Body Part Examined may be of one part: makers and sites write it in many ways."""

from __future__ import annotations

import re
import unicodedata

# Terms of PS3.16 Annex L, and what is written in their place.
_WHOLE = "BODY|GANZKORPER|全身"
_TRUNK = "TRUNK|TORSO|^[CT]AP$"
_LIMB = "EXTREMITY"
_REGIONS = {
    name: re.compile("|".join(terms))
    for name, terms in {
        "head": (
            "HEAD|BRAIN|SKULL|CRANI|CEREBR|ORBIT|EYE|FACE|FACIAL|SINUS|JAW|MANDIB|MAXILLA|PITUIT|^EAR|EARS?$",
            "HIRN|SCHADEL|KOPF|TETE|CABEZA|頭|脳", _WHOLE,
        ),
        "neck": ("NECK|THYROID|LARYN|PHARYN|CAROTI|CSPINE|CERVIC|^SPINE|HALS|頸", _WHOLE),
        "chest": (
            "CHEST|THORA|LUNG|PULMO|HEART|CARD|CORONA|STERNUM|^RIBS?$|MEDIAST|ESOPHAG|AORT|BREAST|MAMM",
            "[TD]SPINE|^SPINE|TORA|BRUST|胸|肺", _TRUNK, _WHOLE,
        ),
        "abdomen": (
            "ABD|LIVER|HEPAT|KIDNEY|RENAL|PANCREA|SPLEEN|STOMACH|BOWEL|COLON|GALL|BILIARY|AORT|LSPINE|LUMBA|^SPINE",
            "BAUCH|腹|肝", _TRUNK, _WHOLE,
        ),
        "pelvis": ("PELVI|PELVE|PROSTAT|BLADDER|UTERUS|OVARY|RECTUM|HIP|SACR|SSPINE|BECKEN|骨盤", _TRUNK, _WHOLE),
        "arm": ("SHOULDER|ARM|ELBOW|WRIST|HAND|FINGER|THUMB|HUMER|CLAVIC|SCAPUL|UPEXM", _LIMB, _WHOLE),
        "leg": ("KNEE|ANKLE|FOOT|FEET|LEG|TOE|FEMUR|TIBIA|FIBULA|THIGH|CALF|CALCAN|HIP|LOWEXM", _LIMB, _WHOLE),
    }.items()
}  # fmt: skip
_LETTERS = {"C": "chest", "T": "chest", "A": "abdomen", "P": "pelvis"}  # as in C/A/P
_LIKE = dict.fromkeys(("CHEST", "THORAX", "LUNG", "LUNGS"), "CHEST")


def may_be_one(part: str, other: str, flat: bool = False) -> bool:
    """Whether ``part`` and ``other`` (Body Part Examined, PS3.3 C.7.3.1) may be of one part of the body.

    Of sections they may unless both are of known regions and have none in common; a series of the sinuses shows the
    brain, too. Radiographs of ribs and chest are two examinations: of these a word must be the same.
    """
    if flat:
        first, second = ({_LIKE.get(word, word) for word in re.split(r"[\W_]+", text)} for text in (part, other))
        return not part or not other or bool(first & second)
    regions, others = _regions(part), _regions(other)
    return not regions or not others or bool(regions & others)


def _regions(part: str) -> set[str]:
    """Those that a value is of; none where it does not say any that is known."""
    letters = unicodedata.normalize("NFKD", part.upper())
    words = [
        word for word in re.split(r"[\W\d_]+", "".join(c for c in letters if not unicodedata.combining(c))) if word
    ]
    if words and all(word in _LETTERS for word in words):
        return {_LETTERS[word] for word in words}
    together = "".join(words)
    return {name for name, terms in _REGIONS.items() if terms.search(together)}
