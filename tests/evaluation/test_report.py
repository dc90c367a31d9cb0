"""The page: whole in itself, safe with hostile names, the same each time, and right in a real browser."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import struct
import subprocess
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from made_predictions import binary, multiclass, multilabel

from medlora.errors import MedloraError
from medlora.evaluation import OperatingPoint, ReportContext, compare, evaluate
from medlora.evaluation.figures import inline

HOSTILE = "<script>alert('x')</script>&\"'$\\alpha$_{}%"


class Page(HTMLParser):
    """Collects what a browser would load, run or confuse."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.targets: list[str] = []
        self.refers: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        for name, value in attrs:
            assert not name.startswith("on"), f"{tag} has a handler {name}"
            if name == "id":
                self.ids.append(value)
            elif name in ("src", "href", "xlink:href", "srcset", "data", "action"):
                (self.refers if value.startswith("#") else self.targets).append(value)
            self.refers += [f"#{r}" for r in re.findall(r"url\(#([^)]+)\)", value or "")]

    def handle_data(self, data):
        self.words.append(data)


def png(case: str) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(int(case, 16)).integers(0, 255, (32, 32), dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def full_context(frame: pd.DataFrame) -> ReportContext:
    weaker = np.clip(0.5 * frame.p_opacity + 0.25 * np.random.default_rng(0).random(len(frame)), 0, 1)
    return ReportContext(
        title="Opacity", subtitle="test split", data_note="phantom",
        flow={
            "found": 500, "excluded": {"NoPixelData": 12},
            "splits": {"train": {"normal": 200, "opacity": 88}, "test": {"normal": 130, "opacity": 70}},
        },
        training_curve=[{"epoch": i, "train_loss": 0.7 / (i + 1), "tune_loss": "", "tune_auc": 0.8} for i in range(5)],
        baselines={"linear probe": frame.assign(p_opacity=weaker, p_normal=1 - weaker)}, thumbnails=png,
        sizes={
            "adapter_bytes": 412_345, "backbone_bytes": 18_800_000,
            "trainable_parameters": 88_000, "total_parameters": 3_400_000,
        },
        source_check=[
            {"class": "opacity", "from": "image border", "auc": 0.71, "low": 0.66, "high": 0.76, "method": "logit"}
        ],
        warnings=["Made for a test."], provenance={"backbone": "tf_efficientnet_lite0"}, same_data_warning=True,
        uncalibrated=frame.assign(p_opacity=frame.p_opacity**2, p_normal=1 - frame.p_opacity**2),
    )  # fmt: skip


def check_page(text: str) -> Page:
    page = Page(text)
    assert all(t.startswith("data:image/png;base64,") for t in page.targets)
    assert not {"script", "link", "iframe", "object", "img"} & set(page.tags) - {"img"}
    assert "@import" not in text
    assert "http" not in re.sub(r'xmlns(:\w+)?="[^"]*"', "", text)
    assert len(page.ids) == len(set(page.ids))
    assert {r[1:] for r in page.refers} <= set(page.ids)
    assert "Research use only" in text
    return page


def test_full_report(tmp_path):
    frame = binary(200).assign(sex=["F", "M"] * 100)
    point = OperatingPoint(0.4, "sensitivity>=0.9", chosen_on="tune")
    result = evaluate(frame, threshold=point, prevalence=0.1)
    context = full_context(frame)
    result.write(tmp_path / "a", context)
    text = (tmp_path / "a/report.html").read_text(encoding="utf-8")
    words = " ".join(check_page(text).words)
    expected = [
        "image border", "0.71", "linear probe", "412 kB", "18.8 MB", "NoPixelData", "Subgroups", "Before scaling",
        "chosen on these very cases", "Calibration", "TRIPOD+AI",
        "Wilson's interval", "sensitivity ≥ 0.9 on tune", "Made for a test.",
    ]  # fmt: skip
    assert [e for e in expected if e not in words] == []
    assert text.count("phantom") >= 6  # the badge and every figure
    data = json.loads((tmp_path / "a/metrics.json").read_text(encoding="utf-8"))
    assert data["baselines"][0]["baseline"] == "linear probe"
    assert data["source_check"][0]["auc"] == 0.71
    names = {p.name for p in (tmp_path / "a/figures").iterdir()}
    stems = {"roc", "scores", "calibration", "decision", "subgroups-1", "training"}
    assert names == {f"{s}.{e}" for s in stems for e in ("svg", "png")}
    for p in (tmp_path / "a/figures").glob("*.png"):
        width, height = struct.unpack(">II", p.read_bytes()[16:24])
        assert min(width, height) > 200
    metrics = pd.read_csv(tmp_path / "a/tables/metrics.csv")
    assert metrics.loc[metrics.metric == "auc", "value"].item() == pytest.approx(result.get("auc").value)
    errors = pd.read_csv(tmp_path / "a/tables/errors.csv")
    called = frame.p_opacity >= 0.4
    assert (errors.error == "missed").sum() == ((frame.y == "opacity") & ~called).sum()
    assert (errors.error == "false alarm").sum() == ((frame.y == "normal") & called).sum()
    # The worst missed case comes first, with its own picture.
    missed = frame[(frame.y == "opacity") & ~called].sort_values("p_opacity")
    assert errors.case_id[0] == missed.case_id.iloc[0]
    assert base64.b64encode(png(missed.case_id.iloc[0])).decode() in text
    # The same input gives the same bytes: no dates, no random names.
    result.write(tmp_path / "b", context)
    for p in sorted(q for q in (tmp_path / "a").rglob("*") if q.is_file()):
        assert p.read_bytes() == (tmp_path / "b" / p.relative_to(tmp_path / "a")).read_bytes(), p.name
    assert str(tmp_path) not in text


def test_hostile_names(tmp_path):
    frame = binary(120).rename(columns={"p_opacity": f"p_{HOSTILE}"})
    frame["y"] = np.where(frame.y == "opacity", HOSTILE, "normal")
    frame["case_id"] = [f"{HOSTILE}{i}" for i in range(120)]
    frame["site"] = [f"</style>{HOSTILE}", "]]><b>"] * 60
    context = ReportContext(
        title=HOSTILE, subtitle=HOSTILE, data_note=HOSTILE, warnings=[HOSTILE], provenance={HOSTILE: HOSTILE},
        flow={"found": 1, "excluded": {HOSTILE: 1}, "splits": {HOSTILE: {HOSTILE: 1}}}, sizes={HOSTILE: 1},
        source_check=[{"class": HOSTILE, "from": HOSTILE, "auc": 0.5, "method": HOSTILE}],
        training_curve=[{"epoch": 1, f"{HOSTILE} loss": 0.5}], baselines={HOSTILE: frame},
    )  # fmt: skip
    evaluate(frame).write(tmp_path / "a", context)
    page = check_page((tmp_path / "a/report.html").read_text(encoding="utf-8"))
    assert "b" not in page.tags or page.tags.count("b") < 10
    assert "script" not in page.tags
    assert page.tags.count("style") == 1 + sum(1 for _ in (tmp_path / "a/figures").glob("*.svg"))
    assert HOSTILE in " ".join(page.words)
    compare({HOSTILE: frame, "b": frame}).write(tmp_path / "b", title=HOSTILE)
    check_page((tmp_path / "b/comparison.html").read_text(encoding="utf-8"))
    shown = evaluate(frame)
    summary = Page(shown._repr_html_() + shown._repr_html_())  # two cells of one notebook
    assert "script" not in summary.tags
    assert summary.tags.count("svg") == 2
    assert len(summary.ids) == len(set(summary.ids))
    assert summary.targets == []


@pytest.mark.parametrize("make", [multiclass, multilabel], ids=["multiclass", "multilabel"])
def test_several_classes(tmp_path, make):
    evaluate(make(200)).write(tmp_path / "a")
    page = check_page((tmp_path / "a/report.html").read_text(encoding="utf-8"))
    assert "Reporting checklists" in " ".join(page.words)


def test_other_cases_as_a_baseline_are_refused(tmp_path):
    frame = binary(100)
    with pytest.raises(MedloraError, match="linear probe is not on the same cases"):
        evaluate(frame).write(tmp_path / "a", ReportContext(baselines={"linear probe": frame.iloc[2:]}))
    with pytest.raises(MedloraError, match="not a PNG"):
        evaluate(frame).write(tmp_path / "a", ReportContext(thumbnails=lambda case: b"<svg onload=x>"))
    assert list(tmp_path.iterdir()) == []


def test_ids_of_inlined_drawings_do_not_meet():
    use = '<path id="a"/><use xlink:href="#a" clip-path="url(#a)"/>'
    svg = f'<?xml version="1.0"?><svg width="1pt" height="1pt">{use}</svg>'.encode()
    text = inline(svg, "roc", 'it"s')
    assert 'id="roc-a"' in text
    assert 'href="#roc-a"' in text
    assert "url(#roc-a)" in text
    assert "width" not in text


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_in_a_browser(tmp_path):
    """No console message, no request, nothing wider than the screen at 400 and 1280 pixels, and it prints."""
    frame = binary(200).assign(sex=["F", "M"] * 100)
    evaluate(frame).write(tmp_path / "a", full_context(frame))
    page = tmp_path / "a/report.html"
    probe = tmp_path / "probe.html"
    text = json.dumps(page.read_text(encoding="utf-8")).replace("</", "<\\/").replace("<!--", "<\\!--")
    # A page that holds the report in a frame of the wanted width and writes down what the browser made of it.
    probe.write_text(
        "<!doctype html><body><script>"
        "const out = []; let left = 2;"
        "for (const width of [400, 1280]) {"
        " const f = document.createElement('iframe'); f.style.cssText = `width:${width}px;height:900px;border:0`;"
        " f.onload = () => { const d = f.contentDocument, w = f.contentWindow;"
        "  out.push({width, page: d.documentElement.scrollWidth, svg: d.querySelectorAll('svg').length,"
        "   broken: [...d.images].filter(i => !i.naturalWidth).length,"
        "   small: [...d.querySelectorAll('figure svg')].filter(s => s.getBoundingClientRect().width < 280).length,"
        "   requests: w.performance.getEntriesByType('resource').filter(r => !r.name.startsWith('data:')).length});"
        "  if (!--left) document.body.textContent = JSON.stringify(out); };"
        " f.srcdoc = REPORT; document.body.append(f); }"
        "</script>".replace("REPORT", text),
        encoding="utf-8",
    )  # fmt: skip
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    common = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", profile, "--enable-logging=stderr"]
    done = subprocess.run(
        [*common, "--window-size=1400,1000", "--virtual-time-budget=8000", "--dump-dom", probe.as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert "CONSOLE" not in done.stderr
    seen = json.loads(re.search(r"<body>(\[.*?\])</body>", done.stdout, re.S)[1])
    assert len(seen) == 2
    for view in seen:
        assert view["page"] <= view["width"]
        assert (view["broken"], view["small"], view["requests"]) == (0, 0, 0)
        assert view["svg"] == 6
    pdf = tmp_path / "report.pdf"
    printing = [*common, f"--print-to-pdf={pdf}", page.as_uri()]
    done = subprocess.run(printing, capture_output=True, text=True, timeout=120, check=True)
    assert "CONSOLE" not in done.stderr
    assert pdf.read_bytes().startswith(b"%PDF")
    assert pdf.stat().st_size > 50_000
