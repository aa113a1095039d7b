"""Directives that draw the conformance statement's tables from what the package goes by.

`sop-class-table SERVICE` lists the classes of a DIMSE service, `normalized-table` those of DIMSE-N,
`transfer-syntax-table` the transfer syntaxes, `identity-table` how the implementation names itself,
`archive-key-table` the keys of the embedded archive, `bounds-table` what bounds an association,
`tls-profile-table` the secure transport connection profiles.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

from docutils import nodes
from protocol_tables import table
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from dimse_trio.archive.attributes import COMPUTED, LEVELS, STORED
from dimse_trio.client import DEFAULT_AE_TITLE, DEFAULT_MAX_PDU_LENGTH, OURS
from dimse_trio.config import Timeouts
from dimse_trio.contexts import default_contexts
from dimse_trio.handlers import METHODS, NORMALIZED_METHODS
from dimse_trio.protocol.messages import CFindRQ, Request
from dimse_trio.protocol.negotiation import MAX_CONTEXTS
from dimse_trio.protocol.normalized import NORMALIZED_CLASSES
from dimse_trio.protocol.pdus import APPLICATION_CONTEXT
from dimse_trio.protocol.uids import SOP_CLASSES, TRANSFER_SYNTAXES, Service, uid_name
from dimse_trio.settings import ServerSettings
from dimse_trio.tls import TLS_PROFILES


def literals(words: Iterable[str]) -> nodes.paragraph:
    """Words in literal type, with commas between them."""
    paragraph = nodes.paragraph()
    for number, word in enumerate(words):
        if number:
            paragraph += nodes.Text(", ")
        paragraph += nodes.literal("", word)
    return paragraph


class SOPClassTable(SphinxDirective):
    """The SOP classes of one service, and what makes a handler their SCP."""

    required_arguments = 1
    has_content = False

    def run(self) -> list[nodes.Node]:
        service = Service[self.arguments[0]]
        proposed = {context.abstract_syntax for context in default_contexts()}
        rows = [
            (entry.keyword, entry.uid, "by default" if entry.uid in proposed else "if asked for")
            for entry in SOP_CLASSES.values()
            if entry.service is service
        ]
        head = ["SOP class", "UID", f"SCU proposes it; SCP with {METHODS[service]}"]
        return [table(head, rows)]


class NormalizedTable(SphinxDirective):
    """The classes of DIMSE-N with the services that they are made of."""

    def run(self) -> list[nodes.Node]:
        names: dict[type[Request], str] = {**NORMALIZED_METHODS, CFindRQ: METHODS[Service.FIND]}
        rows = []
        for row in NORMALIZED_CLASSES.values():
            performs = [name for kind, name in names.items() if kind in row.performed]
            carriers = ", ".join(uid_name(uid) for uid in row.carriers[1:])
            events = "yes" if row.reports else ""
            rows.append((uid_name(row.uid), row.uid, literals(performs), events, carriers))
        head = ["SOP class", "UID", "SCP with", "N-EVENT-REPORT to SCU", "Also on contexts of"]
        return [table(head, rows)]


class TransferSyntaxTable(SphinxDirective):
    """The transfer syntaxes, and what is done with them."""

    def run(self) -> list[nodes.Node]:
        rows = [
            (
                entry.keyword,
                entry.uid,
                "every service; re-encoded in one another" if entry.native else "storage, as it is",
            )
            for entry in TRANSFER_SYNTAXES.values()
        ]
        return [table(["Transfer syntax", "UID", "Used for"], rows)]


class FactTable(SphinxDirective):
    """Names and values."""

    facts: ClassVar[Callable[[], Iterable[Sequence[str]]]]

    def run(self) -> list[nodes.Node]:
        return [table(["What", "Value"], type(self).facts())]


def _identity() -> list[tuple[str, str]]:
    return [
        ("Application context name", APPLICATION_CONTEXT),
        ("Implementation Class UID", OURS.class_uid),
        ("Implementation Version Name", OURS.version_name),
        ("AE title of a requestor, by default", DEFAULT_AE_TITLE),
    ]


def _bounds() -> list[tuple[str, str]]:
    settings = ServerSettings(handler=_Nothing())
    timeouts = Timeouts()
    invoked, performed = settings.async_operations
    return [
        ("Maximum PDU length announced", f"{DEFAULT_MAX_PDU_LENGTH} bytes"),
        ("Presentation contexts of an association, at most", f"{MAX_CONTEXTS}"),
        ("Presentation contexts proposed by default", f"{len(default_contexts())}"),
        ("Associations that a listener serves at once", f"{settings.max_associations}"),
        ("... from one network address", f"{settings.max_associations_per_peer}"),
        ("Operations a listener invokes and performs at once", f"{invoked} and {performed}"),
        ("ARTIM, and the answer to A-ASSOCIATE-RQ", f"{timeouts.associate:g} s"),
        ("The answer to A-RELEASE-RQ", f"{timeouts.release:g} s"),
        ("Nothing comes for an operation", f"{timeouts.response:g} s"),
        ("An acceptor's association is idle", f"{timeouts.idle:g} s"),
    ]


class _Nothing:
    """A handler, so that there are settings."""

    async def handle_echo(self, request: object, /) -> int:
        return 0


class IdentityTable(FactTable):
    """How the implementation names itself."""

    facts = staticmethod(_identity)


class BoundsTable(FactTable):
    """The defaults of what bounds an association."""

    facts = staticmethod(_bounds)


class TLSProfileTable(SphinxDirective):
    """The TLS profiles by name."""

    def run(self) -> list[nodes.Node]:
        rows = [
            (nodes.paragraph("", "", nodes.literal("", name)), profile.clause, profile.ciphers)
            for name, profile in TLS_PROFILES.items()
        ]
        return [table(["Profile", "Clause", "TLS 1.2 cipher suites, as OpenSSL says it"], rows)]


class ArchiveKeyTable(SphinxDirective):
    """The keys that the embedded archive matches and returns, by level."""

    def run(self) -> list[nodes.Node]:
        rows = [
            (
                level,
                literals(attribute.keyword for attribute in STORED[level]),
                literals(attribute.keyword for attribute in COMPUTED[level]),
            )
            for level in LEVELS
        ]
        return [table(["Level", "From instances; the first is the unique key", "Made out"], rows)]


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("sop-class-table", SOPClassTable)
    app.add_directive("normalized-table", NormalizedTable)
    app.add_directive("transfer-syntax-table", TransferSyntaxTable)
    app.add_directive("identity-table", IdentityTable)
    app.add_directive("bounds-table", BoundsTable)
    app.add_directive("tls-profile-table", TLSProfileTable)
    app.add_directive("archive-key-table", ArchiveKeyTable)
    return {"parallel_read_safe": True}
