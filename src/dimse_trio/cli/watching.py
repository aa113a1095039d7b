"""What watches a command's associations: the log of `--verbose`, the capture of `--capture`."""

from __future__ import annotations

import click

import dimse_trio as dimse


def _open_capture(
    context: click.Context, parameter: click.Parameter, path: str | None
) -> dimse.PcapngWriter | None:
    """The capture, which is closed with the command."""
    if path is None:
        return None
    try:
        writer = dimse.PcapngWriter(path)
    except OSError as error:
        raise click.BadParameter(f"{path}: {error.strerror}", context, parameter) from error
    context.call_on_close(writer.close)
    return writer


def instruments(verbosity: int, capture: dimse.PcapngWriter | None) -> tuple[dimse.Instrument, ...]:
    """What the command line has watch its associations."""
    chosen: list[dimse.Instrument] = []
    if verbosity:
        chosen.append(dimse.LoggingInstrument())
    if capture is not None:
        chosen.append(capture)
    return tuple(chosen)


verbose_option = click.option(
    "-v",
    "--verbose",
    count=True,
    help="Say more on standard error; -vv more still. Never patient data.",
)
capture_option = click.option(
    "--capture",
    metavar="FILE",
    callback=_open_capture,
    help="Write all that is sent and received to FILE, pcapng for Wireshark; patient data too.",
)
