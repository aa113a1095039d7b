"""Instance availability notification with pynetdicom, each side as SCU and as SCP."""

from __future__ import annotations

import trio
from pydicom import Dataset
from pynetdicom import AE, evt
from pynetdicom.association import Association

import dimse_trio as dimse

from .pynetdicom_peer import request

UID = dimse.uid_of("InstanceAvailabilityNotification")
LE = "1.2.840.10008.1.2.1"
IMAGE = dimse.SOPReference(dimse.uid_of("CTImageStorage"), "1.2.3.4.1")
NOTICE = dimse.AvailabilityNotice(
    "1.2.3",
    {"1.2.3.4": (dimse.AvailableInstance(IMAGE, dimse.InstanceAvailability.NEARLINE, "ARCHIVE"),)},
)


async def test_our_notice_reaches_pynetdicom() -> None:
    seen: list[Dataset] = []

    def create(event: evt.Event) -> tuple[int, None]:
        seen.append(event.attribute_list)
        return 0x0000, None

    ae = AE(ae_title="PYNETDICOM")
    ae.add_supported_context(UID, LE)
    server = ae.start_server(
        ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_N_CREATE, create)]
    )
    assert server is not None
    try:
        with trio.fail_after(30):
            async with dimse.open_association(
                "127.0.0.1",
                server.socket.getsockname()[1],
                contexts=[dimse.PresentationContext(UID)],
            ) as association:
                result = await association.notify_availability(NOTICE)
    finally:
        ae.shutdown()
    assert result.status == dimse.Status.SUCCESS
    [notice] = seen
    assert notice == NOTICE.to_data_set()


async def test_pynetdicoms_notice_reaches_our_listener() -> None:
    seen: list[dimse.AvailabilityNotice] = []

    class Workstation(dimse.AvailabilityListener):
        async def available(self, notice: dimse.AvailabilityNotice) -> None:
            seen.append(notice)

    def notify(association: Association) -> int:
        status, _ = association.send_n_create(NOTICE.to_data_set(), UID, "1.2.3.9")
        return int(status.Status)

    with trio.fail_after(30):
        async with dimse.open_server(Workstation()) as server:
            assert await request(server.port, notify, [(UID, LE)]) == 0x0000
    assert seen == [NOTICE]
