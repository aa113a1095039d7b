"""`dimse-trio mpps`: Modality Performed Procedure Steps, as a modality reports them."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import click
import trio

import dimse_trio as dimse

from .errors import EPILOG, CommandFailed, ExitCode, describe
from .find import json_model
from .options import (
    CONTEXT_SETTINGS,
    Client,
    client_options,
    peer_argument,
)
from .output import Format, Output
from .places import parse_settings, value_in
from .query_options import check_uid
from .running import Work, run
from .texts import check_texts

if TYPE_CHECKING:
    from pydicom import Dataset

_contexts = dimse.performed_step_contexts
RETRIEVE = dimse.uid_of("ModalityPerformedProcedureStepRetrieve")
_REASONS = {
    "doctor": ("110500", "Doctor canceled procedure"),
    "equipment": ("110501", "Equipment failure"),
    "wrong-order": ("110502", "Incorrect procedure ordered"),
    "refused": ("110505", "Patient refused to continue procedure"),
    "no-show": ("110507", "Patient did not arrive"),
    "duplicate": ("110510", "Duplicate order"),
    "unspecified": ("110513", "Discontinued for unspecified reason"),
    "wrong-entry": ("110514", "Incorrect worklist entry selected"),
    "condition": ("110515", "Patient condition prevented continuing"),
}
"""What they are called here, and in PS3.16 CID 9300."""

_uid_argument = click.argument("uid", callback=check_uid)
_attributes = click.option(
    "-k",
    "--key",
    "keys",
    metavar="KEY=VALUE",
    multiple=True,
    help="An attribute by keyword, tag or path, and its value. May be repeated.",
)


@attrs.define
class _Made:
    """What a step has made, as `_files` were told; read before there is an association."""

    files: tuple[str, ...]
    protocol: str | None
    retrieve_ae_title: str | None
    any_patient: bool
    _patient_ids: set[str] = attrs.field(init=False, factory=set[str])

    async def series(self) -> list[dimse.PerformedSeries]:
        """The series of the files and of all in folders, which are of one patient."""
        instances, unreadable = await dimse.scan_files(self.files)
        if unreadable:
            path = unreadable[0].path
            reason = describe(unreadable[0].error).removeprefix(f"{path}: ")
            raise CommandFailed(f"{path}: {reason}")
        if self.files and not instances:
            raise CommandFailed("there are no DICOM files in FILES")
        headers = await trio.to_thread.run_sync(_headers, instances)
        self._patient_ids = {_patient_id(header) for header in headers}
        if len(self._patient_ids) > 1 and not self.any_patient:
            raise CommandFailed(
                f"FILES are of {len(self._patient_ids)} patients, and a step is of one;"
                " --any-patient does not look",
                ExitCode.USAGE,
            )
        return _series_of(headers, self.protocol, self.retrieve_ae_title)

    async def check_patient(self, association: dimse.Association, uid: str) -> None:
        """Refuse the files of another patient, where the peer can be asked whose the step is."""
        if self.any_patient or not self._patient_ids:
            return
        if association.negotiated.contexts_for(RETRIEVE):
            step = await association.n_get(RETRIEVE, uid, ["PatientID"])
            expected = _patient_id(step.data_set)
            if expected and {expected} != self._patient_ids:
                raise CommandFailed(
                    "FILES are not of the step's patient; --any-patient does not look",
                    ExitCode.USAGE,
                )


def _files(command: Callable[..., ExitCode]) -> Callable[..., ExitCode]:
    """`FILES` and the options about them, which the command gets as one `_Made`."""

    @functools.wraps(command)
    def with_files(
        files: tuple[str, ...],
        protocol: str | None,
        retrieve_aet: str | None,
        any_patient: bool,
        **others: Any,
    ) -> ExitCode:
        return command(made=_Made(files, protocol, retrieve_aet, any_patient), **others)

    for decorate in reversed(
        (
            click.argument("files", nargs=-1, type=click.Path(exists=True)),
            click.option("--protocol", metavar="NAME", help="Protocol Name where FILES have none."),
            click.option(
                "--retrieve-aet", metavar="TITLE", help="AE title to retrieve FILES from."
            ),
            click.option(
                "--any-patient",
                is_flag=True,
                help="Do not refuse FILES whose Patient ID is not the step's.",
            ),
        )
    ):
        with_files = decorate(with_files)
    return with_files


@click.group(
    context_settings=CONTEXT_SETTINGS,
    epilog=EPILOG,
    short_help="Report what a modality performs (MPPS).",
)
def mpps() -> None:
    """Modality Performed Procedure Steps (PS3.4 Annex F): begin, change, end and read them.

    They are received by `dimse-trio worklist --steps`.

    \b
    Examples:
      dimse-trio find RIS --level worklist -k PatientID=4711 --json > item.json
      uid=$(dimse-trio mpps create RIS --item item.json)
      dimse-trio mpps update RIS $uid -k PerformedProcedureStepDescription=Head
      dimse-trio mpps complete RIS $uid images/ --protocol HEAD
    """  # noqa: D301 - \b is for click


@mpps.command(context_settings=CONTEXT_SETTINGS, epilog=EPILOG, short_help="Begin a step.")
@peer_argument
@click.option(
    "--item",
    "items",
    type=click.Path(allow_dash=True, exists=True, dir_okay=False),
    multiple=True,
    help="The worklist item that is performed: a DICOM file, or what find --json prints; - is"
    " standard input. May be repeated.",
)
@click.option(
    "--uid", metavar="UID", callback=check_uid, help="The step's UID.  [default: a new one]"
)
@_attributes
@client_options
def create(
    client: Client, items: tuple[str, ...], uid: str | None, keys: tuple[str, ...]
) -> ExitCode:
    """Tell PEER that a procedure step is IN PROGRESS, and print its UID (N-CREATE).

    \b
    Examples:
      dimse-trio mpps create RIS --item item.wl
      dimse-trio mpps create RIS -k Modality=CT -k PatientName=Doe^Jane -k PatientID=4711
    """  # noqa: D301 - \b is for click
    scheduled = [item for path in items for item in _read_items(path)]
    values = _values(keys)
    if not (scheduled and _station(scheduled[0])):
        values.setdefault("PerformedStationAETitle", client.calling_ae_title)

    async def command(work: Work) -> ExitCode:
        async with work.association(client.association(_contexts())) as association:
            step = await association.create_performed_step(
                scheduled, sop_instance_uid=uid, **values
            )
            await Output(work.output_closed, Format.TABLE).line(step.uid)
        return ExitCode.DONE

    return run(command, timeout=client.timeout)


@mpps.command(context_settings=CONTEXT_SETTINGS, epilog=EPILOG, short_help="Change a step.")
@peer_argument
@_uid_argument
@_files
@_attributes
@client_options
def update(client: Client, uid: str, made: _Made, keys: tuple[str, ...]) -> ExitCode:
    """Tell PEER what is new of the step UID, which stays IN PROGRESS (N-SET).

    FILES are all that it has made until now: what was said of its series before is replaced.
    """
    if not made.files and not keys:
        raise click.UsageError("say what is new: FILES, or attributes with -k")
    values = _values(keys)

    async def command(work: Work) -> ExitCode:
        series = await made.series()
        async with work.association(client.association(_contexts())) as association:
            await made.check_patient(association, uid)
            await association.resume_performed_step(uid).update(*series, **values)
        return ExitCode.DONE

    return run(command, timeout=client.timeout)


@mpps.command(context_settings=CONTEXT_SETTINGS, epilog=EPILOG, short_help="End a step well.")
@peer_argument
@_uid_argument
@_files
@_attributes
@client_options
def complete(client: Client, uid: str, made: _Made, keys: tuple[str, ...]) -> ExitCode:
    """Tell PEER that the step UID is COMPLETED, and which instances it has made (N-SET).

    FILES are DICOM files, and folders of them. They are to be of one patient, and of the step's,
    which is looked at where PEER reads steps (MPPS Retrieve).
    """
    if not made.files:
        raise click.UsageError("a step is COMPLETED with one series at least: name its FILES")
    values = _values(keys)

    async def command(work: Work) -> ExitCode:
        series = await made.series()
        if unnamed := [each.series_instance_uid for each in series if not each.protocol_name]:
            raise CommandFailed(
                f"the files of series {unnamed[0]} have no Protocol Name, and none may be"
                " without: give it with --protocol",
                ExitCode.USAGE,
            )
        async with work.association(client.association(_contexts())) as association:
            await made.check_patient(association, uid)
            step = association.resume_performed_step(uid)
            await step.complete(*series, **values)
        return ExitCode.DONE

    return run(command, timeout=client.timeout)


@mpps.command(context_settings=CONTEXT_SETTINGS, epilog=EPILOG, short_help="Give a step up.")
@peer_argument
@_uid_argument
@_files
@click.option(
    "--reason",
    type=click.Choice(list(_REASONS), case_sensitive=False),
    default="unspecified",
    show_default=True,
    help="Why: a code of PS3.16 CID 9300.",
)
@_attributes
@client_options
def discontinue(
    client: Client, uid: str, made: _Made, reason: str, keys: tuple[str, ...]
) -> ExitCode:
    """Tell PEER that the step UID is DISCONTINUED, and what it has made nevertheless (N-SET)."""
    code, meaning = _REASONS[reason.lower()]
    values = _values(keys)

    async def command(work: Work) -> ExitCode:
        series = await made.series()
        async with work.association(client.association(_contexts())) as association:
            await made.check_patient(association, uid)
            step = association.resume_performed_step(uid)
            await step.discontinue((code, "DCM", meaning), *series, **values)
        return ExitCode.DONE

    return run(command, timeout=client.timeout)


@mpps.command(context_settings=CONTEXT_SETTINGS, epilog=EPILOG, short_help="Read a step.")
@peer_argument
@_uid_argument
@client_options
def get(client: Client, uid: str) -> ExitCode:
    """Print the step UID as PEER has it, in the DICOM JSON Model (N-GET)."""

    async def command(work: Work) -> ExitCode:
        async with work.association(client.association(_contexts())) as association:
            result = await association.n_get(RETRIEVE, uid)
            await Output(work.output_closed, Format.JSON).json(json_model(result.data_set))
        return ExitCode.DONE

    return run(command, timeout=client.timeout)


def _values(keys: Iterable[str]) -> dict[str, Any]:
    """Attributes of the step itself, by keyword."""
    from pydicom import Dataset

    settings = parse_settings(keys, strict=True)
    if inner := [setting.place.name for setting in settings if len(setting.place.path) > 1]:
        raise dimse.QueryError(f"{inner[0]} is in a sequence; only a step's own attributes are set")
    values = {setting.place.name: value_in(setting) for setting in settings}
    if character_set := values.get("SpecificCharacterSet"):
        declares = Dataset()
        declares.SpecificCharacterSet = character_set
        check_texts(declares, (setting.value or "" for setting in settings))
    return values


def _series_of(
    headers: Iterable[Dataset], protocol: str | None, retrieve_aet: str | None
) -> list[dimse.PerformedSeries]:
    members: dict[str, list[Dataset]] = {}
    for header in headers:
        members.setdefault(str(header.get("SeriesInstanceUID", "")), []).append(header)
    return [
        dimse.PerformedSeries(
            uid,
            str(first.get("ProtocolName") or protocol or first.get("SeriesDescription") or ""),
            [_uids(header) for header in members[uid] if "Rows" in header],
            [_uids(header) for header in members[uid] if "Rows" not in header],
            attributes={
                "RetrieveAETitle": retrieve_aet,
                "SeriesDescription": first.get("SeriesDescription"),
                "OperatorsName": first.get("OperatorsName"),
                "PerformingPhysicianName": first.get("PerformingPhysicianName"),
            },
        )
        for uid, (first, *_) in members.items()
    ]


def _station(item: Dataset) -> Any:
    """The station that a worklist item is scheduled for, if it says that."""
    steps: Any = item.get("ScheduledProcedureStepSequence")
    return steps[0].get("ScheduledStationAETitle") if steps else None


def _patient_id(data_set: Dataset) -> str:
    return str(data_set.get("PatientID") or "").strip()


def _uids(header: Dataset) -> tuple[str, str]:
    return str(header.file_meta.MediaStorageSOPClassUID), str(header.SOPInstanceUID)


def _headers(instances: Iterable[dimse.Instance]) -> list[Dataset]:
    import pydicom

    return [pydicom.dcmread(instance.path, stop_before_pixels=True) for instance in instances]


def _read_items(path: str) -> list[Dataset]:
    """Worklist items of a file: DICOM, or an object of the DICOM JSON Model on each line."""
    from io import BytesIO

    import pydicom

    data = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    if not data.strip():
        name = "standard input" if path == "-" else path
        raise CommandFailed(f"{name} is empty: did nothing match?", ExitCode.USAGE)
    try:
        if data.lstrip()[:1] != b"{":
            return [pydicom.dcmread(BytesIO(data))]
        return [pydicom.Dataset.from_json(json.loads(line)) for line in data.splitlines() if line]
    except Exception as error:  # pydicom raises whatever its parser meets
        raise CommandFailed(
            f"{path} is neither a DICOM file nor what find --json prints", ExitCode.USAGE
        ) from error
