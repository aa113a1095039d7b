"""`dimse-trio modify`: attributes of DICOM files, changed in their place."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import click
import trio

import dimse_trio as dimse

from . import log
from .dicom_files import (
    SOP_UIDS,
    apply_settings,
    drop_uids,
    expand,
    looking_at,
    reading,
    sop_uids,
    write,
    writing,
)
from .errors import EPILOG, CommandFailed, ExitCode, describe, exit_code_of, report
from .options import CONTEXT_SETTINGS, output_options
from .output import Format, Output
from .places import (
    Place,
    Setting,
    delete,
    is_private,
    parse_place,
    parse_settings,
    raw,
    raw_vr,
    sequence_of,
)
from .progress import bar
from .running import Work, run

if TYPE_CHECKING:
    from pydicom import Dataset

_COLUMNS = ("path", "output", "changed", "error")
_LEVELS = {"study": "StudyInstanceUID", "series": "SeriesInstanceUID", "instance": "SOPInstanceUID"}


@attrs.frozen
class Changes:
    """What is to be done to each file, in this order.

    Attributes:
        deleted: Places that go.
        delete_private: Whether all private attributes go.
        new_uids: UIDs and what takes their place, wherever they are.
        replaced: Values of attributes that must be there.
        put: Values.
    """

    deleted: list[Place]
    delete_private: bool
    replaced: list[Setting]
    put: list[Setting]
    new_uids: dict[str, str] = attrs.Factory(dict[str, str])

    def apply(self, data_set: Dataset) -> int:
        """Change a data set, in how many places."""
        count = sum(delete(data_set, place) for place in self.deleted)
        if self.delete_private:
            count += _delete_private(data_set)
        if self.new_uids:
            count += _exchange_uids(data_set, self.new_uids)
        count += apply_settings(data_set, self.replaced, existing=True)
        return count + apply_settings(data_set, self.put)


@click.command(
    context_settings=CONTEXT_SETTINGS,
    epilog=EPILOG,
    short_help="Change attributes of DICOM files.",
)
@click.argument("paths", metavar="PATH...", nargs=-1, required=True)
@click.option(
    "-k",
    "--key",
    "put",
    metavar="KEY=VALUE",
    multiple=True,
    help="Set an attribute by keyword, tag or path, whether it is there or not; KEY= empties it."
    " May be repeated.",
)
@click.option(
    "-r",
    "--replace",
    "replaced",
    metavar="KEY=VALUE",
    multiple=True,
    help="The same, of an attribute that must be there.",
)
@click.option(
    "-d", "--delete", "deleted", metavar="KEY", multiple=True, help="Delete it where it is there."
)
@click.option("--delete-private", is_flag=True, help="Delete all private attributes.")
@click.option("--new-study-uid", is_flag=True, help="A new UID for each study.")
@click.option("--new-series-uid", is_flag=True, help="A new UID for each series.")
@click.option("--new-instance-uid", is_flag=True, help="A new UID for each instance.")
@click.option("--output", "folder", metavar="FOLDER", help="Write there, and leave PATHs alone.")
@click.option("--force", is_flag=True, help="Overwrite files in FOLDER.")
@click.option("--backup", is_flag=True, help="Keep each file as it was, as FILE.bak.")
@output_options()
def modify(
    paths: tuple[str, ...],
    put: tuple[str, ...],
    replaced: tuple[str, ...],
    deleted: tuple[str, ...],
    delete_private: bool,
    new_study_uid: bool,
    new_series_uid: bool,
    new_instance_uid: bool,
    folder: str | None,
    force: bool,
    backup: bool,
    output: Format,
) -> ExitCode:
    """Change DICOM files: every PATH that is a file, and the files in folders.

    A file is changed as a whole or not at all. Pixel data stays as it is. New UIDs are the same for
    the same old ones in all files of the command line, and in what refers to them. What is deleted
    goes first, so that items have other numbers for what is set. Text that is not
    ASCII makes the character set UTF-8 unless it fits the one that is there. A path names all items
    of its sequences, or one by its number: Sequence[0].Keyword.

    \b
    Examples:
      dimse-trio modify image.dcm -k PatientName=Doe^Jane -d PatientBirthDate --backup
      dimse-trio modify folder -r AccessionNumber=4711 -k RequestAttributesSequence[0].StudyID=1
      dimse-trio modify folder --new-study-uid --new-series-uid --new-instance-uid --output copy
      dimse-trio modify folder --delete-private --json
    """  # noqa: D301 - \b is for click
    log.set_up(0)
    levels = [
        keyword
        for keyword, wanted in zip(
            _LEVELS.values(), (new_study_uid, new_series_uid, new_instance_uid), strict=True
        )
        if wanted
    ]
    changes = Changes(
        deleted=[parse_place(key) for key in deleted],
        delete_private=delete_private,
        replaced=parse_settings(replaced, strict=True),
        put=parse_settings(put, strict=True),
    )
    if not (deleted or delete_private or replaced or put or levels):
        raise click.UsageError("nothing to change: give -k, -r, -d or another option")
    if folder is None and force:
        raise click.UsageError("--force is for --output")
    if folder is not None and backup:
        raise click.UsageError("--backup is for files that are changed in their place")

    async def command(work: Work) -> ExitCode:
        run = _Modifying(work, changes, levels, folder, output, force=force, backup=backup)
        return await run.run(paths)

    return run(command)


class _Modifying:
    """One run of `modify`."""

    def __init__(
        self,
        work: Work,
        changes: Changes,
        levels: list[str],
        folder: str | None,
        format: Format,
        *,
        force: bool,
        backup: bool,
    ) -> None:
        self._work = work
        self._changes = changes
        self._levels = levels
        self._folder = None if folder is None else Path(folder)
        self._force = force
        self._backup = backup
        self._output = Output(work.output_closed, format, _COLUMNS)
        self._written: set[Path] = set()
        self._codes: set[ExitCode] = set()
        self._changed = self._unchanged = self._failed = 0

    async def run(self, paths: Iterable[str]) -> ExitCode:
        output = self._output
        with self._work.interruptible():
            files = await expand(paths)
            if self._backup:  # what was kept before is not to be changed in its turn
                kept = (path for path, _ in files if path.suffix == ".bak")
                named = set(map(Path, paths))
                left_out = {path for path in kept if path not in named}
                files = [(path, name) for path, name in files if path not in left_out]
            if not files:
                raise CommandFailed(f"there are no files in {', '.join(paths)}")
            if self._levels:
                with bar("reading UIDs", output.format, total=len(files)) as progress:
                    for number, (path, _) in enumerate(files):
                        await trio.to_thread.run_sync(self._number, path)
                        progress.update(number)
            with bar("changing", output.format, total=len(files)) as progress:
                for number, (path, name) in enumerate(files):
                    await self._file(path, path if self._folder is None else self._folder / name)
                    progress.update(number)
        if output.is_table:
            unchanged = f", {self._unchanged} as they were" if self._unchanged else ""
            await output.line(f"{self._changed} changed{unchanged}, {self._failed} failed")
        else:
            await output.finish()
        if self._codes == {ExitCode.USAGE} and not self._written:
            return ExitCode.USAGE  # what is asked for is wrong, whatever the file
        return ExitCode.FAILED if self._failed else ExitCode.DONE

    def _number(self, path: Path) -> None:
        """Give the UIDs of a file new ones; what is wrong with it is found out later."""
        with suppress(Exception), reading(path) as file:
            for keyword in self._levels:
                if uid := str(file.data_set.get(keyword) or ""):
                    self._changes.new_uids.setdefault(uid, dimse.new_uid())

    async def _file(self, path: Path, target: Path) -> None:
        changed, error = False, None
        try:
            changed = await trio.to_thread.run_sync(self._change, path, target)
            self._changed += changed
            self._unchanged += not changed
        except (CommandFailed, dimse.DimseError, OSError) as failure:
            self._failed += 1
            self._codes.add(exit_code_of(failure))
            error = describe(failure).removeprefix(f"{path}: ")
            report(f"{path}: {error}")
        if not self._output.is_table:
            values = (str(path), None if error else str(target), changed, error)
            await self._output.row(dict(zip(_COLUMNS, values, strict=True)))

    def _change(self, path: Path, target: Path) -> bool:
        """Change one file; whether there was anything to change."""
        in_place = self._folder is None
        if not in_place:
            if target in self._written or (os.path.lexists(target) and not self._force):
                raise CommandFailed(f"{target} is there already")
            target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with writing(target) as written, reading(path) as file:
                if not file.whole or not file.transfer_syntax_uid:
                    raise CommandFailed("its data set is cut off, or not as it says")
                count = self._apply(file.data_set)
                if not count and in_place:
                    raise _Unchanged
                write(file.data_set, written, file.transfer_syntax_uid)
                if self._backup:
                    _back_up(path)
        except _Unchanged:
            return False
        self._written.add(target)
        return bool(count)

    def _apply(self, data_set: Dataset) -> int:
        with looking_at("it"):
            before = sop_uids(data_set)
            count = self._changes.apply(data_set)
            lost = before - sop_uids(data_set)
        if lost and before == SOP_UIDS:
            names = " and ".join(sorted(lost))
            other = "; --new-instance-uid gives it another" * ("SOPClassUID" not in lost)
            raise CommandFailed(f"without {names} it would be no instance{other}", ExitCode.USAGE)
        drop_uids(data_set, lost)
        return count


class _Unchanged(Exception):
    """There is nothing to write."""


def _back_up(path: Path) -> None:
    """Keep a file under another name while it is still there under its own.

    Raises:
        CommandFailed: There is something under that name, which may be the only original.
    """
    path = Path(os.path.realpath(path))
    kept = path.with_name(f"{path.name}.bak")
    if os.path.lexists(kept):
        raise CommandFailed(f"{kept} is there already")
    try:
        os.link(path, kept)
    except OSError:  # where there are no links
        shutil.copy2(path, kept)


def _elements(data_set: Dataset) -> Iterator[tuple[Dataset, int, str]]:
    """All attributes, of items too, with the data set that they are in and their VR.

    Values are looked at only as far as sequences go.
    """
    for tag in list(data_set.keys()):
        if (element := raw(data_set, tag)) is not None:
            yield data_set, int(tag), raw_vr(element)
        if tag in data_set and (items := sequence_of(data_set, tag)) is not None:
            for item in items:
                yield from _elements(item)


def _delete_private(data_set: Dataset) -> int:
    count = 0
    for holder, tag, _ in _elements(data_set):
        if is_private(tag):
            del holder[tag]
            count += 1
    return count


def _exchange_uids(data_set: Dataset, new_uids: Mapping[str, str]) -> int:
    count = 0
    for holder, tag, vr in _elements(data_set):
        if vr != "UI":
            continue
        element = holder[tag]
        old = [element.value] if element.VM == 1 else list(element.value or ())
        new = [new_uids.get(str(uid), uid) for uid in old]
        if new != old:
            element.value = new if len(new) > 1 else new[0]
            count += 1
    return count
