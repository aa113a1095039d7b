"""`dimse-trio dump`: what is in DICOM files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click
import trio

from . import log
from .dicom_files import DEFLATED, File, expand, reading
from .errors import EPILOG, CommandFailed, ExitCode, describe, printable, report
from .options import CONTEXT_SETTINGS, output_options
from .output import Format, Output
from .places import BINARY, Place, parse_place, raw, raw_vr, select
from .running import Work, run

if TYPE_CHECKING:
    from pydicom import DataElement, Dataset
    from pydicom.dataelem import RawDataElement

WIDTH = 100
"""Longest line, in characters, unless all of it is asked for."""
_LONG_TEXTS = frozenset(("LT", "ST", "UC", "UR", "UT"))
_UNDEFINED = 0xFFFFFFFF
INLINE = 1024
"""Longest binary value in JSON, in characters of its Base64; others are a BulkDataURI."""


@click.command(
    context_settings=CONTEXT_SETTINGS, epilog=EPILOG, short_help="Print what is in DICOM files."
)
@click.argument("paths", metavar="PATH...", nargs=-1, required=True)
@click.option(
    "-k",
    "--key",
    "keys",
    metavar="KEY",
    multiple=True,
    help="Print only this attribute, by keyword, tag or path: PatientID, (0010,0020),"
    " PerformedSeriesSequence[0].Modality. May be repeated.",
)
@click.option("--full", is_flag=True, help="Print long values in full, pixel data in JSON too.")
@output_options()
def dump(paths: tuple[str, ...], keys: tuple[str, ...], full: bool, output: Format) -> ExitCode:
    """Print the data sets of DICOM files: every PATH that is a file, and the files in folders.

    Standard input is - as a PATH. Long values are cut, and pixel data is not read. With --json
    there is an object of the DICOM JSON Model (PS3.18 Annex F) a line for each file, with its File
    Meta Information; with --csv a row, with the path and a column for each -k.

    \b
    Examples:
      dimse-trio dump image.dcm
      dimse-trio dump image.dcm -k PatientID -k RequestAttributesSequence[0].StudyInstanceUID
      dimse-trio dump folder -k PatientID -k Modality --csv
      dimse-trio dump image.dcm --json --full | dimse-trio create copy.dcm --from-json -
    """  # noqa: D301 - \b is for click
    if output is Format.CSV and not keys:
        raise click.UsageError("--csv needs -k: each is a column")
    log.set_up(0)
    places = [parse_place(key) for key in keys]

    async def command(work: Work) -> ExitCode:
        return await _dump(work, paths, places, full, output)

    return run(command)


async def _dump(
    work: Work, paths: tuple[str, ...], places: list[Place], full: bool, format: Format
) -> ExitCode:
    output = Output(work.output_closed, format, ["path", *(place.name for place in places)])
    code = ExitCode.DONE
    with work.interruptible():
        files = await expand(paths, stdin=True)
        if not files:
            raise CommandFailed(f"there are no files in {', '.join(paths)}")
        for path, _ in files:
            shown: list[str] | dict[str, Any] = []
            try:
                shown, whole = await trio.to_thread.run_sync(_show, path, places, full, format)
                if not whole:
                    raise CommandFailed(f"{path}: its data set is cut off, or not as it says")
            except (CommandFailed, OSError) as error:
                code = ExitCode.FAILED
                report(describe(error))
            if isinstance(shown, dict):
                await (output.row if format is Format.CSV else output.json)(shown)
                continue
            if shown and len(files) > 1:
                await output.line(f"# {printable(str(path))}")
            for line in shown:
                await output.line(line)
    return code


def _show(
    path: Path, places: list[Place], full: bool, format: Format
) -> tuple[list[str] | dict[str, Any], bool]:
    """A file as lines of text, or as an object; and whether it is whole."""
    paths = [place.path for place in places]
    with reading(path, whole=full and format is Format.JSON) as file:
        meta: Dataset = file.meta
        data_set = file.data_set
        try:
            if places:
                meta, data_set = select(meta, paths), select(data_set, paths)
            if format is Format.CSV:
                row = {place.name: _text(file, place) for place in places}
                return {"path": file.name, **row}, file.whole
            if format is Format.JSON:
                shown = _json(meta, None, full) | _json(data_set, _uri(file), full)
                return shown, file.whole
            return [*_lines(meta, full), *_lines(data_set, full)], file.whole
        except Exception as error:  # pydicom raises whatever its parser meets
            raise CommandFailed(
                f"{path}: cannot be read as DICOM ({type(error).__name__})"
            ) from error


# -- text ----------------------------------------------------------------------------------------


def _lines(data_set: Dataset, full: bool, indent: str = "") -> Iterator[str]:
    for tag in sorted(data_set.keys()):
        if (left := _left_in_file(data_set, tag)) is not None:
            how = "encapsulated" if left.length == _UNDEFINED else f"{left.length} bytes"
            yield f"{indent}{_head(left)}: {how}, not read"
            continue
        try:
            element = data_set[tag]
            if element.VR != "SQ":
                # pydicom only counts the characters of long texts
                long = isinstance(element.value, str) and element.VR in _LONG_TEXTS
                text = f"{str(element).partition(': ')[0]}: {element.value!r}" if long else element
                yield _cut(printable(f"{indent}{text}"), full)
                continue
        except Exception:  # a value that its VR forbids
            yield f"{indent}{_head(raw(data_set, tag))}: (invalid)"
            continue
        yield f"{indent}{_head(element)}: {len(element.value)} items"
        for number, item in enumerate(element.value):
            yield f"{indent}  [{number}]"
            yield from _lines(item, full, indent + "    ")


def _left_in_file(data_set: Dataset, tag: int) -> RawDataElement | None:
    """A long binary value that has not been read; `None` for another."""
    element = raw(data_set, tag)
    if element is None or not element.is_raw or raw_vr(element) not in BINARY:
        return None
    left = cast("RawDataElement", element)
    return left if left.value is None and left.length else None  # an empty one has no value either


def _vr(data_set: Dataset, tag: int) -> str:
    element = raw(data_set, tag)
    return "UN" if element is None else raw_vr(element)


def _head(element: Any) -> str:
    from pydicom.datadict import dictionary_description

    try:
        name = dictionary_description(element.tag)
    except KeyError:
        name = "Unknown"
    return f"{element.tag} {name[:35]:<35} {raw_vr(element)}"


def _cut(line: str, full: bool) -> str:
    return line if full or len(line) <= WIDTH else f"{line[:WIDTH]}… ({len(line)} characters)"


def _text(file: File, place: Place) -> str:
    in_meta = place.path[0].tag >> 16 == 0x0002
    chosen = select(file.meta if in_meta else file.data_set, [place.path])
    return place.attribute.text_in(chosen)


# -- JSON ----------------------------------------------------------------------------------------


def _uri(file: File) -> Callable[[int, int], str] | None:
    """Where a value is, by its offset and length in the file, as far as that can be said."""
    path = Path(file.name)
    if file.transfer_syntax_uid == DEFLATED or not path.is_file():
        return None
    return lambda offset, length: f"{path.absolute().as_uri()}?offset={offset}&length={length}"


def _json(data_set: Dataset, uri: Callable[[int, int], str] | None, full: bool) -> dict[str, Any]:
    """A data set in the DICOM JSON Model, in UTF-8; long binary values as where they are."""

    def place(element: DataElement) -> str:
        return "" if uri is None else uri(element.file_tell or 0, len(element.value))

    shown: dict[str, Any] = {}
    for tag in sorted(data_set.keys()):
        key = f"{int(tag):08X}"
        if (left := _left_in_file(data_set, tag)) is not None:
            shown[key] = {"vr": raw_vr(left)}
            if uri is not None and left.length != _UNDEFINED:
                shown[key]["BulkDataURI"] = uri(left.value_tell, left.length)
            continue
        try:
            shown[key] = data_set[tag].to_json_dict(None if full else place, INLINE)
        except Exception:  # a value that its VR forbids
            shown[key] = {"vr": _vr(data_set, tag)}
    if "00080005" in shown:
        shown["00080005"] = {"vr": "CS", "Value": ["ISO_IR 192"]}
    return shown
