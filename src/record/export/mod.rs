//! Exports: what players and people read, made from observations. Pure: no files, no clock; bounded memory.
//!
//! Each takes an iterator of observations and writes as it reads, so that hours of recording never stand in memory. The
//! raw export needs nothing here: it is the container itself.

pub mod cast;
pub mod cast3;
pub mod escape;
pub mod fact;
#[cfg(test)]
mod hostile_tests;
pub mod screen;
pub mod text;
pub mod utf8;

use std::io;

/// Why an export stopped.
#[derive(Debug, thiserror::Error)]
pub enum ExportError<E> {
    /// The recording could not be read on.
    #[error("{0}")]
    Read(E),
    /// Nobody took what was written.
    #[error("the export cannot be written: {0}")]
    Write(#[from] io::Error),
}
