"""OpenStack's sushy logs in, reads the inventory and runs a SimpleUpdate to the end.

usage: sushy_update.py URL CA_FILE USER PASSWORD IMAGE_URI
Prints one JSON object with what it saw.
"""

import json
import sys
import time

import sushy
from sushy import auth, exceptions

# Virtual minutes pass in seconds; this only ends a run that would hang.
DEADLINE = 60


def main(url, ca, user, password, image):
    service = sushy.Sushy(url, verify=ca, auth=auth.SessionAuth(user, password))
    system = service.get_system(service.get_system_collection().members_identities[0])
    manager = service.get_manager(service.get_manager_collection().members_identities[0])
    chassis = service.get_chassis(service.get_chassis_collection().members_identities[0])
    updates = service.get_update_service()
    seen = {
        "serial": system.serial_number,
        "power": system.power_state.value,
        "bios": system.bios.attributes["BootMode"],
        "bmc": manager.firmware_version,
        "drives": sum(len(s.drives) for s in system.storage.get_members()),
        "adapters": len(chassis.network_adapters.get_members()),
        "firmware": {f.identity: f.version for f in updates.firmware_inventory.get_members()},
    }
    task = updates.simple_update(image).get_task()
    seen["states"] = [task.task_state.value]
    end = time.monotonic() + DEADLINE
    while seen["states"][-1] not in ("Completed", "Exception") and time.monotonic() < end:
        time.sleep(0.05)
        try:
            task.refresh(force=True)
        except exceptions.ResourceNotFoundError:
            # A task that is gone after it was seen running succeeded, or the version will tell.
            break
        if task.task_state.value != seen["states"][-1]:
            seen["states"].append(task.task_state.value)
    print(json.dumps(seen))


if __name__ == "__main__":
    main(*sys.argv[1:])
