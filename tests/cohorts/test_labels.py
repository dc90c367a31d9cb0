from __future__ import annotations

import pytest

from medlora.cohorts import headings
from medlora.cohorts.labels import read_labels
from medlora.errors import MedloraError

TEXT = "Datei;Diagnose;Größe\na.dcm;Lungenentzündung;1,5\nb.dcm;gesund;2\n"
JAPANESE = "ファイル名,診断,施設\na.dcm,肺炎,東京病院\nb.dcm,正常,大阪ｾﾝﾀｰ\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "latin-1", "utf-16"])
def test_western_encodings_and_semicolons(tmp_path, encoding):
    path = tmp_path / "labels.csv"
    path.write_bytes(TEXT.encode(encoding))
    table = read_labels(path)
    assert list(table.frame.columns) == ["Datei", "Diagnose", "Größe"]
    assert list(table.frame["Diagnose"]) == ["Lungenentzündung", "gesund"]
    assert list(table.frame["Größe"]) == ["1,5", "2"]
    assert list(table.frame.index) == [2, 3]


@pytest.mark.parametrize("word", ["Müller", "pneumopathie bactérienne", "señal", "à", "Größe ÄÖÜ", "coração"])
def test_latin_1_words_are_not_taken_for_japanese(tmp_path, word):
    path = tmp_path / "labels.csv"
    path.write_bytes(f"file,label\na,{word}\nb,{word} x\n".encode("latin-1"))
    assert set(read_labels(path).frame["label"]) == {word, f"{word} x"}


@pytest.mark.parametrize("encoding", ["cp932", "utf-8", "utf-8-sig"])
def test_japanese_encodings(tmp_path, encoding):
    path = tmp_path / "labels.csv"
    path.write_bytes(JAPANESE.encode(encoding))
    table = read_labels(path)
    assert list(table.frame["診断"]) == ["肺炎", "正常"]
    assert headings.key_columns(table) == {"file": "ファイル名"}
    assert headings.site_column(table) == "施設"
    assert headings.label_column(table, {"ファイル名", "施設"}) == "診断"


def test_tabs_quotes_empty_lines_and_row_numbers(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text('file\tlabel\tnote\n"a\tb.dcm"\t x \t"two\nlines"\n\n c.dcm \ty\t\n', encoding="utf-8")
    table = read_labels(path)
    assert table.delimiter == "\t"
    assert list(table.frame["file"]) == ["a\tb.dcm", "c.dcm"]
    assert list(table.frame["label"]) == ["x", "y"]
    assert list(table.frame.index) == [2, 4]  # as a spreadsheet numbers them


def test_one_column_more_in_the_data_than_in_the_heading_names_the_row(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("file,label\na,x\nb,y,z\n")
    with pytest.raises(MedloraError, match="row 3: 3 cells, but the heading has 2"):
        read_labels(path)


def test_excel_hint_line_and_trailing_delimiters(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("sep=;\r\nfile;label;\r\na;x;\r\n")
    assert read_labels(path).frame.to_dict("records") == [{"file": "a", "label": "x"}]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "holds no rows"),
        (b"file,label\n", "holds no rows"),
        (b"PK\x03\x04rest", "spreadsheet workbook"),
        (b"file,label\0\na,b\n", "not a text file"),
        (b"file,label,label\na,b,c\n", "column 'label' twice"),
        (b"Export of 1 May\nfile,label\na,b\n", "row 2: 2 cells, but the heading has 1(.|\n)*remove the lines above"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path, data, message):
    path = tmp_path / "labels.csv"
    path.write_bytes(data)
    with pytest.raises(MedloraError, match=message):
        read_labels(path)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(MedloraError, match="there is no such file"):
        read_labels(tmp_path / "none.csv")
    with pytest.raises(MedloraError, match="cannot read the labels"):
        read_labels(tmp_path)


def test_keys_are_told_by_heading_or_asked_for(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("Image Index,Patient ID,StudyInstanceUID,Fallnummer,Finding\na,1,1.2,7,x\n")
    table = read_labels(path)
    assert list(headings.key_columns(table).items()) == [
        ("file", "Image Index"),
        ("study", "StudyInstanceUID"),
        ("patient", "Patient ID"),
    ]
    assert headings.asked_key(table, "patient") == ("patient", "Patient ID")
    assert headings.asked_key(table, "image_index") == ("file", "Image Index")
    assert headings.asked_key(table, "accession=Fallnummer") == ("accession", "Fallnummer")
    with pytest.raises(MedloraError, match="not clear from its heading"):
        headings.asked_key(table, "Fallnummer")
    with pytest.raises(MedloraError, match=r"no column .* has a heading known for that"):
        headings.asked_key(table, "accession")
    with pytest.raises(MedloraError, match="no column 'nothing'"):
        headings.asked_key(table, "nothing")


@pytest.mark.parametrize(
    ("patient", "label"),
    [("Patienten-ID", "Diagnose"), ("ID patient", "Classe"), ("ID_paciente", "Diagnóstico"), ("カルテ番号", "診断名"),
     ("患者番号", "ラベル")],
)  # fmt: skip
def test_headings_in_other_languages(tmp_path, patient, label):
    path = tmp_path / "labels.csv"
    path.write_text(f"{patient},Alter,{label}\n1,40,x\n", encoding="utf-8")
    table = read_labels(path)
    assert headings.key_columns(table) == {"patient": patient}
    assert headings.label_column(table, {patient}) == label


def test_label_column_is_told_or_asked_for(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("file,a,b\nx,1,2\n")
    with pytest.raises(MedloraError, match=r"which column .* is not clear"):
        headings.label_column(read_labels(path), {"file"})
    assert headings.label_column(read_labels(path), {"file", "a"}) == "b"


@pytest.mark.parametrize("closed", ["", 'x.dcm,"ok"\n'])
def test_an_unclosed_quotation_mark_swallows_no_rows(tmp_path, closed):
    path = tmp_path / "labels.csv"
    path.write_text('file,remark\n1.dcm,fine\n2.dcm,"see note\n3.dcm,fine\n' + closed)
    with pytest.raises(MedloraError, match=r"labels\.csv row 3: a quotation mark is not closed"):
        read_labels(path)
    path.write_text('file,remark\n1.dcm,6" tube\n2.dcm,"two lines,\nwith commas, and a ""word""" \n3.dcm,fine\n')
    assert read_labels(path).frame["remark"].tolist() == ['6" tube', 'two lines,\nwith commas, and a "word"', "fine"]


def test_numbers_that_are_kept_as_text_lose_what_keeps_them(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text('patient,label\n"=""00123""",\'it\n\'00124,x\n="00125",y\n')
    table = read_labels(path)
    assert list(table.frame["patient"]) == ["00123", "00124", "00125"]
    assert list(table.frame["label"]) == ["'it", "x", "y"]


@pytest.mark.parametrize("first", ["P00,x", "A,Doe^Jane", "7,x"])
def test_a_first_row_like_the_others_is_no_heading(tmp_path, first):
    path = tmp_path / "labels.csv"
    path.write_text("\n".join([first, *(f"P{n:02d},x" for n in range(1, 9))]))
    assert headings.has_no_heading(read_labels(path))
    path.write_text("\n".join(["patient1,class", *(f"P{n:02d},x" for n in range(1, 9))]))
    assert not headings.has_no_heading(read_labels(path))
