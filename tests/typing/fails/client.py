"""Misuse of the client that a type checker must object to, line by line."""

import dimse_trio as dimse


async def misuses(assoc: dimse.Association, query: dimse.Query) -> None:
    await assoc.store(42)  # error
    await assoc.store("image.dcm", on_mismatch="convert")  # error
    await assoc.store("image.dcm", on_mismatch=lambda mismatch: 42)  # error
    await assoc.move(query)  # error
    await assoc.find("STUDY")  # error
    await assoc.find_worklist(Modality=42)  # error
    async for match in await assoc.find(query):  # error
        del match
