"""Where the report answers the items of CLAIM, STARD-AI and TRIPOD+AI, and which only the author can.

Item numbers: CLAIM as of 2020 (Mongan J et al. Radiol Artif Intell 2020;2:e200029; the 2024 update keeps the topics and
renumbers some), STARD as of 2015 (Bossuyt PM et al. BMJ 2015;351:h5527), which STARD-AI extends, TRIPOD+AI (Collins GS
et al. BMJ 2024;385:e078378). Topics are in our words; the published lists are what a journal asks for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Topic, CLAIM, STARD, TRIPOD+AI, section of the report that answers it (by the key of the view), or None: author.
_ITEMS: tuple[tuple[str, str, str, str, str | None], ...] = (
    ("Title and abstract name the method and its accuracy", "1–2", "1–2", "1–2", None),
    ("Clinical background, intended use, objectives", "3–4", "3–4", "3–4", None),
    ("Design: prospective or retrospective, study goal", "5–6", "5", "5", None),
    ("Source of the data, setting, dates, eligibility", "7–8", "6–9", "5–6", None),
    ("Preparation and selection of the data", "9–10", "10a", "7", "provenance"),
    ("De-identification", "12", "", "", None),
    ("Missing and unusable data", "13", "15–16", "11", "flow"),
    ("Reference standard: definition, rationale, readers, agreement", "14–18", "10b–11, 13b", "8", None),
    ("Sample size", "19", "18", "10", None),
    ("How the data were divided, and that patients were kept together", "20–21", "", "12a", "flow"),
    ("Model, software, starting weights", "22–24", "10a", "12c, 22", "provenance"),
    ("Training, and how the final model was chosen", "25–27", "10a", "12c", "training"),
    ("Operating point: which, how chosen, fixed in advance", "28", "12a", "12e, 15", "confusion"),
    ("Measures of performance and their uncertainty, methods named", "28–29", "14", "12e", "metrics"),
    ("Robustness: what else could explain the result", "30", "17", "12d", "source_check"),
    ("Explanation of single answers", "31", "", "", None),
    ("Test on data from elsewhere", "32", "", "12a, 16", None),
    ("Flow of participants", "33", "19", "20a", "flow"),
    ("Baseline characteristics of each part of the data", "34", "20–21", "20b–c", None),
    ("Cross tabulation of answers and reference standard", "35", "23", "23a", "confusion"),
    ("Accuracy with its precision", "36", "24", "23a", "metrics"),
    ("Calibration", "28", "", "12e, 23a", "calibration"),
    ("Clinical utility (decision curve)", "", "", "12e", "decision"),
    ("Fairness and heterogeneity between subgroups", "30", "17", "12d, 14, 23a–b", "subgroups"),
    ("Comparison with other models", "28", "", "12e", "baselines"),
    ("Failures looked at one by one", "37", "", "23a", "worst"),
    ("Adverse events, indeterminate answers", "", "15, 25", "", None),
    ("Limitations, implications, usability", "38–39", "26–27", "25–27", None),
    ("Registration, protocol, availability of data and code, ethics, funding", "40–42", "28–30", "17–19", None),
)

SECTIONS = {
    "flow": "Cases",
    "metrics": "All figures",
    "confusion": "At the operating point",
    "calibration": "Calibration",
    "decision": "Clinical utility",
    "subgroups": "Subgroups",
    "baselines": "Discrimination",
    "worst": "Worst errors",
    "training": "Training",
    "provenance": "Provenance",
    "source_check": "warning at the top",
}


def checklist(view: Mapping[str, Any]) -> list[dict[str, str]]:
    """One row per topic: item numbers, and the section of this report that answers it, or "author"."""
    return [
        {
            "topic": topic,
            "claim": claim,
            "stard": stard,
            "tripod": tripod,
            "where": SECTIONS[key] if key is not None and view.get(key) else "author",
        }
        for topic, claim, stard, tripod, key in _ITEMS
    ]
