"""C-STORE's way out: on which context an instance goes, in which transfer syntax, from where.

What the peer has accepted may not be what the instance is in. Native transfer syntaxes are
re-encoded in one another, which touches no pixel; beyond that it is the policy that decides.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

import attrs
import trio

from . import datasets
from .character_sets import set_character_set
from .contexts import folder_error, storage_context, transcoding_context
from .errors import (
    ConnectionFailed,
    ContextNotAccepted,
    DataSetError,
    InvalidFile,
    LocalProtocolError,
)
from .part10 import Instance, path_of
from .protocol.messages import CStoreRSP
from .protocol.negotiation import AcceptedContext, Negotiated
from .protocol.status import Status
from .protocol.uids import EXPLICIT_VR_LITTLE_ENDIAN, uid_name
from .sources import BytesSource, DataSource, FileSource

if TYPE_CHECKING:
    from pydicom import Dataset

    from .transcoding import TranscodingError

TRANSCODED_AT_ONCE = 2
"""Transcoded instances in memory for one association: one on its way, one in the making."""


@attrs.frozen
class Mismatch:
    """An instance in a transfer syntax that the peer does not take for its SOP class.

    Attributes:
        instance: The file, or the data set that was given.
        sop_class_uid: Its SOP class.
        sop_instance_uid: Its SOP Instance UID.
        transfer_syntax_uid: What it is in.
        accepted: The transfer syntaxes that the peer has accepted for the SOP class, at least one,
            in the order of their contexts.
    """

    instance: Instance | Dataset = attrs.field(repr=False)
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    accepted: tuple[str, ...]


Replacement: TypeAlias = "str | os.PathLike[str] | Instance | Dataset | None"
"""What a policy answers: a transfer syntax of `Mismatch.accepted` to transcode to, or "transcode"
for the best of them; what to send instead, as the path of a file, an `Instance` or a data set; or
`None` to send nothing. A `str` is never a path."""

MismatchPolicy: TypeAlias = "Callable[[Mismatch], Replacement | Awaitable[Replacement]]"
"""Decides about one instance; a function, or an async one."""

OnMismatch: TypeAlias = "Literal['error', 'transcode'] | MismatchPolicy"
"""What is done about a `Mismatch`."""


def check_policy(on_mismatch: OnMismatch) -> OnMismatch:
    """The same.

    Raises:
        LocalProtocolError: It is none.
    """
    if on_mismatch not in ("error", "transcode") and not callable(on_mismatch):
        raise LocalProtocolError(
            f"on_mismatch is 'error', 'transcode' or a function, not {on_mismatch!r}"
        )
    return on_mismatch


_RESPONSE = tuple(attrs.fields_dict(CStoreRSP))


@attrs.frozen(kw_only=True, slots=False)
class StoreResult(CStoreRSP):
    """The response to a C-STORE, and what was sent.

    Attributes:
        status: The peer's status.
        transfer_syntax_uid: The transfer syntax that the instance was sent in.
        transcoded: Whether its pixel data were decompressed or compressed for that, by `store`.
    """

    transfer_syntax_uid: str
    transcoded: bool

    @property
    def stored(self) -> bool:
        """Whether the peer has it: success, or a warning; "cancel", 0xFE00, does not say so."""
        return not self.status.is_failure and self.status != Status.CANCEL

    @classmethod
    def of(cls, response: CStoreRSP, outgoing: Outgoing) -> StoreResult:
        return cls(
            **{name: getattr(response, name) for name in _RESPONSE},
            transfer_syntax_uid=outgoing.context.transfer_syntax,
            transcoded=outgoing.transcoded,
        )


@attrs.define
class Outgoing:
    """An instance as it is sent. `close` when it has been."""

    context: AcceptedContext
    sop_class_uid: str
    sop_instance_uid: str
    source: DataSource
    room: trio.Semaphore | None = None

    @property
    def transcoded(self) -> bool:
        return self.room is not None

    def close(self) -> None:
        self.source.close()
        if self.room is not None:
            self.room.release()


async def prepare(
    negotiated: Negotiated,
    instance: str | os.PathLike[str] | Instance | Dataset,
    on_mismatch: OnMismatch,
    room: trio.Semaphore,
) -> Outgoing:
    """What it takes to send an instance; opened, re-encoded, transcoded as need be.

    Args:
        negotiated: What may be sent.
        instance: What is to be sent.
        on_mismatch: What to do if it may not as it is.
        room: Has a place for each transcoded instance.

    Raises:
        ContextNotAccepted, InvalidFile, DataSetError, TranscodingError, OSError: As
            `Association.store`.
    """
    check_policy(on_mismatch)
    item, opened = _open(instance)
    kept: DataSource | None = None
    try:
        if isinstance(item, Instance):
            sop_class, sop_instance = item.sop_class_uid, item.sop_instance_uid
            syntax: str | None = item.transfer_syntax_uid
        else:
            sop_class, sop_instance = datasets.sop_uids(item)
            syntax = datasets.original_transfer_syntax(item)
        try:
            context = storage_context(negotiated, sop_class, syntax)
        except ContextNotAccepted:
            contexts = [c for c in negotiated.contexts_for(sop_class) if c.scu]
            if on_mismatch == "error" or not contexts:
                raise
            mismatch = Mismatch(
                item,
                sop_class,
                sop_instance,
                syntax or EXPLICIT_VR_LITTLE_ENDIAN,
                tuple(context.transfer_syntax for context in contexts),
            )
            answer: Replacement = "transcode"
            if callable(on_mismatch):
                answer = await _ask(on_mismatch, mismatch)
            if answer is None:
                raise
            if not isinstance(answer, str):
                return await prepare(negotiated, answer, "error", room)
            return await _transcoded(mismatch, _target(mismatch, answer, contexts), room)
        source = kept = _source(item, opened, context)
        return Outgoing(context, sop_class, sop_instance, source)
    finally:
        if opened is not None and kept is not opened:
            opened.close()


def _open(
    instance: str | os.PathLike[str] | Instance | Dataset,
) -> tuple[Instance | Dataset, FileSource | None]:
    """The instance, and its file if it was given by its path, which is then open."""
    if (path := path_of(instance)) is not None:
        try:
            opened = FileSource.open(path)
        except OSError:
            if path.is_dir():
                raise folder_error(path) from None
            raise
        return opened.instance, opened
    if not isinstance(instance, Instance) and not hasattr(instance, "iterall"):
        raise TypeError(
            f"store takes a path, an Instance or a data set, not {type(instance).__name__}"
        )
    return cast("Instance | Dataset", instance), None


def _source(
    item: Instance | Dataset, opened: FileSource | None, context: AcceptedContext
) -> DataSource:
    """The bytes of an instance in a context's transfer syntax, its own or another native one."""
    if not isinstance(item, Instance):
        set_character_set(item)
        return BytesSource(datasets.encode(item, context.transfer_syntax))
    if item.transfer_syntax_uid == context.transfer_syntax:
        return opened or FileSource(item)
    return BytesSource(datasets.convert(item, context.transfer_syntax))


async def _ask(policy: MismatchPolicy, mismatch: Mismatch) -> Replacement:
    """The policy's answer; what it raises is an error of this instance, not of the association."""
    try:
        answer: Any = policy(mismatch)
        if inspect.isawaitable(answer):
            answer = await answer
    except Exception as error:
        about_the_instance = (ContextNotAccepted, DataSetError, InvalidFile, OSError)
        if isinstance(error, about_the_instance) and not isinstance(error, ConnectionFailed):
            raise
        raise _error(mismatch, f"the policy raised {type(error).__name__}: {error}") from error
    if isinstance(answer, str | os.PathLike | Instance | None) or hasattr(answer, "iterall"):
        return cast("Replacement", answer)
    raise _error(mismatch, f"the policy returned a {type(answer).__name__}")


def _target(mismatch: Mismatch, answer: str, contexts: list[AcceptedContext]) -> AcceptedContext:
    """The context that a policy means."""
    names = ", ".join(map(uid_name, mismatch.accepted))
    if answer == "transcode":
        context = transcoding_context(contexts)
        if context is None:
            why = f"the peer takes only {names}, and nothing is compressed to that, or with loss"
            raise _error(mismatch, why)
        return context
    for context in contexts:
        if context.transfer_syntax == answer:
            return context
    why = f"the policy answered {answer!r}, but the peer takes only {names}"
    if Path(answer).exists():
        why += "; for a file, answer with its pathlib.Path"
    raise _error(mismatch, why)


def _error(mismatch: Mismatch, why: str) -> TranscodingError:
    from .transcoding import TranscodingError

    return TranscodingError(
        why,
        sop_instance_uid=mismatch.sop_instance_uid,
        transfer_syntax_uid=mismatch.transfer_syntax_uid,
    )


async def _transcoded(
    mismatch: Mismatch, context: AcceptedContext, room: trio.Semaphore
) -> Outgoing:
    """The instance in a context's transfer syntax, when there is room for it."""
    from .transcoding import Transcoding

    transcoding = Transcoding(
        mismatch.sop_instance_uid, mismatch.transfer_syntax_uid, context.transfer_syntax
    )
    await room.acquire()
    try:
        source = BytesSource(await transcoding.run(mismatch.instance))
    except BaseException:
        room.release()
        raise
    return Outgoing(context, mismatch.sop_class_uid, mismatch.sop_instance_uid, source, room)
