"""Finding out what a peer accepts, one association after the other: `probe`."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from statistics import median
from time import perf_counter
from typing import Any, cast

import attrs
import trio

import dimse_trio as dimse

from .advice import advise, look_at_tls
from .certificate import Certificate, read_certificate
from .errors import describe
from .options import Client
from .progress import Bar
from .running import Work

VERIFICATION = dimse.PresentationContext(dimse.uid_of("Verification"))
ECHOES = 5
MAX_FAILURES = 2
"""Associations on end that fail, after which the peer is asked nothing more of the kind."""


@attrs.frozen
class TLSFinding:
    """The TLS of a connection."""

    version: str | None
    cipher: str | None
    certificate: Certificate | None
    verified: bool

    @classmethod
    def of(cls, stream: object, *, verified: bool) -> TLSFinding | None:
        """What a stream says; `None` if it is without TLS."""
        if not isinstance(stream, trio.SSLStream):
            return None
        tls = cast("Any", stream)
        cipher, der = tls.cipher(), tls.getpeercert(True)
        return cls(
            tls.version(),
            None if cipher is None else cipher[0],
            None if der is None else read_certificate(der),
            verified,
        )


@attrs.frozen
class ContextFinding:
    """What a peer says to one SOP class in one transfer syntax.

    `result` is that of PS3.8 Table 9-18, `None` where the peer has not answered.
    """

    sop_class_uid: str
    transfer_syntax_uid: str
    result: int | None
    meaning: str

    @property
    def accepted(self) -> bool:
        return self.result == 0


@attrs.define
class Findings:
    """What has been found out; `None` is not known."""

    connect_times: list[float] = attrs.field(factory=list[float])
    """In milliseconds, TLS included, of each association's connection."""
    tls: TLSFinding | None = None
    negotiated: dimse.Negotiated | None = None
    echo_status: dimse.Status | None = None
    echo_times: list[float] = attrs.field(factory=list[float])
    contexts: list[ContextFinding] = attrs.field(factory=list[ContextFinding])
    scp_roles: dict[str, bool | None] = attrs.field(factory=dict[str, "bool | None"])
    """By SOP class, whether we may be the SCP; `None` where the peer does not say."""
    window: tuple[int, int] | None = None
    """Operations that may be invoked and performed, 0 without limit; `None` if there is none."""
    hints: list[str] = attrs.field(factory=list[str])

    @property
    def connect_ms(self) -> float | None:
        return _median(self.connect_times)

    @property
    def echo_ms(self) -> float | None:
        return _median(self.echo_times)

    def hint(self, hint: str) -> None:
        """Add it, once."""
        if hint not in self.hints:
            self.hints.append(hint)


def _median(times: list[float]) -> float | None:
    return round(median(times), 3) if times else None


class Probing:
    """One run of `probe`.

    Args:
        work: What it hangs its associations on.
        client: The peer.
        wanted: SOP classes, each with the transfer syntaxes to ask about.
        storage: Those of them that store: of these roles are asked, too.
        max_contexts: How many presentation contexts to propose at a time.
        progress: Told how far it is.
    """

    def __init__(
        self,
        work: Work,
        client: Client,
        wanted: Mapping[str, tuple[str, ...]],
        storage: Iterable[str],
        max_contexts: int,
        progress: Bar,
    ) -> None:
        self.findings = Findings()
        self._work = work
        self._client = client
        self._pairs = [(uid, syntax) for uid, syntaxes in wanted.items() for syntax in syntaxes]
        self._storage = frozenset(storage)
        self._max_contexts = max_contexts
        self._progress = progress

    async def run(self) -> None:
        """Look at everything.

        Raises:
            AssociationError: Not even a first association comes about; `findings` has hints.
        """
        try:
            await self._look_at_peer()
        except dimse.AssociationError as error:
            with self._work.interruptible():
                connected = bool(self.findings.connect_times)
                if not connected and self._client.ssl_context is not None:
                    self.findings.tls = TLSFinding.of(
                        await look_at_tls(self._client), verified=False
                    )
                hint = await advise(error, self._client, connected=connected)
                if hint is not None:
                    self.findings.hint(hint)
            raise
        await self._look_at_contexts()
        await self._look_at_roles()
        await self._look_at_window()

    # -- associations ----------------------------------------------------------------------------

    @asynccontextmanager
    async def _open(
        self, contexts: Iterable[dimse.PresentationContext], options: Mapping[str, Any]
    ) -> AsyncGenerator[dimse.Association]:
        client, findings = self._client, self.findings
        settings = {**client.settings, **options}
        verified = settings["ssl_context"] is not None and (
            settings["ssl_context"].verify_mode is not ssl.CERT_NONE
        )
        connect = dimse.connect  # which imports it
        start = perf_counter()
        with client.hinted():
            stream = await connect(
                client.peer.host,
                client.peer.port,
                ssl_context=settings.pop("ssl_context"),
                tls_server_name=settings.pop("tls_server_name"),
                timeouts=client.timeouts,
            )
        findings.connect_times.append((perf_counter() - start) * 1000)
        findings.tls = TLSFinding.of(stream, verified=verified)
        async with dimse.associate_over(
            stream, called_ae_title=client.called_ae_title, contexts=contexts, **settings
        ) as association:
            yield association

    async def _negotiate(
        self,
        contexts: Iterable[dimse.PresentationContext],
        use: Callable[[dimse.Association], Awaitable[None]] | None = None,
        **options: Any,
    ) -> dimse.Negotiated | None:
        """What the peer answers to these, if only that it accepts none; `None` when stopped."""
        negotiated: dimse.Negotiated | None = None
        try:
            async with self._work.association(self._open(contexts, options)) as association:
                negotiated = association.negotiated
                if use is not None:
                    await use(association)
        except dimse.ContextNotAccepted as error:
            negotiated = error.negotiated
        return negotiated

    # -- what there is to find out ---------------------------------------------------------------

    async def _look_at_peer(self) -> None:
        """The connection, what the peer says of itself, and whether it answers C-ECHO."""
        identity = self._client.user_identity
        if identity is not None:
            identity = attrs.evolve(identity, response_requested=True)
        self.findings.negotiated = await self._negotiate(
            [VERIFICATION], self._echo, user_identity=identity
        )
        if self.findings.negotiated is not None and not self.findings.negotiated.accepted:
            self.findings.hint(
                "the peer takes no C-ECHO from us: most do, so it may not know --aet"
                f" {self._client.calling_ae_title}"
            )

    async def _echo(self, association: dimse.Association) -> None:
        self.findings.negotiated = association.negotiated  # whatever becomes of it
        for _ in range(ECHOES):
            start = perf_counter()
            response = await association.echo(check=False)
            self.findings.echo_times.append((perf_counter() - start) * 1000)
            self.findings.echo_status = response.status

    async def _look_at_contexts(self) -> None:
        """Each SOP class in each transfer syntax, in a context of its own."""
        room = max(self._max_contexts - 1, 1)
        failures = 0
        for group in _groups(self._pairs, room):
            if self._work.stopped is not None:
                return
            why = "not asked: the associations before failed"
            negotiated: dimse.Negotiated | None = None
            if failures < MAX_FAILURES:
                contexts = [dimse.PresentationContext(uid, (syntax,)) for uid, syntax in group]
                try:
                    # with Verification, an association comes about whatever else is refused
                    negotiated = await self._negotiate([*contexts, VERIFICATION])
                    failures = 0
                except dimse.AssociationError as error:
                    failures += 1
                    why = f"not answered: {describe(error)}"
                    self.findings.hint(
                        f"an association with {len(contexts) + 1} presentation contexts failed"
                        f" ({describe(error)}): try --max-contexts with fewer"
                    )
            self.findings.contexts += _findings(group, negotiated, why)
            self._progress.update(len(self.findings.contexts), len(self._pairs))

    async def _look_at_roles(self) -> None:
        """Of the storage classes that are accepted, whether we may be the SCP: for C-GET."""
        accepted: dict[str, str] = {}
        for each in self.findings.contexts:
            if each.accepted and each.sop_class_uid in self._storage:
                accepted.setdefault(each.sop_class_uid, each.transfer_syntax_uid)
        for group in _groups(list(accepted.items()), self._max_contexts):
            contexts = [dimse.PresentationContext(*each, scp=True) for each in group]
            try:
                negotiated = await self._negotiate(contexts)
            except dimse.AssociationError as error:
                self.findings.hint(
                    f"an association with role selection failed ({describe(error)}): C-GET, which"
                    " needs it, will not work"
                )
                return
            if negotiated is not None:
                said = {role.sop_class_uid: role.scp for role in negotiated.peer.roles}
                self.findings.scp_roles |= {uid: said.get(uid) for uid, _ in group}

    async def _look_at_window(self) -> None:
        """The asynchronous operations window, on an association of its own: some balk at it."""
        try:
            negotiated = await self._negotiate([VERIFICATION], async_operations=(0, 0))
        except dimse.AssociationError as error:
            self.findings.hint(
                f"an association with an asynchronous operations window failed ({describe(error)}):"
                " do not propose one to this peer"
            )
            return
        if negotiated is not None and negotiated.peer.asynchronous_operations is not None:
            self.findings.window = negotiated.max_invoked, negotiated.max_performed


def _groups(pairs: list[tuple[str, str]], size: int) -> Iterator[list[tuple[str, str]]]:
    return (pairs[start : start + size] for start in range(0, len(pairs), size))


def _findings(
    group: list[tuple[str, str]], negotiated: dimse.Negotiated | None, why: str
) -> Iterator[ContextFinding]:
    """What was answered to contexts that were proposed in this order, the first with ID 1."""
    if negotiated is None:
        yield from (ContextFinding(uid, syntax, None, why) for uid, syntax in group)
        return
    refused = {context.context_id: context for context in negotiated.refused}
    for number, (uid, syntax) in enumerate(group):
        context = refused.get(2 * number + 1)
        if context is None:
            yield ContextFinding(uid, syntax, 0, "acceptance")
        else:
            yield ContextFinding(uid, syntax, context.result, context.meaning)
