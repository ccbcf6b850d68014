//! Tests of the reading: tables of packets, any chunking, any bytes, and OpenSSH's own programs on both sides.

mod chunks;
mod malformed;
mod openssh;
mod policy;
mod talk;
mod told;
mod transfers;
