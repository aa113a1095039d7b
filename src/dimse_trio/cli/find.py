"""`dimse-trio find`: C-FIND."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

import dimse_trio as dimse

from .errors import EPILOG, ExitCode, report
from .keys import LEVELS, Attribute, make_query, parse_keys
from .levels import level_hint
from .options import CONTEXT_SETTINGS, Client, client_options, output_options, peer_argument
from .output import Format, Output
from .progress import bar
from .query_options import keys_option, level_option, model_option
from .running import Work, run

if TYPE_CHECKING:
    from pydicom import Dataset

_SELDOM_SHOWN = frozenset(
    ("PatientSex", "StudyTime", "StudyID", "ReferringPhysicianName", "NumberOfStudyRelatedSeries")
)
"""Asked for by default, and left out of a table for people; --csv and --json have them."""


def find_contexts(query: dimse.Query) -> list[dimse.PresentationContext]:
    """What a C-FIND needs: its model, or both roots where either will do."""
    roots = [dimse.Model.STUDY_ROOT, dimse.Model.PATIENT_ROOT]
    models = roots if query.model is None else [query.model]
    return [dimse.PresentationContext(model.value[0]) for model in models]


@click.command(
    context_settings=CONTEXT_SETTINGS,
    epilog=EPILOG,
    short_help="Ask a peer what it has (C-FIND).",
)
@peer_argument
@level_option(*LEVELS, "worklist")
@keys_option
@model_option("patient", "study", "worklist")
@click.option("--only-keys", is_flag=True, help="Ask for nothing but the -k keys.")
@click.option(
    "--limit", type=click.IntRange(min=1), metavar="N", help="Cancel the query after N matches."
)
@output_options()
@client_options
def find(
    client: Client,
    level: str,
    keys: tuple[str, ...],
    model: str | None,
    only_keys: bool,
    limit: int | None,
    output: Format,
) -> ExitCode:
    """Ask PEER for patients, studies, series, instances or worklist entries.

    Beside the -k keys, the level's usual attributes are asked for. Matches are printed as they
    arrive with --json, one object of the DICOM JSON Model (PS3.18 Annex F) a line, and with --csv.

    \b
    Examples:
      dimse-trio find 127.0.0.1:11112 --aec ARCHIVE -k PatientName=DOE*
      dimse-trio find ARCHIVE -k StudyDate=20260101- -k ModalitiesInStudy=CT --json
      dimse-trio find ARCHIVE --level series -k StudyInstanceUID=1.2.3 --csv
      dimse-trio find RIS --level worklist -k Modality=MR
    """  # noqa: D301 - \b is for click
    parsed = parse_keys(keys)
    query, attributes = make_query(level, parsed, model=model, return_keys=not only_keys)
    if query.level and (hint := level_hint(level, parsed)):
        report(hint)
    if output is Format.TABLE:
        named = {key.attribute.tags for key in parsed}
        attributes = [
            attribute
            for attribute in attributes
            if attribute.tags in named or attribute.name not in _SELDOM_SHOWN
        ]

    async def command(work: Work) -> ExitCode:
        return await _find(work, client, query, attributes, output, limit)

    return run(command, timeout=client.timeout)


async def _find(
    work: Work,
    client: Client,
    query: dimse.Query,
    attributes: list[Attribute],
    format: Format,
    limit: int | None,
) -> ExitCode:
    names = [attribute.name for attribute in attributes]
    output = Output(work.output_closed, format, names, headings=headings(names))
    count = 0
    failure: dimse.DimseError | None = None
    with bar("finding", format) as progress:
        try:
            async with (
                work.association(client.association(find_contexts(query))) as association,
                association.find(query) as matches,
            ):
                async for match in matches:
                    count += 1
                    progress.update(count)
                    if format is Format.JSON:
                        await output.json(json_model(match))
                    else:
                        cells = [attribute.text_in(match) for attribute in attributes]
                        await output.row(dict(zip(names, cells, strict=True)))
                    if count == limit:
                        break
        except dimse.DimseError as error:
            failure = error  # once what came before it has been printed
    await output.finish(drop_empty=names)
    if failure is not None:
        raise failure
    if not count and output.is_table and work.stopped is None:
        report("no matches")
    return ExitCode.DONE


def headings(names: Sequence[str]) -> dict[str, str]:
    """Short headings of a table for columns that are paths: the last keyword, if it is unique."""
    last = {name: name.rpartition(".")[2] for name in names}
    times = Counter(last.values())
    return {name: short if times[short] == 1 else name for name, short in last.items()}


def json_model(match: Dataset) -> dict[str, Any]:
    """A match in the DICOM JSON Model, which is always in UTF-8 (PS3.18 §F.2)."""
    if "SpecificCharacterSet" in match:
        match.decode()
        match.SpecificCharacterSet = "ISO_IR 192"
    return match.to_json_dict(suppress_invalid_tags=True)
