"""Tell a workstation where a study can be had, and take such notices. Both run here.

python availability.py
"""

import trio

import dimse_trio as dimse


class Workstation(dimse.AvailabilityListener):
    async def available(self, notice: dimse.AvailabilityNotice) -> None:
        for series, instances in notice.series.items():
            for instance in instances:
                where = f"{instance.availability.value} at {instance.retrieve_ae_title}"
                print(f"{instance.reference.sop_instance_uid} of series {series}: {where}")


async def main() -> None:
    image = dimse.SOPReference(dimse.uid_of("CTImageStorage"), "1.2.3.4.1")
    online = dimse.AvailableInstance(image, dimse.InstanceAvailability.ONLINE, "ARCHIVE")
    notice = dimse.AvailabilityNotice("1.2.3", {"1.2.3.4": [online]})
    contexts = dimse.availability_contexts()
    async with (
        dimse.open_server(Workstation()) as server,
        dimse.open_association("127.0.0.1", server.port, contexts=contexts) as association,
    ):
        result = await association.notify_availability(notice)
        print(result.status)


trio.run(main)
