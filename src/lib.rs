//! Gatescribe: an identity-aware, recording access proxy.
pub mod api;
pub mod config;
pub mod error;
pub mod identity;
pub mod policy;
pub mod proto;
pub mod record;
pub mod session;
pub mod socket;
pub mod store;
pub mod telemetry;
pub mod upstream;
