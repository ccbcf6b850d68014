//! The client's side, one folder per protocol. None of them knows another.

pub mod ssh;
