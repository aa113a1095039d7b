"""Whether the archive can answer for an instance: its file is there, its own, whole, on the disk.

A file is whole if it has the size that the index knows and its data set ends where it ends.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

import attrs
import sqlalchemy as sa

from dimse_trio.errors import InvalidFile
from dimse_trio.part10 import Instance, open_file
from dimse_trio.references import FailureReason, SOPReference
from dimse_trio.wholeness import Ending, ending_of

from .index import INSTANCES

logger = logging.getLogger("dimse_trio.archive")


@attrs.frozen
class Located:
    """Where the index has an instance, and how long its file was when it came."""

    path: str
    size: int


def located(connection: sa.Connection, reference: SOPReference) -> Located | None:
    """Where the index has an instance, whatever its SOP class."""
    statement = sa.select(INSTANCES.c.path, INSTANCES.c.size).where(
        INSTANCES.c.SOPInstanceUID == reference.sop_instance_uid
    )
    row = connection.execute(statement).one_or_none()
    return None if row is None else Located(*row)


def examine(path: Path, size: int, reference: SOPReference) -> FailureReason | None:
    """Why the archive cannot answer for the instance in a file of that size; `None` if it can."""
    try:
        with open_file(path) as file:
            instance = Instance.from_open_file(file, path)
            if instance.sop_instance_uid != reference.sop_instance_uid:
                logger.error("a file of the archive holds another instance than the index says")
                return FailureReason.PROCESSING_FAILURE
            if instance.sop_class_uid != reference.sop_class_uid:
                return FailureReason.CLASS_INSTANCE_CONFLICT
            file.seek(instance.offset)
            whole = ending_of(file, instance.transfer_syntax_uid) is Ending.WHOLE
            if instance.offset + instance.length != size or not whole:
                logger.error("a file of the archive is damaged or not whole")
                return FailureReason.PROCESSING_FAILURE
            if os.name == "posix":  # elsewhere only what is open for writing can be synchronized
                os.fsync(file.fileno())
    except FileNotFoundError:
        logger.error("a file of the archive is gone")
        return FailureReason.NO_SUCH_OBJECT_INSTANCE
    except (OSError, InvalidFile) as error:
        logger.error("a file of the archive cannot be read: %s", type(error).__name__)
        return FailureReason.PROCESSING_FAILURE
    return None
