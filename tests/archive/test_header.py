"""The indexed attributes, read from the heads of data sets."""

from __future__ import annotations

import zlib
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import Dataset, config, dcmread
from pydicom.charset import python_encoding
from pydicom.dataset import Dataset as Item

import dimse_trio as dimse
from dimse_trio import datasets
from dimse_trio.archive import header as header_module
from dimse_trio.archive.attributes import LEVELS, STORED
from dimse_trio.archive.header import Header, MissingAttribute, read_header
from dimse_trio.matching import values_of
from dimse_trio.protocol.uids import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    NATIVE_TRANSFER_SYNTAXES,
)

from .instances import TEST_FILES, failing, instance


def value(header: Header, keyword: str) -> str:
    (found,) = (
        header.values[level][position]
        for level in LEVELS
        for position, attribute in enumerate(STORED[level])
        if attribute.keyword == keyword
    )
    return found


def read(data_set: Dataset, syntax: str = EXPLICIT_VR_LITTLE_ENDIAN) -> Header:
    return read_header(BytesIO(datasets.encode(data_set, syntax)), syntax)


def dicom_files() -> list[Path]:
    files: list[Path] = []
    for path in sorted(TEST_FILES.rglob("*")):
        try:
            dimse.Instance.from_file(path)
        except (OSError, dimse.InvalidFile):
            continue
        files.append(path)
    return files


@pytest.mark.parametrize("path", dicom_files(), ids=lambda path: path.name)
def test_it_reads_what_pydicom_reads(path: Path) -> None:
    found = dimse.Instance.from_file(path)
    with path.open("rb") as file:
        file.seek(found.offset)
        try:
            header = read_header(file, found.transfer_syntax_uid)
        except MissingAttribute:
            data_set = dcmread(path, stop_before_pixels=True)
            assert not all(
                data_set.get(keyword) for keyword in ("StudyInstanceUID", "SeriesInstanceUID")
            )
            return
    data_set = dcmread(path, stop_before_pixels=True)
    for level in LEVELS:
        for attribute, text in zip(STORED[level], header.values[level], strict=True):
            # pydicom drops the delimiters of empty component groups
            plain = text.rstrip("=") if attribute.vr == "PN" else text
            assert plain == "\\".join(values_of(data_set, attribute.tag)), attribute.keyword


@pytest.mark.parametrize("syntax", NATIVE_TRANSFER_SYNTAXES)
def test_every_native_transfer_syntax(syntax: str) -> None:
    item = Item()
    item.RequestedProcedureID = "x" * 20_000
    item.ScheduledProtocolCodeSequence = [Item(), Item()]
    data_set = instance(
        Rows=512,
        ImageType=["ORIGINAL", "PRIMARY"],
        PatientName="Müller^Ute",
        SpecificCharacterSet="ISO_IR 192",
        RequestAttributesSequence=[item, item],
        ContentLabel="LABEL",
    )
    for undefined in (False, True):
        data_set["RequestAttributesSequence"].is_undefined_length = undefined
        item.is_undefined_length_sequence_item = undefined
        header = read(data_set, syntax)
        assert value(header, "Rows") == "512"
        assert value(header, "ImageType") == "ORIGINAL\\PRIMARY"
        assert value(header, "PatientName") == "Müller^Ute"
        assert value(header, "ContentLabel") == "LABEL"  # behind the sequences
        assert value(header, "StudyID") == ""
        assert header.sop_instance_uid == "1.2.1.1.1"
        assert header.unique_key("PATIENT") == "P1"


@pytest.mark.parametrize(
    "keyword", ["SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"]
)
def test_an_instance_has_uids(keyword: str) -> None:
    for data_set in (instance(**{keyword: None}), instance(**{keyword: ""})):
        with pytest.raises(MissingAttribute, match=keyword):
            read(data_set)


def test_elements_in_the_wrong_order_are_left_to_pydicom() -> None:
    head = Dataset()
    head.BurnedInAnnotation = "NO"
    late = Dataset()
    late.TextValue = "behind everything that is wanted"
    syntax = IMPLICIT_VR_LITTLE_ENDIAN
    data = b"".join(datasets.encode(part, syntax) for part in (head, instance()))
    assert read_header(BytesIO(data), syntax).unique_key("STUDY") == "1.2.1"


def test_values_are_without_padding() -> None:
    data_set = instance(StudyDescription=" a ", PatientComments=" b ", OtherPatientIDs=["1 ", " 2"])
    header = read(data_set)
    assert value(header, "StudyDescription") == "a"
    assert value(header, "PatientComments") == " b"
    assert value(header, "OtherPatientIDs") == "1\\2"


def with_character_set(character_set: bytes, name: bytes) -> bytes:
    """An instance in Explicit VR Little Endian with a Specific Character Set and a name."""
    data = datasets.encode(instance(PatientName="N" * len(name)), EXPLICIT_VR_LITTLE_ENDIAN)
    character_set += b" " * (len(character_set) % 2)
    head = b"\x08\x00\x05\x00CS" + len(character_set).to_bytes(2, "little") + character_set
    return head + data.replace(b"N" * len(name), name)


NO_CHARACTER_SETS = [
    b"FANTAS",
    b"ISO_IR 999",
    b"ISO 2022 IR 999",
    b"ISO-IR 999",
    b"IDNA",
    b"PUNYCODE",
    b"UNDEFINED",
    b"UTF-7",
    b"UTF-16",
    b"US-ASCII",
    b"unicode_escape",
    b"raw_unicode_escape",
    b"mbcs",
    *(codec.encode() for codec in ("rot13", "base64", "zlib", "hex", "bz2", "quopri", "uu")),
    b"a\0b",
    b"\xfc\xff",
    b"../../x",
    b"",
    b"\\",
    b"x" * 60000,
]
"""Values that PS3.3 does not define, of which Python takes some for codecs."""


@pytest.mark.parametrize("character_set", NO_CHARACTER_SETS, ids=lambda name: repr(name[:20]))
@pytest.mark.parametrize("strict", [False, True])
def test_what_is_no_character_set_is_the_default_repertoire(
    character_set: bytes, strict: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if strict:
        monkeypatch.setattr(config.settings, "reading_validation_mode", config.RAISE)
    for values in (character_set, character_set + b"\\IDNA"):
        data = with_character_set(values, b"D\xf6e^John")
        header = read_header(BytesIO(data), EXPLICIT_VR_LITTLE_ENDIAN)
        assert value(header, "PatientName") == "D\xf6e^John"


@pytest.mark.parametrize("character_set", [b"IDNA", b"rot13", b"FANTAS"])
def test_nor_is_it_an_obstacle_where_pydicom_reads(character_set: bytes) -> None:
    data = with_character_set(character_set, b"D\xf6e^John")
    header = read_header(BytesIO(data), IMPLICIT_VR_LITTLE_ENDIAN)  # which it is not
    assert value(header, "PatientName") == "D\xf6e^John"


@pytest.mark.parametrize(
    ("character_set", "raw", "text"),
    [
        (b"ISO_IR 144", b"\xbb\xee", "\u041b\u044e"),
        (b"ISO-IR 144", b"\xbb\xee", "\u041b\u044e"),
        (b"ISO IR 192", b"\xc3\xb6", "\xf6"),
        (b"UTF-8", b"\xc3\xb6", "\xf6"),
        (b"\\ISO-2022-IR-144", b"a\x1b-L\xbb\xee", "a\u041b\u044e"),
        (b"ISO 2022 IR 6\\ISO 2022 IR 87", b"\x1b$B;3\x1b(B", "\u5c71"),
        (b"ISO_IR 192\\ISO_IR 144", b"\xc3\xb6", "\xf6"),
        (b"ISO_IR 144\\ISO_IR 192", b"\xbb\xee", "\u041b\u044e"),
        (b"GB18030", b"\xce\xe2", "\u5434"),
        (b"ISO_IR 192", b"\xff\xfe", "\ufffd\ufffd"),
        (b"ISO_IR 144", b"a\x1b$B;3", "a\x1b$B;3"),
    ],
)
@pytest.mark.parametrize("strict", [False, True])
def test_character_sets_of_the_standard(
    character_set: bytes, raw: bytes, text: str, strict: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if strict:
        monkeypatch.setattr(config.settings, "reading_validation_mode", config.RAISE)
    data = with_character_set(character_set, raw + b" " * (len(raw) % 2))
    header = read_header(BytesIO(data), EXPLICIT_VR_LITTLE_ENDIAN)
    assert value(header, "PatientName") == text


@pytest.mark.parametrize("name", sorted(python_encoding))
def test_no_text_fails_in_a_character_set_of_the_standard(name: str) -> None:
    raw = bytes(range(256)).replace(b"=", b"").replace(b"\\", b"") + b"\x1b$B\xff\x1b(J\x1b"
    data = with_character_set(name.encode() + b"\\ISO 2022 IR 87", raw + b" " * (len(raw) % 2))
    assert read_header(BytesIO(data), EXPLICIT_VR_LITTLE_ENDIAN).unique_key("STUDY") == "1.2.1"


def test_whatever_is_raised_is_said_to_be_no_instance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(header_module, "_decoded", failing(ZeroDivisionError("a patient's name")))
    with pytest.raises(dimse.InvalidFile, match="ZeroDivisionError") as caught:
        read(instance())
    assert "patient" not in str(caught.value)


@pytest.mark.parametrize("vr", ["LO", "PN", "DA"])
def test_an_item_whose_length_looks_like_a_vr(vr: str) -> None:
    item = Item()
    length = int.from_bytes(vr.encode(), "little")
    item.RequestedProcedureDescription = "x" * (length - 8)
    data_set = instance(ReferencedStudySequence=[item])
    data_set["ReferencedStudySequence"].is_undefined_length = True
    data = datasets.encode(data_set, EXPLICIT_VR_LITTLE_ENDIAN)
    assert b"\xfe\xff\x00\xe0" + vr.encode() + b"\0\0" in data
    assert read_header(BytesIO(data), EXPLICIT_VR_LITTLE_ENDIAN).unique_key("STUDY") == "1.2.1"


def test_an_overlong_value_is_not_indexed() -> None:
    header = read(
        instance(PatientComments="x" * (header_module.MAX_VALUE_LENGTH + 2)), "1.2.840.10008.1.2"
    )
    assert value(header, "PatientComments") == ""


@pytest.mark.parametrize("syntax", NATIVE_TRANSFER_SYNTAXES)
@pytest.mark.parametrize("garbage", [b"", b"garbage!" * 100, b"\xff" * 1000, bytes(1000)])
def test_garbage_is_no_instance(garbage: bytes, syntax: str) -> None:
    with pytest.raises(dimse.InvalidFile):
        read_header(BytesIO(garbage), syntax)


@pytest.mark.parametrize("syntax", [EXPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_BIG_ENDIAN])
def test_a_data_set_that_is_cut_off(syntax: str) -> None:
    data = datasets.encode(instance(), syntax)
    for length in range(data.index(b"Doe") + 3):
        with pytest.raises(dimse.InvalidFile):
            read_header(BytesIO(data[:length]), syntax)


@pytest.mark.parametrize(
    "rest",
    [
        b"\x08\x00\x05\x00CS",
        b"\x08\x00\x40\x11SQ\0\0",
        b"\x08\x00\x40\x11SQ\0\0\xff\xff",
        b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff",
        b"\x08\x00\x40\x11UN\0\0\xff\xff\xff\xffnothing",
        b"\x10\x00\x10\x00PN\x10\x00Doe",
        b"\x10\x00\x10\x00??\x10\x00Doe",
    ],
)
def test_an_end_that_is_none(rest: bytes) -> None:
    with pytest.raises(dimse.InvalidFile):
        read_header(BytesIO(rest), EXPLICIT_VR_LITTLE_ENDIAN)


def test_text_that_no_database_takes() -> None:
    data = datasets.encode(instance(PatientComments="abcdef"), EXPLICIT_VR_LITTLE_ENDIAN)
    header = read_header(
        BytesIO(data.replace(b"abcdef", b"a\0\xed\xa0\x80f")), EXPLICIT_VR_LITTLE_ENDIAN
    )
    text = value(header, "PatientComments")
    assert "\0" not in text
    assert text.startswith("a")
    text.encode()


def test_a_bomb_is_not_inflated() -> None:
    packer = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    data_set = instance()
    head = datasets.encode(data_set, EXPLICIT_VR_LITTLE_ENDIAN)
    body = packer.compress(head + b"\xe0\x7f\x10\x00OB\0\0\0\0\0\x40")
    zeros = bytes(1 << 20)
    body += b"".join(packer.compress(zeros) for _ in range(48)) + packer.flush()
    header = read_header(BytesIO(body), DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN)
    assert header.unique_key("STUDY") == "1.2.1"


def test_a_head_without_end_is_given_up() -> None:
    element = b"\x09\x00\x10\x10LO\x00\x00"
    endless = element * (header_module.MAX_ELEMENTS + 10)
    with pytest.raises(dimse.InvalidFile, match="elements"):
        read_header(BytesIO(endless), EXPLICIT_VR_LITTLE_ENDIAN)


def test_no_depth_of_nesting_matters() -> None:
    depth = 5000
    opening = b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    closing = b"\xfe\xff\x0d\xe0\0\0\0\0\xfe\xff\xdd\xe0\0\0\0\0"
    data = opening * depth + closing * depth
    data += datasets.encode(instance(), EXPLICIT_VR_LITTLE_ENDIAN)
    header = read_header(BytesIO(data), EXPLICIT_VR_LITTLE_ENDIAN)
    assert header.unique_key("STUDY") == "1.2.1"
