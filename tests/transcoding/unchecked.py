"""A codec's process in which frames come to the codec that does worst, without a look at them."""

from __future__ import annotations

import contextlib

from dimse_trio import codec_main, transcoding

if __name__ == "__main__":
    transcoding._check_header = lambda *_: None
    transcoding._PLUGINS = ("pylibjpeg",)
    with contextlib.suppress(BrokenPipeError):
        codec_main.main()
