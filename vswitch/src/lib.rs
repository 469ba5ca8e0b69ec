//! Lcores, forwarding and the learning switch.
