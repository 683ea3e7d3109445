//! Firmware versions: equal or not first; ordered only where both are written in a scheme that has an order.
