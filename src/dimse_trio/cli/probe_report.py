"""How the findings of `probe` are printed: for people, as one object, as comma-separated values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import dimse_trio as dimse

from .errors import describe, one_line
from .options import Client
from .output import Format, Output
from .probing import ECHOES, ContextFinding, Findings, TLSFinding
from .running import Work

_CSV_COLUMNS = (
    "sop_class_uid",
    "sop_class",
    "transfer_syntax_uid",
    "transfer_syntax",
    "result",
    "meaning",
    "scp_role",
)
_TABLE_COLUMNS = ("sop_class", "accepted", "refused", "scp_role")
SHOWN = 5
"""So many SOP classes that are refused for one reason are shown; more are counted."""
_ROLES = {True: "accepted", False: "refused", None: "not answered"}


async def print_findings(
    work: Work,
    format: Format,
    client: Client,
    findings: Findings,
    failure: dimse.AssociationError | None,
) -> None:
    """Print what has been found out, and what it means."""
    columns = _CSV_COLUMNS if format is Format.CSV else _TABLE_COLUMNS
    output = Output(work.output_closed, format, columns)
    if format is Format.JSON:
        await output.json(_object(client, findings, failure))
        return
    if format is Format.CSV:
        for each in findings.contexts:
            await output.row(_context(each) | {"scp_role": _role(findings, each.sop_class_uid)})
        await output.finish()
        return
    for label, text in _lines(client, findings, failure):
        await output.line(f"{label}:".ljust(16) + one_line(text))
    if findings.contexts:
        await output.line("")
        rows, others = _table(findings)
        for row in rows:
            await output.row(row)
        await output.finish(drop_empty=("refused", "scp_role"))
        for line in others:
            await output.line(line)
    if findings.hints:
        await output.line("")
    for hint in findings.hints:
        await output.line(f"hint: {one_line(hint)}")


def _role(findings: Findings, sop_class_uid: str) -> str | None:
    roles = findings.scp_roles
    return _ROLES[roles[sop_class_uid]] if sop_class_uid in roles else None


def _by_class(findings: Findings) -> dict[str, list[ContextFinding]]:
    classes: dict[str, list[ContextFinding]] = {}
    for each in findings.contexts:
        classes.setdefault(each.sop_class_uid, []).append(each)
    return classes


# -- for people ------------------------------------------------------------------------------------


def _lines(
    client: Client, findings: Findings, failure: dimse.AssociationError | None
) -> Iterator[tuple[str, str]]:
    peer = client.peer
    address = f"{client.called_ae_title} at {peer.host}:{peer.port}"
    connected = findings.connect_ms
    yield (
        "peer",
        address + ("" if connected is None else f", connected in {connected:.1f} ms"),
    )
    if findings.tls is not None:
        yield from _tls_lines(findings.tls)
    elif connected is not None:
        yield "TLS", "none"
    if failure is not None:
        yield "association", "failed"  # standard error says how
    if (negotiated := findings.negotiated) is None:
        return
    if failure is None:
        yield "association", f"accepted, for {client.calling_ae_title}"
    said = negotiated.peer
    name = said.implementation_version_name or "no version name"
    yield "implementation", f"{name} ({said.implementation_class_uid or 'no class UID'})"
    length = negotiated.max_pdu_length
    yield "longest PDU", f"{length} bytes" if length else "no limit"
    if failure is None:
        window = findings.window
        many = "one operation at a time"
        if window is not None:
            invoked, performed = (str(count) if count else "any number" for count in window)
            many = f"{invoked} invoked and {performed} performed at a time"
        yield "window", many
    if client.user_identity is not None:
        yield "user identity", _identity(negotiated)
    if findings.echo_status is not None:
        yield "C-ECHO", f"{findings.echo_status}, in {findings.echo_ms} ms (median of {ECHOES})"
    if findings.contexts:
        yield "associations", f"{len(findings.connect_times)} opened for this"


def _identity(negotiated: dimse.Negotiated) -> str:
    answer = negotiated.user_identity_response
    return "not looked at by the peer" if answer is None else "accepted"


def _tls_lines(tls: TLSFinding) -> Iterator[tuple[str, str]]:
    checked = "" if tls.verified else ", certificate not verified"
    yield "TLS", f"{tls.version}, {tls.cipher}{checked}"
    certificate = tls.certificate
    if certificate is not None:
        until = f"valid until {certificate.not_after:%Y-%m-%d}"
        now = "" if certificate.is_current else ", not valid now"
        yield "certificate", f"{certificate.subject or 'no subject'} ({until}{now})"
        yield "issuer", certificate.issuer or "no name"


def _table(findings: Findings) -> tuple[list[dict[str, object]], list[str]]:
    """A row for each SOP class, and what to say of the many that are not accepted at all."""
    rows: list[dict[str, object]] = []
    not_accepted: dict[str, list[dict[str, object]]] = {}
    for uid, contexts in _by_class(findings).items():
        accepted = [each for each in contexts if each.accepted]
        syntaxes = ", ".join(dimse.uid_name(each.transfer_syntax_uid) for each in accepted)
        reasons = Counter(each.meaning for each in contexts if not each.accepted)
        row: dict[str, object] = {
            "sop_class": dimse.uid_name(uid),
            "accepted": f"all {len(contexts)}"
            if accepted == contexts and accepted[1:]
            else syntaxes,
            "refused": "; ".join(
                reason if count == len(contexts) else f"{count}: {reason}"
                for reason, count in reasons.items()
            ),
            "scp_role": _role(findings, uid),
        }
        if accepted:
            rows.append(row)
        else:
            not_accepted.setdefault(str(row["refused"]), []).append(row)
    others: list[str] = []
    for reason, refused in not_accepted.items():
        if len(refused) > SHOWN:
            others.append(f"and {len(refused)} SOP classes: {reason} (--csv names them)")
        else:
            rows += refused
    return rows, others


# -- for programs ----------------------------------------------------------------------------------


def _context(each: ContextFinding) -> dict[str, object]:
    return {
        "sop_class_uid": each.sop_class_uid,
        "sop_class": dimse.uid_name(each.sop_class_uid),
        "transfer_syntax_uid": each.transfer_syntax_uid,
        "transfer_syntax": dimse.uid_name(each.transfer_syntax_uid),
        "result": each.result,
        "meaning": each.meaning,
    }


def _object(
    client: Client, findings: Findings, failure: dimse.AssociationError | None
) -> dict[str, Any]:
    negotiated = findings.negotiated
    said = None if negotiated is None else negotiated.peer
    window = findings.window
    presented = client.user_identity is not None
    return {
        "host": client.peer.host,
        "port": client.peer.port,
        "called_ae_title": client.called_ae_title,
        "calling_ae_title": client.calling_ae_title,
        "error": None if failure is None else describe(failure),
        "hints": findings.hints,
        "connect_milliseconds": findings.connect_ms,
        "tls": None if findings.tls is None else _tls(findings.tls),
        "implementation_class_uid": None if said is None else said.implementation_class_uid,
        "implementation_version_name": None if said is None else said.implementation_version_name,
        "max_pdu_length": None if negotiated is None else negotiated.max_pdu_length,
        "window": None if window is None else {"invoked": window[0], "performed": window[1]},
        "user_identity": _identity(negotiated) if presented and negotiated is not None else None,
        "echo": None
        if findings.echo_status is None
        else {"status": int(findings.echo_status), "milliseconds": findings.echo_ms},
        "associations": len(findings.connect_times),
        "sop_classes": [
            {
                "sop_class_uid": uid,
                "name": dimse.uid_name(uid),
                "accepted": any(each.accepted for each in contexts),
                "scp_role": _role(findings, uid),
                "transfer_syntaxes": [
                    {
                        "transfer_syntax_uid": each.transfer_syntax_uid,
                        "name": dimse.uid_name(each.transfer_syntax_uid),
                        "result": each.result,
                        "meaning": each.meaning,
                    }
                    for each in contexts
                ],
            }
            for uid, contexts in _by_class(findings).items()
        ],
    }


def _tls(tls: TLSFinding) -> dict[str, Any]:
    certificate = tls.certificate
    return {
        "version": tls.version,
        "cipher": tls.cipher,
        "verified": tls.verified,
        "certificate": None
        if certificate is None
        else {
            "subject": certificate.subject,
            "issuer": certificate.issuer,
            "not_before": certificate.not_before.isoformat(),
            "not_after": certificate.not_after.isoformat(),
            "current": certificate.is_current,
        },
    }
