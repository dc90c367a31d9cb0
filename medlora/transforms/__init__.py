"""How a scan is prepared for a backbone: presets per modality, built of MONAI transforms."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from medlora.errors import MedloraError
from medlora.transforms.ct_lung import CTLung
from medlora.transforms.ct_nodule import CTNodule, CTNodulePlanes
from medlora.transforms.mr import MR
from medlora.transforms.preset import Centre, Preset
from medlora.transforms.radiograph import Radiograph
from medlora.transforms.steps import Step

PRESETS: dict[str, type[Preset]] = {
    preset.name: preset for preset in (Radiograph, CTLung, MR, CTNodule, CTNodulePlanes)
}

__all__ = [
    "MR",
    "PRESETS",
    "CTLung",
    "CTNodule",
    "CTNodulePlanes",
    "Centre",
    "Preset",
    "Radiograph",
    "Step",
    "preset_for",
    "preset_from",
]


def preset_for(modalities: set[str], places: bool = False) -> type[Preset]:
    """The preset that reads all of ``modalities`` (DICOM's Modality values), as whole scans or as places in them.

    Raises:
        MedloraError: no preset reads them all.
    """
    of_kind = [preset for preset in PRESETS.values() if preset.places == places]
    for preset in of_kind:
        if modalities <= preset.modalities:
            return preset
    known = sorted(filter(None, set().union(*(preset.modalities for preset in of_kind))))
    what = "places in scans" if places else "whole scans"
    raise MedloraError(
        f"no preset reads {what} of the modalities {', '.join(sorted(modalities))} together; "
        f"for {what} there are presets for {', '.join(known)}",
        "choose scans of one kind when the cohort is made (a folder of their own, or a labels CSV that names them)",
    )


def preset_from(values: dict[str, Any]) -> Preset:
    """The preset that :meth:`Preset.to_dict` described.

    Raises:
        MedloraError: the name or the values are unknown.
    """
    rest: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    name: Any = rest.pop("preset", None)
    if name not in PRESETS:
        raise MedloraError(
            f"unknown preset {name!r}", f"presets are: {', '.join(PRESETS)}; a newer medlora may know it"
        )
    missing = {field.name for field in fields(PRESETS[name])} - rest.keys()
    if missing:
        raise MedloraError(
            f"the preset {name} is described without {', '.join(sorted(missing))}: by another version of medlora",
            "train the adapter anew, or use the version that made it",
        )
    try:
        return PRESETS[name](**rest)
    except TypeError as error:
        raise MedloraError(f"the preset {name} cannot be made of {sorted(rest)}: {error}") from error
