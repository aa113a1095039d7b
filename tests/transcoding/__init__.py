"""Transcoding: the pixels that come out are those that went in, or nothing comes out."""
