"""The archive as a handler: C-ECHO, C-STORE, C-FIND, C-GET, C-MOVE and storage commitment.

PS3.4 Annexes A, B, C and J: Patient Root and Study Root at all their levels, the retired
Patient/Study Only, and the Storage Commitment Push Model. Every request
is answered: what the folder or the index cannot do is a failure status, and the association lives.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar, cast, final

import attrs
import sqlalchemy as sa
import trio

from dimse_trio.blocks import block
from dimse_trio.commitment_provider import StorageCommitmentProvider
from dimse_trio.errors import DimseError, InvalidFile, StatusError
from dimse_trio.matching import MatchingOptions
from dimse_trio.part10 import Instance
from dimse_trio.protocol.extended import (
    ElementCoercion,
    QueryOptions,
    StorageLevel,
    StorageOptions,
)
from dimse_trio.protocol.status import Status
from dimse_trio.protocol.uids import IMPLICIT_VR_LITTLE_ENDIAN, uid_of
from dimse_trio.references import FailureReason, SOPReference
from dimse_trio.requests import FindRequest, GetRequest, MoveRequest, StoreRequest

from .arrivals import Arrival, Arrivals, Mismatch
from .attributes import LEVELS
from .errors import INDEX_ERRORS, ArchiveError, archive_error
from .folder import Folder, write_blocks
from .header import CutOff, MissingAttribute
from .index import FILE_NAME, Index
from .safety import examine, located
from .search import FindQuery, RetrieveQuery, Statistics, statistics
from .upkeep import Progress, bring_up_to_date

if TYPE_CHECKING:
    from pydicom import Dataset

    from dimse_trio.normalized_requests import NActionRequest

logger = logging.getLogger("dimse_trio.archive")

T = TypeVar("T")

BLOCK: Final = 1 << 20
"""Bytes of an instance that are kept in memory before they are written."""
READERS: Final = 4
"""Queries that read the index at a time."""

_MODELS: dict[str, tuple[str, ...]] = {
    uid_of(f"{model}QueryRetrieveInformationModel{service}"): levels
    for model, levels in (
        ("PatientRoot", LEVELS),
        ("StudyRoot", LEVELS[1:]),
        ("PatientStudyOnly", LEVELS[:2]),
    )
    for service in ("Find", "Move", "Get")
}


@final
class Archive(StorageCommitmentProvider):
    """DICOM files in a folder with an index: a handler for `serve`. Made by `open_archive`.

    Queries may be relational whether that was negotiated or not; combined date and time ranges are
    for those that have negotiated them. Every data element is kept as it came.
    """

    query_sop_classes = tuple(_MODELS)
    query_options = QueryOptions(relational=True, date_time=True)
    storage_options = StorageOptions(level=StorageLevel.FULL, coercion=ElementCoercion.NONE)

    def __init__(self, folder: Folder, index: Index, matching: MatchingOptions) -> None:
        self._folder = folder
        self._index = index
        self._matching = matching
        self._arrivals = Arrivals(folder, index)
        self._readers = trio.CapacityLimiter(READERS)

    @property
    def folder(self) -> Path:
        """Where the files are."""
        return self._folder.root

    # -- storage -----------------------------------------------------------------------------------

    async def handle_store(self, request: StoreRequest, /) -> Status:
        """Keep an instance. Success means that its file is whole, in its place and indexed.

        A data set that is cut off is refused, and what there is of the instance stays as it is.

        Cancelled, it leaves nothing, or the instance as it should be.
        """
        with _refusals():
            arrival = await self._receive(request)
            await self._arrivals.add(arrival)
        return Status.SUCCESS

    async def _receive(self, request: StoreRequest) -> Arrival:
        """The instance as it comes: its end in memory, what does not fit there in `.incoming`."""
        header = request.file_header()
        arrival = Arrival(
            self._folder.temporary(),
            request.transfer_syntax_uid,
            data_offset=len(header),
            uids=(request.sop_class_uid, request.sop_instance_uid),
            blocks=[header],
        )
        size = 0
        try:
            async with aclosing(cast("AsyncGenerator[bytes]", request.chunks())) as chunks:
                async for chunk in chunks:
                    arrival.blocks.append(chunk)
                    size += len(chunk)
                    if size >= BLOCK:
                        arrival.begun = True
                        blocks, arrival.blocks, size = arrival.blocks, [], 0
                        await trio.to_thread.run_sync(write_blocks, arrival.temporary, blocks)
        except BaseException:
            if arrival.begun:
                arrival.temporary.unlink(missing_ok=True)
            raise
        return arrival

    async def add_file(self, path: str | os.PathLike[str]) -> Instance:
        """Copy a DICOM file into the archive; the instance as it lies there.

        Cancelled, it leaves nothing, or the instance as it should be.

        Raises:
            OSError: The file cannot be read, or the copy not written.
            InvalidFile: It is no DICOM file, that of no instance of a study and series, or cut off.
            ArchiveError: It cannot be indexed.
        """
        temporary = self._folder.temporary()
        instance = await trio.to_thread.run_sync(_copied, Path(os.fspath(path)), temporary)
        arrival = Arrival(
            temporary, instance.transfer_syntax_uid, data_offset=instance.offset, begun=True
        )
        await self._arrivals.add(arrival)
        return attrs.evolve(instance, path=self._folder.absolute(arrival.path))

    # -- storage commitment ------------------------------------------------------------------------

    async def committed(self, reference: SOPReference, /) -> FailureReason | None:
        """Look at an instance's file: it is there, whole, that instance, and on the disk."""
        try:
            found = await self._read(lambda connection: located(connection, reference))
            if found is None:
                return FailureReason.NO_SUCH_OBJECT_INSTANCE
            path = self._folder.absolute(found.path)
        except ArchiveError as error:
            logger.error("%s", error)
            return FailureReason.PROCESSING_FAILURE
        return await trio.to_thread.run_sync(
            examine, path, found.size, reference, limiter=self._readers
        )

    def retrieve_ae_title(self, request: NActionRequest, /) -> str | None:
        """The archive itself, as it was called."""
        return request.association.called_ae_title

    # -- query and retrieval -----------------------------------------------------------------------

    async def handle_find(self, request: FindRequest, /) -> AsyncGenerator[Dataset]:
        """Answer a query, a batch of rows at a time."""
        matching = self._matching
        if request.options.date_time:
            matching = attrs.evolve(matching, combined_datetime=True)
        query = FindQuery(
            _level(request),
            request.identifier,
            options=matching,
            retrieve_ae_title=request.association.called_ae_title,
            implicit_vr=request.context.transfer_syntax == IMPLICIT_VR_LITTLE_ENDIAN,
        )
        while not query.done:
            with _refusals(Status.CANNOT_UNDERSTAND):
                responses = await self._read(query.batch)
            for response in responses:
                yield response

    def handle_get(self, request: GetRequest, /) -> AsyncIterator[Instance]:
        """The instances that a C-GET asks for."""
        return self._instances(request)

    def handle_move(self, request: MoveRequest, /) -> AsyncIterator[Instance]:
        """The instances that a C-MOVE asks for."""
        return self._instances(request)

    async def _instances(self, request: GetRequest | MoveRequest) -> AsyncGenerator[Instance]:
        query = RetrieveQuery(_level(request), request.identifier, self._folder)
        if not query.has_keys:
            raise StatusError(Status.DATA_SET_MISMATCH, "no unique key of the level or above")
        while not query.done:
            with _refusals(Status.CANNOT_UNDERSTAND):
                instances = await self._read(query.batch)
            for instance in instances:
                yield instance

    async def _read(self, function: Callable[[sa.Connection], T]) -> T:
        """Read the index with a connection of its own, in a worker thread."""

        def read() -> T:
            try:
                with self._index.engine.connect() as connection:
                    return function(connection)
            except INDEX_ERRORS as error:
                raise archive_error(error) from error

        return await trio.to_thread.run_sync(read, limiter=self._readers)

    # -- upkeep ------------------------------------------------------------------------------------

    async def statistics(self) -> Statistics:
        """How much the archive holds.

        Raises:
            ArchiveError: The index cannot be read.
        """
        return await self._read(statistics)

    async def rebuild_index(self, progress: Progress | None = None) -> int:
        """Read every file in the folder again; how many were indexed.

        The archive works meanwhile. An index that is damaged is rebuilt by `open_archive`.
        Cancelled, it leaves an index that is valid and not up to date, which the next start
        notices.

        Args:
            progress: Called with the numbers of files done and to do.

        Raises:
            OSError: The folder cannot be read.
            ArchiveError: The index cannot be written.
        """
        return await bring_up_to_date(
            self._folder, self._index, self._arrivals, everything=True, progress=progress
        )

    async def catch_up(self, progress: Progress | None = None) -> int:
        """Read the files that have changed behind the index's back; how many were indexed.

        As `rebuild_index`, for files that were put into the folder or removed from it. It is done
        by `open_archive` after a crash.
        """
        return await bring_up_to_date(
            self._folder, self._index, self._arrivals, everything=False, progress=progress
        )

    def close(self) -> None:
        """Close the index and let go of the folder; done by `open_archive`."""
        try:
            self._index.close(consistent=self._arrivals.consistent)
        except ArchiveError as error:  # the next start compares folder and index
            logger.warning("closing: %s", error)
        finally:
            self._folder.close()


@block("open_archive(…) as archive")
async def open_archive(
    folder: str | os.PathLike[str],
    *,
    rebuild_index: bool = False,
    matching: MatchingOptions | None = None,
    progress: Progress | None = None,
) -> AsyncGenerator[Archive]:
    """Open the archive in a folder, which is made if it is not there.

    After a process was killed, the index is first brought up to date with the files, and what had
    not arrived in full is removed. Cancelled meanwhile, it leaves that to the next start.

    Args:
        folder: The archive's; no other process may have it open.
        rebuild_index: Throw the index away, damaged as it may be, and make it from the files.
        matching: How keys are matched.
        progress: Called with the numbers of files done and to do, when files are indexed.

    Raises:
        ArchiveError: The folder cannot be used or is in use, or the index is damaged.
    """
    archive, up_to_date = await trio.to_thread.run_sync(
        _opened, os.fspath(folder), rebuild_index, matching or MatchingOptions()
    )
    try:
        try:
            if await trio.to_thread.run_sync(archive._arrivals.settle) or not up_to_date:  # pyright: ignore[reportPrivateUsage]
                await archive.catch_up(progress)
        except OSError as error:
            raise _unusable(archive.folder, error) from error
        yield archive
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(archive.close)


def _opened(folder_path: str, rebuild: bool, matching: MatchingOptions) -> tuple[Archive, bool]:
    """The archive, and whether its index was closed properly."""
    path = Path(folder_path).absolute()
    folder = Folder(path)
    try:
        folder.open()
        if rebuild:
            for suffix in ("", "-wal", "-shm", "-journal"):
                path.joinpath(FILE_NAME + suffix).unlink(missing_ok=True)
        index = Index(path / FILE_NAME)
        return Archive(folder, index, matching), index.open()
    except OSError as error:
        folder.close()
        raise _unusable(path, error) from error
    except BaseException:
        folder.close()
        raise


def _unusable(path: Path, error: OSError) -> ArchiveError:
    return ArchiveError(f"cannot use {path} as an archive: {error.strerror or error}")


def _copied(source: Path, target: Path) -> Instance:
    """Copy a file; what it says of itself."""
    instance = Instance.from_file(source)
    try:
        shutil.copyfile(source, target)
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    return instance


def _level(request: FindRequest | GetRequest | MoveRequest) -> str:
    """The level asked for, if the information model has it."""
    levels = _MODELS.get(request.sop_class_uid)
    if levels is None:
        raise StatusError(Status.SOP_CLASS_NOT_SUPPORTED)
    level = request.level.replace("INSTANCE", "IMAGE")
    if not level:
        raise StatusError(Status.DATA_SET_MISMATCH, "no Query/Retrieve Level")
    if level not in levels:
        raise StatusError(Status.DATA_SET_MISMATCH, f"level is none of {', '.join(levels)}")
    return level


@contextmanager
def _refusals(damaged: Status = Status.OUT_OF_RESOURCES) -> Generator[None]:
    """What goes wrong in the archive, as the status that says so to the peer."""
    try:
        yield
    except (MissingAttribute, Mismatch) as error:
        raise StatusError(Status.DATA_SET_MISMATCH, str(error)) from error
    except CutOff as error:
        raise StatusError(Status.CANNOT_UNDERSTAND, "data set is cut off") from error
    except InvalidFile as error:
        logger.warning("an instance is refused: %s", error)
        raise StatusError(Status.CANNOT_UNDERSTAND, "data set cannot be read") from error
    except ArchiveError as error:
        logger.error("%s", error)
        status = damaged if error.damaged else Status.OUT_OF_RESOURCES
        raise StatusError(status, str(error)) from error
    except OSError as error:
        if isinstance(error, DimseError):  # of the association, not of the disk
            raise
        reason = error.strerror or type(error).__name__
        logger.error("cannot keep an instance: %s", reason)
        raise StatusError(Status.OUT_OF_RESOURCES, f"cannot be stored: {reason}") from error
