//! What a BMC can be asked to do, and Redfish with its vendors' quirks
