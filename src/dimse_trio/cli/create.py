"""`dimse-trio create`: a DICOM file of keys, of JSON, or of another file."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import click

import dimse_trio as dimse

from . import log
from .dicom_files import (
    BIG_ENDIAN,
    EXPLICIT,
    NATIVE,
    apply_settings,
    drop_uids,
    looking_at,
    reading,
    sop_uids,
    write,
    writing,
)
from .errors import EPILOG, CommandFailed, ExitCode
from .options import CONTEXT_SETTINGS
from .places import parse_settings
from .texts import fits_character_set, texts_of, to_utf8

if TYPE_CHECKING:
    from pydicom import Dataset

_TRANSFER_SYNTAX_UID = 0x00020010
_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")


def _transfer_syntax(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> str | None:
    """A transfer syntax by UID or keyword."""
    if value is None or value[:1].isdigit():
        return value
    try:
        return dimse.uid_of(value)
    except dimse.LocalProtocolError as error:
        raise click.BadParameter(str(error), context, parameter) from error


@click.command(
    context_settings=CONTEXT_SETTINGS,
    epilog=EPILOG,
    short_help="Make a DICOM file of keys, JSON or a template.",
)
@click.argument("output", metavar="OUTPUT")
@click.argument("keys", metavar="[KEY=VALUE]...", nargs=-1)
@click.option(
    "-k", "--key", "more_keys", metavar="KEY=VALUE", multiple=True, help="The same as an option."
)
@click.option(
    "--template",
    metavar="FILE",
    help="Begin with the data set of this DICOM file; - is standard input.",
)
@click.option(
    "--from-json",
    metavar="FILE",
    help="Add an object of the DICOM JSON Model, as dump and find print; - is standard input.",
)
@click.option(
    "--transfer-syntax",
    metavar="NAME",
    callback=_transfer_syntax,
    help="By keyword or UID.  [default: the template's, else ExplicitVRLittleEndian]",
)
@click.option("--new-uids", is_flag=True, help="New UIDs of study, series and instance.")
@click.option("--force", is_flag=True, help="Overwrite OUTPUT if it is there.")
def create(
    output: str,
    keys: tuple[str, ...],
    more_keys: tuple[str, ...],
    template: str | None,
    from_json: str | None,
    transfer_syntax: str | None,
    new_uids: bool,
    force: bool,
) -> ExitCode:
    """Write the file OUTPUT: an instance, a worklist item, or the keys of a query.

    Standard output is - as OUTPUT.
    Keys are those of find, with items of sequences by number: without one the item is made. KEY=
    is an empty value. Private attributes come from the template or JSON: a key changes those that
    are there. A UID of the value `new` is made, too. The template comes first, then JSON, new UIDs,
    and keys. Text that is not ASCII makes the character set UTF-8 unless it fits the one that is
    there.

    \b
    Examples:
      dimse-trio create query.dcm QueryRetrieveLevel=STUDY PatientName=DOE* StudyInstanceUID=
      dimse-trio create item.wl PatientID=4711 ScheduledProcedureStepSequence.Modality=MR
      dimse-trio create copy.dcm --template image.dcm --new-uids PatientID=ANONYMOUS
      dimse-trio find RIS --level worklist --json > item.json
      dimse-trio create item.wl --from-json item.json
    """  # noqa: D301 - \b is for click
    log.set_up(0)
    settings = parse_settings((*keys, *more_keys), strict=False)
    if not settings and template is None and from_json is None:
        raise click.UsageError("nothing to write: give KEY=VALUE, --template or --from-json")
    if template == from_json == "-":
        raise click.UsageError("standard input is --template's or --from-json's")
    path = None if output == "-" else Path(output)
    if path is not None and path.exists() and not force:
        raise CommandFailed(f"{output} is there already: --force overwrites it")
    try:
        data_set, syntax = _data_set(template, from_json)
        wanted = transfer_syntax or syntax or EXPLICIT
        _check_syntax(data_set, syntax, wanted)
        for keyword in _UIDS if new_uids else ():
            setattr(data_set, keyword, dimse.new_uid())
        with looking_at("it"):
            before = sop_uids(data_set)
            apply_settings(data_set, settings)
            drop_uids(data_set, before - sop_uids(data_set))
        with _to_stdout() if path is None else writing(path) as file:
            write(data_set, file, wanted)
    except CommandFailed as error:
        raise CommandFailed(f"{output}: {error}", error.code) from error
    return ExitCode.DONE


@contextmanager
def _to_stdout() -> Generator[BinaryIO]:
    """A file that is printed when the block ends well."""
    file = io.BytesIO()
    yield file
    sys.stdout.buffer.write(file.getbuffer())
    sys.stdout.buffer.flush()


def _data_set(template: str | None, from_json: str | None) -> tuple[Dataset, str | None]:
    """What there is before the keys, and its transfer syntax if it says that."""
    from pydicom import Dataset

    data_set, syntax = Dataset(), None
    if template is not None:
        with reading(template, whole=True) as file:
            if not file.whole:
                raise CommandFailed(f"{template} is cut off")
            data_set, syntax = file.data_set, file.transfer_syntax_uid or None
    if from_json is not None:
        added = _from_json(from_json)
        if _TRANSFER_SYNTAX_UID in added and syntax is None:
            syntax = str(added[_TRANSFER_SYNTAX_UID].value or "") or None
        declared = "SpecificCharacterSet" in added
        added.pop("SpecificCharacterSet", None)  # JSON itself is in UTF-8
        missing = declared and "SpecificCharacterSet" not in data_set
        if missing or not fits_character_set(data_set, texts_of(added)):
            to_utf8(data_set)
        data_set.update({element.tag: element for element in added if element.tag.group != 0x0002})
    return data_set, syntax


def _from_json(name: str) -> Dataset:
    from pydicom import Dataset

    try:
        text = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
        value: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        several = " (of several objects, give one)" if "Extra data" in str(error) else ""
        raise CommandFailed(f"{name} is no JSON: {error}{several}", ExitCode.USAGE) from error
    objects: Any = cast("Any", value) if isinstance(value, list) else [value]  # as DICOMweb answers
    value = objects[0] if len(objects) == 1 else None
    if not isinstance(value, dict):
        raise CommandFailed(f"{name} is no object of the DICOM JSON Model", ExitCode.USAGE)

    def refuse(tag: str, vr: str, uri: str) -> Any:
        raise CommandFailed(
            f"{name}: ({tag[:4]},{tag[4:]}) is elsewhere, and is not fetched: {uri}; dump --full"
            " has it inline",
            ExitCode.USAGE,
        )

    try:
        return Dataset.from_json(cast("dict[str, Any]", value), bulk_data_uri_handler=refuse)
    except CommandFailed:
        raise
    except Exception as error:  # pydicom raises whatever its parser meets
        raise CommandFailed(
            f"{name} is no object of the DICOM JSON Model ({type(error).__name__}: {error})",
            ExitCode.USAGE,
        ) from error


def _check_syntax(data_set: Dataset, syntax: str | None, wanted: str) -> None:
    """Refuse what would take encoding pixel data anew."""
    name = dimse.uid_name(wanted)
    if wanted not in NATIVE and wanted != syntax:
        raise CommandFailed(f"{name} is for compressed pixel data, of a template", ExitCode.USAGE)
    if syntax is None or wanted == syntax or not any(keyword in data_set for keyword in _PIXELS):
        return
    if syntax not in NATIVE or BIG_ENDIAN in (syntax, wanted):
        raise CommandFailed(
            f"its pixel data stays in {dimse.uid_name(syntax)}, and is not encoded in {name}",
            ExitCode.USAGE,
        )
