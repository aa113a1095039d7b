"""What a handler is given: one request each, with its data set as far as it has arrived."""

from __future__ import annotations

import hashlib
import inspect
import os
import re
import secrets
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterable, Mapping
from contextlib import aclosing
from functools import wraps
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeAlias, TypeVar

import attrs
import trio

from . import datasets
from .errors import HandlerError
from .incoming import IncomingDataSet
from .part10 import file_header
from .protocol.extended import QueryOptions
from .protocol.messages import CEchoRQ, CFindRQ, CGetRQ, CMoveRQ, CStoreRQ
from .protocol.negotiation import AcceptedContext, syntaxes
from .protocol.pdus import AssociateRQ, UserIdentity
from .protocol.uids import DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN

if TYPE_CHECKING:
    from pydicom import Dataset

    from .association import Association

P = ParamSpec("P")
T = TypeVar("T")

SHORT = 1 << 14
"""An identifier up to this many bytes is decoded in the event loop."""
_DECODING = trio.CapacityLimiter(2)
WRITE_BLOCK = 1 << 20
"""Bytes handed to a worker thread at once when a data set goes to disk."""
SHORT_FILE = 1 << 16
"""A data set up to this long is written in the event loop: the way to a worker thread and back
takes several times as long as making such a file."""

_UID = re.compile(r"[0-9]+(\.[0-9]+)*", re.ASCII)


def is_uid(value: str) -> bool:
    """Whether a string has the form of a UID: digits and dots, 64 at most (PS3.5 §9.1).

    Leading zeros in a component are let pass: too many devices write them.
    """
    return len(value) <= 64 and _UID.fullmatch(value) is not None


@attrs.frozen
class EchoRequest:
    """A C-ECHO (PS3.7 §9.1.5)."""

    association: Association = attrs.field(repr=False)
    context: AcceptedContext
    message: CEchoRQ


@attrs.frozen
class MoveOriginator:
    """Whose C-MOVE a C-STORE is a sub-operation of (PS3.7 §9.1.1.1)."""

    ae_title: str | None
    message_id: int | None


_Called: TypeAlias = tuple[str, Coroutine[Any, Any, Any]]
"""A method, and what it has returned."""


def _to_be_awaited(
    method: Callable[Concatenate[StoreRequest, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[StoreRequest, P], Coroutine[Any, Any, T]]:
    """A method of `StoreRequest` that has to be awaited until the request is answered."""

    @wraps(method)
    def call(self: StoreRequest, /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, T]:
        coroutine = method(self, *args, **kwargs)
        self._called.append((method.__name__, coroutine))  # pyright: ignore[reportPrivateUsage]
        return coroutine

    return call


@attrs.frozen
class StoreRequest:
    """A C-STORE: an instance that is arriving (PS3.7 §9.1.1).

    The data set can be taken once, in one of three ways: `save_as`, `chunks`, `data_set`. It is
    streamed; what a handler leaves unread is received and dropped. An `await` that was forgotten
    is a failure of the handler, not an instance that has been stored.
    """

    association: Association = attrs.field(repr=False)
    context: AcceptedContext
    message: CStoreRQ
    _data: IncomingDataSet = attrs.field(repr=False)
    _called: list[_Called] = attrs.field(init=False, factory=list[_Called], repr=False, eq=False)

    @property
    def sop_class_uid(self) -> str:
        """Affected SOP Class UID, or the context's where the peer left it out."""
        return self.message.affected_sop_class_uid or self.context.abstract_syntax

    @property
    def sop_instance_uid(self) -> str:
        """Affected SOP Instance UID: of UID form, unless the listener lets others in."""
        return self.message.affected_sop_instance_uid or ""

    @property
    def transfer_syntax_uid(self) -> str:
        return self.context.transfer_syntax

    @property
    def move_originator(self) -> MoveOriginator | None:
        """For a sub-operation of a C-MOVE, who asked for that."""
        title = self.message.move_originator_ae_title
        if title is None:
            return None
        return MoveOriginator(title, self.message.move_originator_message_id)

    @property
    def file_name(self) -> str:
        """A name for the instance's file, safe whatever the peer sent: the UID, else a digest."""
        uid = self.sop_instance_uid
        if is_uid(uid):
            return f"{uid}.dcm"
        return f"{hashlib.sha256(uid.encode('latin-1', 'replace')).hexdigest()[:32]}.dcm"

    def file_header(self) -> bytes:
        """Preamble and File Meta Information for the data set as it comes (PS3.10 §7.1)."""
        return file_header(
            sop_class_uid=str(self.sop_class_uid),
            sop_instance_uid=str(self.sop_instance_uid),
            transfer_syntax_uid=self.transfer_syntax_uid,
            source_ae_title=self.association.peer_ae_title,
        )

    @_to_be_awaited
    async def save_as(self, path: str | os.PathLike[str]) -> None:
        """Await it to write the instance to a DICOM file: as it comes, behind a new header.

        It is written beside `path` under a name that begins with a dot and does not end in
        `.dcm`, and put in place when it is whole: whoever looks sees the old file, none, or the
        new one. Folders on the way are made.

        Cancelled, it leaves nothing behind; it may block for as long as one write to disk takes.

        Raises:
            OSError: The disk is full, the folder is not writable, …
            DimseError: The data set has been taken already, or the association is gone.
        """
        target = Path(os.fspath(path))
        part = target.with_name(f".{secrets.token_hex(8)}.part")
        file: IO[bytes] | None = None
        block, size = [self.file_header()], 0
        try:
            async with aclosing(self._data.chunks()) as chunks:
                async for chunk in chunks:
                    block.append(chunk)
                    size += len(chunk)
                    if size >= WRITE_BLOCK:
                        file = await trio.to_thread.run_sync(_write, file, part, block)
                        block, size = [], 0
            if file is None and size <= SHORT_FILE:
                await trio.lowlevel.checkpoint_if_cancelled()
                _finish(file, part, block, target)
            else:
                await trio.to_thread.run_sync(_finish, file, part, block, target)
        except BaseException:
            if file is not None:
                file.close()
            part.unlink(missing_ok=True)
            raise

    def chunks(self) -> AsyncIterator[bytes]:
        """The data set's bytes as they come, in pieces of the peer's choosing.

        Raises:
            DimseError: The data set has been taken already, or the association is gone.
        """
        return self._data.chunks()

    @_to_be_awaited
    async def data_set(self) -> Dataset:
        """Await it for the data set as a pydicom `Dataset` with `file_meta`, all of it in memory.

        Its own `save_as` writes a DICOM file.

        Raises:
            DataSetError: It cannot be read.
            DimseError: It has been taken already, or the association is gone.
        """
        from pydicom.dataset import FileMetaDataset
        from pydicom.uid import UID

        data_set = datasets.decode(await self._data.read(), self.transfer_syntax_uid)
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = UID(self.sop_class_uid)
        meta.MediaStorageSOPInstanceUID = UID(self.sop_instance_uid)
        meta.TransferSyntaxUID = UID(self.transfer_syntax_uid)
        data_set.file_meta = meta
        data_set.preamble = bytes(128)  # without, pydicom would write no file that it reads again
        return data_set

    def check_awaited(self) -> None:
        """Refuse to acknowledge an instance that was to be taken, and was not.

        Raises:
            HandlerError: What takes it was called, and has not come to its end.
        """
        left = [
            name
            for name, coroutine in self._called
            if inspect.getcoroutinestate(coroutine) != inspect.CORO_CLOSED
        ]
        self._called.clear()
        for name in left:
            raise HandlerError(f"{name}(…) was called, and not awaited to its end: await {name}(…)")


def _write(file: IO[bytes] | None, part: Path, block: list[bytes]) -> IO[bytes]:
    if file is None:
        try:
            file = part.open("xb")
        except FileNotFoundError:
            part.parent.mkdir(parents=True, exist_ok=True)
            file = part.open("xb")
    try:
        file.writelines(block)
    except BaseException:
        file.close()
        raise
    return file


def _finish(file: IO[bytes] | None, part: Path, block: list[bytes], target: Path) -> None:
    with _write(file, part, block):
        pass
    part.replace(target)


async def decode_aside(
    decode: Callable[[], Dataset], data: bytes, transfer_syntax_uid: str
) -> Dataset:
    """Call `decode`, which decodes `data`, where it holds nobody up: a long one in a thread."""
    if len(data) <= SHORT and transfer_syntax_uid != DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN:
        return decode()
    return await trio.to_thread.run_sync(decode, abandon_on_cancel=True, limiter=_DECODING)


@attrs.frozen
class RequestWithDataSet:
    """A request whose data set is gathered before its handler runs."""

    association: Association = attrs.field(repr=False)
    context: AcceptedContext
    _data: bytes = attrs.field(repr=False)
    _decoded: list[Dataset] = attrs.field(init=False, factory=list["Dataset"], repr=False)

    @staticmethod
    def _decode(data: bytes, transfer_syntax_uid: str) -> Dataset:
        return datasets.decode_identifier(data, transfer_syntax_uid)

    @property
    def _data_set(self) -> Dataset:
        if not self._decoded:
            self._decoded.append(self._decode(self._data, self.context.transfer_syntax))
        return self._decoded[0]

    async def prepare(self) -> None:
        """Decode the data set before a handler asks for it: a long one in a worker thread.

        Raises:
            DataSetError: The peer's bytes are no data set.
        """
        await decode_aside(lambda: self._data_set, self._data, self.context.transfer_syntax)


@attrs.frozen
class _IdentifierRequest(RequestWithDataSet):
    @property
    def sop_class_uid(self) -> str:
        """The information model: the presentation context's abstract syntax."""
        return self.context.abstract_syntax

    @property
    def identifier(self) -> Dataset:
        """The identifier. Bytes that are none have been answered 0xA900 before the handler runs."""
        return self._data_set

    @property
    def options(self) -> QueryOptions:
        """What extended negotiation has agreed on for this information model (PS3.4 §C.5)."""
        return self.association.negotiated.query_options(self.context.abstract_syntax)

    @property
    def level(self) -> str:
        """Query/Retrieve Level in upper case; empty where there is none."""
        return str(self.identifier.get("QueryRetrieveLevel", "") or "").strip().upper()


@attrs.frozen
class FindRequest(_IdentifierRequest):
    """A C-FIND (PS3.7 §9.1.2)."""

    message: CFindRQ = attrs.field(kw_only=True)


@attrs.frozen
class GetRequest(_IdentifierRequest):
    """A C-GET (PS3.7 §9.1.3)."""

    message: CGetRQ = attrs.field(kw_only=True)


@attrs.frozen
class MoveRequest(_IdentifierRequest):
    """A C-MOVE (PS3.7 §9.1.4)."""

    message: CMoveRQ = attrs.field(kw_only=True)

    @property
    def destination(self) -> str:
        """AE title of the move destination."""
        return self.message.move_destination or ""


@attrs.frozen
class AssociationRequest:
    """A peer's request for an association, before it is answered (PS3.8 §7.1.1).

    Attributes:
        called_ae_title: What it calls us.
        calling_ae_title: What it calls itself.
        peer_address: Its `host:port`; empty over a stream that has none.
        abstract_syntaxes: What it proposes, one for each presentation context.
        user_identity: Who it says its user is (PS3.7 §D.3.3.7), if it says so.
        peer_certificate: Its certificate, as `ssl.SSLSocket.getpeercert` gives it: of mutual TLS.
        message: The A-ASSOCIATE-RQ itself: contexts, implementation, options, unknown items.
    """

    called_ae_title: str
    calling_ae_title: str
    peer_address: str
    abstract_syntaxes: tuple[str, ...]
    user_identity: UserIdentity | None = None
    peer_certificate: Mapping[str, Any] | None = attrs.field(default=None, repr=False)
    message: AssociateRQ | None = attrs.field(default=None, repr=False)

    @classmethod
    def of(
        cls,
        request: AssociateRQ,
        peer_address: str,
        peer_certificate: Mapping[str, Any] | None = None,
    ) -> AssociationRequest:
        """What an A-ASSOCIATE-RQ from that address asks for."""
        return cls(
            called_ae_title=request.called_ae_title,
            calling_ae_title=request.calling_ae_title,
            peer_address=peer_address,
            abstract_syntaxes=tuple(c.abstract_syntax for c in request.contexts),
            user_identity=request.user_information.user_identity,
            peer_certificate=peer_certificate,
            message=request,
        )


def _uids(uids: Collection[str] | None) -> Collection[str] | None:
    return None if uids is None else syntaxes(uids)


@attrs.frozen(kw_only=True)
class Admission:
    """What `handle_association` may yield: on which terms an association is accepted.

    Attributes:
        user_identity_response: The answer to the requestor's identity, where it asks for one: empty
            for a user name, a Kerberos ticket, a SAML response, a JSON web token. Without one, it
            is not told that its identity was looked at.
        abstract_syntaxes: The SOP classes that this peer may use, of those that the listener
            offers; `None` for all.
    """

    user_identity_response: bytes | None = attrs.field(default=None, repr=False)
    abstract_syntaxes: Collection[str] | None = attrs.field(default=None, converter=_uids)

    @classmethod
    def of_all(cls, admissions: Iterable[Admission]) -> Admission:
        """What several say together: the first answer, and the SOP classes that all admit."""
        answer: bytes | None = None
        admitted: Collection[str] | None = None
        for each in admissions:
            answer = each.user_identity_response if answer is None else answer
            if each.abstract_syntaxes is not None:
                narrowed = frozenset(each.abstract_syntaxes)
                admitted = narrowed if admitted is None else narrowed.intersection(admitted)
        return cls(user_identity_response=answer, abstract_syntaxes=admitted)
