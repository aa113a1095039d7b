"""What becomes of instruments that fail, are none, or meet what they did not expect."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing

import dimse_trio as dimse
from dimse_trio.instruments import AssociationInfo, Instrument, OperationEnd, PDUInfo
from dimse_trio.otel import OpenTelemetryInstrument
from dimse_trio.testing import associated_pair

from .hospital import Hospital, Keeping


async def test_an_instrument_that_raises_is_logged_once_and_switched_off(
    files: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    @attrs.frozen
    class Broken(Instrument):
        calls: list[str] = attrs.field(factory=list)

        def pdu_received(self, pdu: PDUInfo, /) -> None:
            self.calls.append("pdu_received")
            raise ValueError("broken")

        def operation_finished(self, end: OperationEnd, /) -> None:
            self.calls.append("operation_finished")

    broken, sound = Broken(), Keeping()
    for _ in range(2):
        async with associated_pair(
            Hospital(files), requestor_instruments=[broken, sound]
        ) as association:
            assert (await association.echo()).status == 0
    assert broken.calls == ["pdu_received"]
    (logged,) = (record for record in caplog.records if record.levelno == logging.ERROR)
    assert "Broken.pdu_received" in logged.getMessage()
    assert logged.exc_info is not None
    assert len(sound.of("operation_finished")) == 2


async def test_only_instruments_are_taken() -> None:
    with pytest.raises(dimse.LocalProtocolError, match=r"the class Keeping: give .* Keeping\(\)"):
        async with dimse.open_association("127.0.0.1", 1, instruments=[Keeping]):  # type: ignore[list-item]
            raise AssertionError
    with pytest.raises(dimse.LocalProtocolError, match="subclass of Instrument"):
        dimse.RemoteAE("PACS", "127.0.0.1", instruments=[object()])  # type: ignore[list-item]
    with pytest.raises(dimse.LocalProtocolError, match="subclass of Instrument"):
        async with dimse.open_server(Hospital([]), instruments=[object()]):
            raise AssertionError
    ours, theirs = trio.testing.memory_stream_pair()
    with pytest.raises(dimse.LocalProtocolError, match="subclass of Instrument"):
        async with dimse.associate_over(ours, instruments=[object()]):  # type: ignore[list-item]
            raise AssertionError
    assert await theirs.receive_some() == b""


@pytest.mark.parametrize(
    "said",
    [b"", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00", b"\x04\0\0\0\0\x0a" + bytes(10)],
    ids=["nothing", "HTTP", "TLS", "P-DATA-TF"],
)
async def test_peers_that_speak_something_else_switch_no_instrument_off(
    said: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture, autojump_clock: object
) -> None:
    caplog.set_level(logging.DEBUG)
    keeping = Keeping()
    with dimse.PcapngWriter(tmp_path / "capture.pcapng") as writer:
        instruments = [keeping, dimse.LoggingInstrument(), OpenTelemetryInstrument(), writer]
        peer, ours = trio.testing.memory_stream_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                partial(dimse.serve_stream, Hospital([]), ours, instruments=instruments)
            )
            await peer.send_all(said)
            await peer.send_eof()
    assert "switched off" not in caplog.text
    assert [hook for hook, _ in keeping.told][-1] == "connection_closed"
    assert keeping.of("association_opened") == []


class Misspelt(Instrument):
    def association_opend(self, association: AssociationInfo, /) -> None:
        raise AssertionError


class Prefixed(Instrument):
    def on_association_opened(self, association: AssociationInfo, /) -> None:
        raise AssertionError


class Asynchronous(Instrument):
    async def association_opened(self, association: AssociationInfo, /) -> None:  # type: ignore[override]
        raise AssertionError


class Bare(Instrument):
    def association_opened(self) -> None:  # type: ignore[override]
        raise AssertionError


class OfItsOwn(Instrument):
    """It has methods that are no hooks, nor meant to be."""

    def association_count(self) -> int:
        return 0

    def opened(self) -> None:
        raise AssertionError


@pytest.mark.parametrize(
    ("instrument", "message"),
    [
        (Misspelt(), r"Misspelt\.association_opend is no hook.*mean association_opened\?"),
        (Prefixed(), r"on_association_opened is no hook.*mean association_opened\?"),
        (Asynchronous(), r"association_opened cannot be asynchronous"),
        (Bare(), r"association_opened must take one argument"),
    ],
)
async def test_a_hook_that_would_not_be_called_is_refused(
    instrument: Instrument, message: str
) -> None:
    with pytest.raises(dimse.LocalProtocolError, match=message):
        async with dimse.open_association("127.0.0.1", 1, instruments=[instrument]):
            raise AssertionError
    with pytest.raises(dimse.LocalProtocolError, match=message):
        dimse.RemoteAE("PACS", "127.0.0.1", instruments=[OfItsOwn(), instrument])


async def test_a_capture_that_is_closed_too_early_says_so_once(
    tmp_path: Path, files: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    writer = dimse.PcapngWriter(tmp_path / "c.pcapng")
    async with associated_pair(Hospital(files), requestor_instruments=[writer]) as association:
        writer.close()
        assert (await association.echo()).status == 0
        assert (await association.echo()).status == 0
    async with associated_pair(Hospital(files), requestor_instruments=[writer]):
        pass
    (said,) = (record for record in caplog.records if record.name == "dimse_trio.capture")
    assert said.levelno == logging.WARNING
    assert "c.pcapng has been closed" in said.getMessage()
