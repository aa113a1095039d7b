"""A codec's process that ends as damaged pixel data end some."""

from __future__ import annotations

import os

from dimse_trio import codec_main, transcoding


def crash(*_: object) -> None:
    """As a failed assertion in C does."""
    os.abort()


if __name__ == "__main__":
    transcoding._check_header = crash
    codec_main.main()
