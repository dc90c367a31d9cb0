"""What a predictions file may and may not hold: every refusal names counts and rows."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from medlora.errors import MedloraError
from medlora.evaluation import evaluate, gather, read_predictions


def write(tmp_path, text: str, encoding: str = "utf-8"):
    path = tmp_path / "predictions.csv"
    path.write_bytes(text.encode(encoding))
    return path


GOOD = "case_id,patient,y,p_no,p_yes\na,1,no,0.9,0.1\nb,2,yes,0.2,0.8\nc,3,no,0.6,0.4\nd,4,yes,0.7,0.3\n"


def test_designs_form(tmp_path):
    frame = read_predictions(write(tmp_path, GOOD))
    assert list(frame.columns) == ["case_id", "patient", "y", "p_no", "p_yes"]
    result = evaluate(frame)
    assert result.predictions.classes == ("no", "yes")
    assert result.get("auc").value == 0.75  # d below c
    assert result.get("sensitivity").value == 0.5
    assert result.get("specificity").value == 1.0
    assert evaluate(frame, positive="no").get("auc").value == 0.75
    assert evaluate(frame, positive="no").get("sensitivity", "no").value == 1.0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (GOOD.replace("c,3,no,0.6,0.4", "b,3,no,0.6,0.4"), ["1 case occurs more than once", "2 of 4", "rows 3, 4"]),
        (GOOD.replace("0.6,0.4", "nan,0.4"), ["1 of 4", "'p_no'", "nan", "row 4"]),
        (GOOD.replace("0.6,0.4", "0.6,inf"), ["1 of 4", "'p_yes'", "inf", "row 4"]),
        (GOOD.replace("0.6,0.4", ",0.4"), ["1 of 4", "empty", "row 4"]),
        (GOOD.replace("0.6,0.4", "0.6,0.5"), ["1 of 4", "do not sum to 1", "0.1", "row 4"]),
        (GOOD.replace("0.6,0.4", "-2.5,3.5"), ["1 of 4", "outside 0 to 1", "-2.5", "row 4", "--score-column"]),
        (GOOD.replace("c,3,no", "c,3,maybe"), ["1 of 4", "'maybe'", "'no', 'yes'", "row 4"]),
        (GOOD.replace("yes,", "no,").replace("p_no,", "p_yes,"), ["the column 'p_yes' twice"]),
        (GOOD.replace(",yes,", ",no,"), ["one class only", "no 4", "yes 0"]),
        (GOOD.replace(",yes,", ",,").replace(",no,", ",,"), ["none of the 4 rows has a label"]),
        ("case_id,patient,y,p_no,p_yes\na,1,no,.9,.1\nb,1,yes,.2,.8\n", ["2 labelled cases", "one patient"]),
        (GOOD.replace("b,2,", "b,,"), ["1 of 4", "no patient", "row 3"]),
        (GOOD.replace("b,2,", ",2,"), ["1 of 4", "no case_id", "row 3"]),
        (GOOD.replace(",y,", ",label,"), ["no column 'y'", "'label'", "--label-column"]),
        (GOOD.replace("p_no,p_yes", "no,yes"), ["no columns p_CLASS", "--score-column"]),
        ("case_id,y,p_no,p_yes\n", ["no rows"]),
        ("a;b\n1;2\n", ["no column 'y'", "'a', 'b'"]),
        ("", ["holds no rows"]),
        ("\0\1\2", ["not a text file"]),
        ("y_a,y_b,p_a,p_b\n1,0,.9,.1\n0,2,.1,.2\n", ["1 of 2", "y_b", "'2'", "row 3"]),
        ("y_a,y_b,p_a,p_b\n1,0,.9,.1\n1,0,.1,.2\n", ["no label has both classes", "a: 2 present, 0 absent"]),
        ("y_a,p_a,p_b\n1,.9,.1\n0,.1,.2\n", ["no column y_ for 'b'"]),
    ],
)
def test_refused(tmp_path, text, said):
    with pytest.raises(MedloraError) as error:
        read_predictions(write(tmp_path, text))
    for words in said:
        assert words in str(error.value)


def test_values_that_may_be_identifiers_are_not_repeated(tmp_path):
    names = [f"Doe{i}" for i in range(9)]
    text = "y,name,s\n" + "".join(f"{i % 2},{n},0.{i}\n" for i, n in enumerate(names))
    for options in ({"label_column": "name", "score_column": "s"}, {"label_column": "y", "score_column": "name"}):
        with pytest.raises(MedloraError) as error:
            read_predictions(write(tmp_path, text), **options)
        assert "Doe" not in str(error.value)


def test_missing_file(tmp_path):
    with pytest.raises(MedloraError, match="cannot read"):
        read_predictions(tmp_path / "none.csv")


def test_a_hospitals_csv(tmp_path):
    """Semicolons, decimal commas, Latin-1, a byte order mark, own column names, raw scores, unlabelled rows."""
    text = "Fall;Diagnose;Wert\n1;gesund;0,25\n2;Übel;0,75\n3;gesund;0,5\n4;;0,9\n5;Übel;0,6\n"
    frame = read_predictions(
        write(tmp_path, text, "latin-1"), label_column="Diagnose", score_column="Wert", positive="Übel"
    )
    result = evaluate(frame)
    assert result.get("auc").value == 1.0
    assert result.get("auc").class_ == "Übel"
    assert "1 of 5 rows have no label and were left out." in result.notes
    assert any("No patients are named" in n for n in result.notes)
    marked = read_predictions(write(tmp_path, "\ufeff" + GOOD))
    assert marked.columns[0] == "case_id"


@pytest.mark.parametrize("encoding", ["cp932", "utf-8-sig", "utf-16"])
def test_a_japanese_hospitals_csv(tmp_path, encoding):
    text = "case_id;patient;y;p_正常;p_肺炎\na;1;正常;0,9;0,1\nb;2;肺炎;0,2;0,8\nc;3;正常;0,6;0,4\nd;4;肺炎;0,7;0,3\n"
    result = evaluate(write(tmp_path, text, encoding))
    assert result.predictions.classes == ("正常", "肺炎")
    assert result.get("auc").value == 0.75
    assert evaluate(write(tmp_path, "sep=;\n" + text, encoding)).to_dict() == result.to_dict()


def test_rows_are_numbered_as_a_spreadsheet_does(tmp_path):
    text = GOOD.replace("b,2,", "\n,,,,\nb,2,").replace("0.6,0.4", "0.6,0.5")
    with pytest.raises(MedloraError, match=r"do not sum to 1 .*: row 6 "):
        read_predictions(write(tmp_path, text))


def test_raw_scores_are_used_as_they_are(tmp_path):
    """Scores from 20 to 100 are no probabilities: no sigmoid, no calibration, no answers, and no flip."""
    text = "y,s\n" + "".join(f"{y},{s}\n" for y, s in [(0, 20), (1, 100), (0, 90), (1, 80), (0, 30)])
    result = evaluate(read_predictions(write(tmp_path, text), label_column="y", score_column="s"))
    assert result.get("auc").value == pytest.approx(5 / 6)
    assert {m.metric for m in result.metrics} == {"auc"}
    assert any("discrimination only" in n for n in result.notes)
    at = evaluate(write(tmp_path, text), label_column="y", score_column="s", threshold=85)
    assert (at.get("sensitivity").value, at.get("specificity").value) == (0.5, pytest.approx(2 / 3))
    worse = text.replace("1,100", "1,1").replace("1,80", "1,2")
    assert evaluate(write(tmp_path, worse), label_column="y", score_column="s").get("auc").value == 0.0


def test_labels_that_need_a_guess_are_refused(tmp_path):
    text = "diagnosis,s\nbenign,0.1\nmalignant,0.9\n"
    with pytest.raises(MedloraError, match="--positive"):
        read_predictions(write(tmp_path, text), label_column="diagnosis", score_column="s")
    with pytest.raises(MedloraError, match="no row has the positive class 'cancer'"):
        read_predictions(write(tmp_path, text), label_column="diagnosis", score_column="s", positive="cancer")
    one = evaluate(write(tmp_path, "y,p_lesion\n0,0.1\n1,0.9\n0,0.2\n1,0.4\n"))
    assert one.predictions.classes == ("not lesion", "lesion")
    with pytest.raises(MedloraError, match="no class that has a p_ column"):
        read_predictions(write(tmp_path, GOOD.replace(",no,", ",0,").replace(",yes,", ",1,")))


def test_gather_drops_the_copies_of_padded_batches():
    rng = np.random.default_rng(0)
    p = rng.random(13)
    whole = pd.DataFrame({"case_id": [f"c{i:02}" for i in range(13)], "y": ["no", "yes"] * 6 + ["no"]})
    whole["patient"], whole["p_no"], whole["p_yes"] = whole.case_id, 1 - p, p
    # As a distributed sampler does: pad to a multiple of 4 with the first cases, then deal in turn.
    padded = pd.concat([whole, whole.iloc[:3]], ignore_index=True)
    parts = [padded.iloc[rank::4] for rank in range(4)]
    joined = gather(parts, expected=list(whole.case_id))
    pd.testing.assert_frame_equal(joined, whole)
    assert evaluate(joined).to_dict() == evaluate(whole).to_dict()
    assert evaluate(gather(parts)).to_dict() == evaluate(whole).to_dict()
    with pytest.raises(MedloraError, match="1 of 13 cases have no prediction"):
        gather([p[p.case_id != "c07"] for p in parts], expected=list(whole.case_id))
    other = parts[1].assign(p_yes=parts[1].p_yes * 0.9, p_no=1 - parts[1].p_yes * 0.9)
    with pytest.raises(MedloraError, match="copies that disagree"):
        gather([parts[0], other, *parts[2:]])
