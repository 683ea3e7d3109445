//! An emulated fleet: BMCs that speak Redfish over HTTPS, with state, tasks, reboots and faults
