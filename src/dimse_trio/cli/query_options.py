"""The options of commands that query: keys, information model, level."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

import click

CommandT = TypeVar("CommandT", bound=Callable[..., Any])
_UID = re.compile(r"(?=.{1,64}\Z)[0-9]+(\.[0-9]+)*")


def check_uid(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Refuse what cannot be a UID (PS3.5 §9.1)."""
    if value is not None and _UID.fullmatch(value) is None:
        raise click.BadParameter(
            f"{value!r} is no UID: up to 64 digits and dots", context, parameter
        )
    return value


keys_option = click.option(
    "-k",
    "--key",
    "keys",
    metavar="KEY[=VALUE]",
    multiple=True,
    help="A key by keyword, tag or path: PatientName=DOE*, (0010,0020)=1, "
    "ScheduledProcedureStepSequence.Modality=CT. Without a value it is only asked for."
    " Dates may be today, today-7, today-7..today.",
)


def model_option(*names: str) -> Callable[[CommandT], CommandT]:
    """`--model`, of these names."""
    return click.option(
        "--model",
        type=click.Choice(names, case_sensitive=False),
        help="Information model.  [default: what the level and the peer allow]",
    )


def level_option(*names: str) -> Callable[[CommandT], CommandT]:
    """`--level`, of these names."""
    return click.option(
        "--level",
        type=click.Choice(names, case_sensitive=False),
        default="study",
        show_default=True,
        help="Query/Retrieve Level"
        + ("; worklist is for a modality worklist." if "worklist" in names else "."),
    )
