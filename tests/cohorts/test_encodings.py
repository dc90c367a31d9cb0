"""Tables in other encodings than UTF-8: read rightly, and said; or refused, but never read as something else."""

from __future__ import annotations

import gzip
import itertools

import pytest

from medlora import progress
from medlora.cohorts.labels import read_labels
from medlora.encodings import decode
from medlora.errors import MedloraError

READ = {
    "cp932": "良性 悪性 正常 肺炎 陽性 陰性 有 無 男 女 肺がん あり なし X線 CT像 MRI画像 大阪ｾﾝﾀｰ Ⅰ期 T1強調 ○ ×",
    "iso2022_jp_ext": "良性 悪性 有 無 X線 所見なし",
    "cp1252": "bösartig Lungenentzündung Größe ÖPNV unauffällig Straße „Rundherd“ 5°C µm cm³ m² 10±2 œdème Œdème à "
    "où cœur l’œil «été» n°5 créée ÉTÉ señal ¿Qué? ¡Hola! año 1º coração NÃO Åsa ö patient’s don’t 5–10 ½ ok… €5",
}
NEVER_READ_AS_ANOTHER = {
    "gbk": "良性 恶性 正常 肺炎 结节 阳性 阴性 是 否 有 无 男 右 癌 未见异常 胸腔积液",
    "euc_jp": "良性 悪性 正常 肺炎 結節 陽性 陰性 有 男 癌 肺がん あり 大阪ｾﾝﾀｰ 要精査",
    "cp949": "양성 악성 정상 비정상 폐렴 있음 없음 폐암 서울대병원",
    "big5": "良性 惡性 正常 異常 肺炎 陽性 陰性 氣胸",
    "cp1250": "złośliwy łagodny prawidłowy płuc wątroba",
    "cp1251": "злокачественный норма рак да нет",
    "mac_roman": "bösartig Lungenentzündung Müller unauffällig",
}


def tables(words, encoding):
    """Tables of each two of the words that are not ASCII."""
    for pair in itertools.combinations(words.split(), 2):
        text = "PatientID,label\r\n" + "".join(f"70{n:03d},{pair[n % 2]}\r\n" for n in range(12))
        if not text.isascii():
            yield text, text.encode(encoding)


@pytest.mark.parametrize("encoding", READ)
def test_what_can_be_told_is_read_rightly(encoding):
    for text, data in tables(READ[encoding], encoding):
        if not text.isascii():
            assert decode(data, "labels.csv") == (text, encoding)


@pytest.mark.parametrize("encoding", NEVER_READ_AS_ANOTHER)
def test_what_cannot_be_told_is_refused(encoding):
    for _, data in tables(NEVER_READ_AS_ANOTHER[encoding], encoding):
        with pytest.raises(MedloraError, match=r"cannot be told in which encoding .* labels\.csv") as caught:
            decode(data, "labels.csv")
        assert "UTF-8" in caught.value.fix


def test_damaged_utf_8_and_other_escapes_are_refused():
    data = "file,label\n1.dcm,良性\n2.dcm,悪性\n".encode()
    for bad in (data.replace("悪".encode(), "悪".encode()[:2]), data + b"\x1b$)C", b"file,label\na,\x1b$)C\x0e1\x0f"):
        with pytest.raises(MedloraError, match="cannot be told in which encoding"):
            decode(bad, "labels.csv")


@pytest.mark.parametrize(("encoding", "said"), [("cp932", "Shift JIS"), ("iso2022_jp", "ISO-2022-JP"), ("utf-8", "")])
def test_an_encoding_that_only_the_text_tells_is_said(tmp_path, encoding, said, capsys):
    path = tmp_path / "labels.csv"
    path.write_bytes("file,label\n1.dcm,良性\n2.dcm,悪性\n".encode(encoding))
    progress.quiet(False)
    assert list(read_labels(path).frame["label"]) == ["良性", "悪性"]
    err = capsys.readouterr().err
    assert said in err and bool(err) == bool(said)


def test_a_packed_table_is_read_up_to_a_size(tmp_path, monkeypatch):
    path = tmp_path / "labels.csv.gz"
    path.write_bytes(gzip.compress(b"file,label\na,x\nb,y\n"))
    assert list(read_labels(path).frame["label"]) == ["x", "y"]
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    with pytest.raises(MedloraError, match="damaged: gzip cannot unpack it"):
        read_labels(path)
    path.write_bytes(gzip.compress(b"file,label\n" + b"a,x\n" * 5000))
    monkeypatch.setattr("medlora.tables.MAX_BYTES", 1000)
    with pytest.raises(MedloraError, match=r"is more than .* unpacked"):
        read_labels(path)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("dataset.json", b'{\n "training": [\n  {"image": "a.nii.gz", "label": 1}\n ]\n}\n', "is JSON, not a table"),
        ("lines.json", b'{"file": "a", "label": 1}\n{"file": "b", "label": 0}\n', "is JSON, not a table"),
        ("train.csv.zip", b"PK\x03\x04rest", "is a ZIP archive(.|\n)*unpack it"),
    ],
)
def test_what_is_no_csv_is_called_by_its_name(tmp_path, name, data, message):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(MedloraError, match=message):
        read_labels(tmp_path / name)


@pytest.mark.parametrize("cells", ["Ⅱa期 Ⅲb期", "a型 b型", "x肺y x肝y"])
def test_letters_beside_kanji_of_a_japanese_table(cells):
    text = "ファイル,ステージ\n" + "".join(f"{n}.dcm,{cells.split()[n % 2]}\n" for n in range(80))
    assert decode(text.encode("cp932"), "labels.csv") == (text, "cp932")


def test_degrees_and_accents_alone():
    for word in ("T °C", "T°C", "O´Brien"):
        assert decode(f"file,{word}\n1,2\n".encode("cp1252"), "labels.csv")[0] == f"file,{word}\n1,2\n"
