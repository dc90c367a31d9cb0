"""How likely a phantom nodule is malignant, and how it then looks: published figures, and where they are sharpened.

The risk is that of the Brock (PanCan) model, full and without spiculation (model 2a), of McWilliams et al., N Engl J
Med 2013; 369:910-919, supplementary appendix. In that screening population one nodule in twenty was malignant at most;
phantoms are drawn half and half, as in a case-control study, which changes the model's constant and nothing else
(Prentice and Pyke, Biometrika 1979; 66:403-411).

Margin and calcification are no part of that model and follow the malignancy, as the likelihood ratios of Gurney,
Radiology 1993; 186:405-413, do (spiculated 5.5, benign calcification 0.01), but more closely than in people: with the
true ratios nobody, and no network, could tell phantoms apart better than with AUC 0.88.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Density = Literal["solid", "part-solid", "ground-glass"]
Margin = Literal["spiculated", "lobulated", "smooth"]

DENSITIES: Mapping[Density, float] = {"solid": 0.66, "part-solid": 0.15, "ground-glass": 0.19}
"""How frequent."""
MARGINS: Mapping[bool, Mapping[Margin, float]] = {
    False: {"spiculated": 0.03, "lobulated": 0.22, "smooth": 0.75},
    True: {"spiculated": 0.82, "lobulated": 0.14, "smooth": 0.04},
}
"""How frequent in benign (False) and malignant (True) nodules."""
CALCIFIED: Mapping[bool, float] = {False: 0.25, True: 0.0025}
"""Share of the solid benign and malignant nodules that hold a benign pattern of calcium."""
ENRICHED = -3.75
"""Constant in place of the model's: about as many phantom nodules are malignant as benign."""


@dataclass(frozen=True)
class Person:
    """What the model asks about the patient."""

    age: int
    female: bool
    family_history: bool  # of lung cancer
    emphysema: bool
    nodules: int


def logit(person: Person, diameter: float, density: Density, upper_lobe: bool, constant: float = -6.8071) -> float:
    """Logarithm of the odds that a nodule is malignant, by Brock's model 2a.

    Args:
        person: whose nodule.
        diameter: the longest, mm.
        density: with a solid one as the reference.
        upper_lobe: where it lies.
        constant: the model's own, or another.
    """
    return (
        constant
        + 0.0321 * (person.age - 62)
        + 0.5635 * person.female
        + 0.3013 * person.family_history
        + 0.3462 * person.emphysema
        - 5.6693 * ((diameter / 10) ** -0.5 - 1.58113883)
        + {"solid": 0.0, "part-solid": 0.3395, "ground-glass": -0.3055}[density]
        + 0.7116 * upper_lobe
        - 0.0803 * (person.nodules - 4)
    )


def probability(logit: float) -> float:
    """The probability whose logarithm of the odds is ``logit``."""
    return 1 / (1 + math.exp(-logit))
