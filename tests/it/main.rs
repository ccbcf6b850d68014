//! Integration tests: black box, real servers and real clients, each test with its own gateway and directory.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod book;
mod channels;
mod crash;
mod disk;
mod flow;
mod front;
mod harness;
mod harness_tests;
mod kill;
mod layers;
mod policy;
mod provider;
mod replay;
mod running;
mod sign_in;
mod upstream;
