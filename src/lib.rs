//! Gatescribe: an identity-aware, recording access proxy.
pub mod accept;
pub mod api;
pub mod cli;
pub mod config;
pub mod error;
pub mod gateway;
pub mod identity;
pub mod policy;
pub mod proto;
pub mod record;
pub mod session;
pub mod socket;
pub mod store;
pub mod telemetry;
pub mod upstream;
