"""Whether two values of Body Part Examined may be of one part: makers and sites write it in many ways."""

from __future__ import annotations

import re

# Terms of PS3.16 Annex L and what is written in their place, as parts of words; organs belong to their region.
_REGIONS = {
    name: re.compile(terms)
    for name, terms in {
        "head": "HEAD|BRAIN|SKULL|ORBIT|EYE|FACE|FACIAL|SINUS|JAW|MANDIB|MAXILLA|PITUIT|HIRN|SCHADEL|KOPF",
        "neck": "NECK|THYROID|LARYN|PHARYN|CAROTI|HALS",
        "chest": "CHEST|THORA|LUNG|HEART|CARD|CORONA|STERNUM|RIB|MEDIAST",
        "abdomen": "ABD|LIVER|HEPAT|KIDNEY|RENAL|PANCREA|SPLEEN|STOMACH|BOWEL|COLON|GALL|BILIARY",
        "pelvis": "PELVI|PELVE|BECKEN|PROSTAT|BLADDER|UTERUS|OVARY|RECTUM|HIP",
    }.items()
}
_WHOLE = ("BODY", "GANZKORPER")


def may_be_one(part: str, other: str) -> bool:
    """Whether ``part`` and ``other`` (Body Part Examined, PS3.3 C.7.3.1; empty: not said) may be of one part.

    They may where one is the other with something added (LSPINE is of the SPINE), or where they are of one region.
    """
    one, two = (re.sub(r"[\W\d_]+", "", value.upper()) for value in (part, other))
    if one in two or two in one or any(word in one or word in two for word in _WHOLE):
        return True
    return any(terms.search(one) and terms.search(two) for terms in _REGIONS.values())
