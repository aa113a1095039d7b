"""Text whose character set lacks it: sent in another, or refused, never as something else."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from pydicom import Dataset

import dimse_trio as dimse
from dimse_trio import datasets
from dimse_trio.protocol.uids import IMPLICIT_VR_LITTLE_ENDIAN
from dimse_trio.testing import associated_pair

from .script import instance, study


@pytest.mark.parametrize(
    "character_set",
    [
        "ISO_IR 100",
        "ISO_IR 13",
        ["", "ISO 2022 IR 149"],
        ["", "ISO 2022 IR 58"],
        "ISO_IR 999",
        None,
    ],
)
async def test_a_match_that_does_not_fit_its_character_set_is_sent_in_utf_8(
    character_set: str | list[str] | None,
) -> None:
    class Foreign:
        async def handle_find(self, request: dimse.FindRequest) -> AsyncIterator[Dataset]:
            match = study(PatientName="Yamada^Tarou=山田^太郎", StudyDescription="žluť")
            match.SpecificCharacterSet = character_set
            item = Dataset()
            item.SpecificCharacterSet = "ISO_IR 100"
            item.CodeMeaning = "Müller"
            match.ProcedureCodeSequence = [item]
            yield match

    async with associated_pair(Foreign()) as association:
        [match] = await association.find_studies()
    assert match.SpecificCharacterSet == "ISO_IR 192"
    assert (match.PatientName, match.StudyDescription) == ("Yamada^Tarou=山田^太郎", "žluť")
    assert match.ProcedureCodeSequence[0].CodeMeaning == "Müller"


async def test_what_is_asked_for_in_a_character_set_that_lacks_it_is_refused_here() -> None:
    identifier = study(PatientName="山田*")
    identifier.SpecificCharacterSet = "ISO_IR 100"
    step = Dataset()
    step.SpecificCharacterSet = "ISO_IR 100"
    step.PatientName = "山田^太郎"
    contexts = [*dimse.default_contexts()[:7], dimse.PresentationContext(MPPS)]
    async with associated_pair(
        dimse.Handlers(dimse.PerformedProcedureSteps(), Refusing()), contexts=contexts
    ) as association:
        with pytest.raises(dimse.DimseError, match="PatientName does not fit"):
            await association.find(identifier)
        with pytest.raises(dimse.DimseError, match="PatientName does not fit"):
            await association.n_create(MPPS, "1.2.3", step)
        assert (await association.echo()).status == 0
    assert step.PatientName == "山田^太郎"


@pytest.mark.parametrize(
    ("character_set", "name"),
    [
        ("ISO_IR 6", "Müller"),
        ("", "Müller"),
        (["", "ISO 2022 IR 87"], "Müller"),
        (["ISO 2022 IR 6", "ISO 2022 IR 149"], "é"),
        (["ISO 2022 IR 100", "ISO 2022 IR 149"], "洪^é"),  # which pydicom reads otherwise
        (["ISO 2022 IR 100", "ISO 2022 IR 144"], "Иван^ü"),
        (["ISO 2022 IR 100", "ISO 2022 IR 144"], ["Иван", "Müller"]),
        ("ISO 2022 IR 87", "山田^Müller"),
        (["ISO 2022 IR 87", "ISO 2022 IR 100", "ISO 2022 IR 159"], "žŠ"),
    ],
)
async def test_a_name_is_asked_for_as_it_will_be_read_or_not_at_all(
    character_set: str | list[str], name: str | list[str]
) -> None:
    identifier = study(PatientName=name)
    identifier.SpecificCharacterSet = character_set
    async with associated_pair(Refusing()) as association:
        with pytest.raises(dimse.CharacterSetError, match="PatientName does not fit"):
            await association.find(identifier)


async def test_values_that_would_be_read_as_others_are_answered_in_utf_8() -> None:
    names = ["Иван^И", "Müller^Jürgen"]

    class Several:
        async def handle_find(self, request: dimse.FindRequest) -> AsyncIterator[Dataset]:
            match = study(OtherPatientNames=names)
            match.SpecificCharacterSet = ["ISO 2022 IR 100", "ISO 2022 IR 144"]
            yield match

    async with associated_pair(Several()) as association:
        [match] = await association.find_studies()
    assert match.OtherPatientNames == names
    assert match.SpecificCharacterSet == "ISO_IR 192"


@pytest.mark.parametrize(
    ("character_set", "name"),
    [
        ("ISO_IR 100", "Müller^é"),
        (["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동"),
        (["ISO 2022 IR 100", "ISO 2022 IR 144"], "Müller=Иван"),
        (["ISO 2022 IR 13", "ISO 2022 IR 87"], "ﾔﾏﾀﾞ*"),
    ],
)
async def test_a_name_that_fits_is_asked_for_in_its_character_set(
    character_set: str | list[str], name: str
) -> None:
    class Echoing:
        async def handle_find(self, request: dimse.FindRequest) -> AsyncIterator[Dataset]:
            yield request.identifier

    identifier = study(PatientName=name)
    identifier.SpecificCharacterSet = character_set
    async with associated_pair(Echoing()) as association:
        [match] = await association.find(identifier)
    assert match.PatientName == name
    assert match.get("SpecificCharacterSet") == character_set


MPPS = dimse.uid_of("ModalityPerformedProcedureStep")


class Refusing:
    async def handle_find(self, request: dimse.FindRequest) -> AsyncIterator[Dataset]:
        pytest.fail("nothing was asked")
        yield study()


async def test_text_of_a_data_set_that_names_no_character_set_is_stored_in_utf_8() -> None:
    kept: list[Dataset] = []

    class Keeping:
        async def handle_store(self, request: dimse.StoreRequest) -> dimse.Status:
            kept.append(await request.data_set())
            return dimse.Status.SUCCESS

    made = instance()
    made.PatientName = "Müller^山田"
    async with associated_pair(Keeping()) as association:
        await association.store(made)
    assert (kept[0].PatientName, kept[0].SpecificCharacterSet) == ("Müller^山田", "ISO_IR 192")


@pytest.mark.parametrize("name", ["IDNA", "punycode", "UNDEFINED", "rot13", "base64", "hex"])
@pytest.mark.parametrize("nested", [False, True])
def test_a_codec_that_is_no_character_set_is_none(name: str, nested: bool) -> None:
    item = Dataset()
    item.SpecificCharacterSet, item.PatientName = "ISO_IR 100", "Müller"
    whole = item
    if nested:
        whole = Dataset()
        whole.ReferencedPatientSequence = [item]
    padded = name.encode().ljust(10)
    data = datasets.encode(whole, IMPLICIT_VR_LITTLE_ENDIAN).replace(b"ISO_IR 100", padded)
    with pytest.raises(dimse.DataSetError, match="its Specific Character Set is none"):
        datasets.decode_identifier(data, IMPLICIT_VR_LITTLE_ENDIAN)
