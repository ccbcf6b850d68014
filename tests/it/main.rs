//! Integration tests: black box, real servers and real clients, each test with its own gateway and directory.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod api_roles;
mod asked_again;
mod book;
mod channels;
mod cli_login;
mod cli_sessions;
mod crash;
mod disk;
mod encryption;
mod flow;
mod front;
mod geo;
mod harness;
mod harness_tests;
mod kill;
mod layers;
mod locks;
mod login_server;
mod operations;
mod policy;
mod policy_tools;
mod provider;
mod proxy_protocol;
mod replay;
mod retention;
mod running;
mod service_manager;
mod sign_in;
mod step_up;
mod text;
mod upgrade;
mod upstream;
mod verify;
mod watch;
mod watch_cli;
