//! Requests that the server has not answered yet, by their ids: answers come in any order, and an id is free again as soon
//! as it is answered.

use std::collections::HashMap;

use super::change::Change;
use crate::wire::Stop;

/// Most requests without an answer. paramiko's prefetch asks for all of a file at once, 32 KiB each.
pub(super) const MAX_OUTSTANDING: usize = 1 << 20;
/// Most memory for what requests name.
const MAX_WEIGHT: usize = 64 * 1024 * 1024;
const TOO_MANY: Stop = Stop { words: "the client sent too many sftp requests without waiting for answers" };
const TWICE: Stop = Stop { words: "the client sent two sftp requests with one id at a time" };
/// Room that is given back once everything was answered.
const MUCH: usize = 1 << 12;

/// What was asked. Kept small, as there can be very many.
#[derive(Debug)]
pub(super) enum Asked {
    Read { file: u32, offset: u64 },
    Write { file: u32, length: u32 },
    Open { file: u32 },
    Close { file: u32 },
    ReadDirectory { file: u32 },
    Lookup,
    WorkingDirectory,
    Change(Box<Change>),
}

/// The table.
#[derive(Default)]
pub(super) struct Outstanding {
    asked: HashMap<u32, Asked>,
    weight: usize,
}

impl Outstanding {
    /// Whether one more with this id may be sent.
    pub(super) fn check(&self, id: u32) -> Result<(), Stop> {
        match self.asked.contains_key(&id) {
            true => Err(TWICE),
            false if self.asked.len() >= MAX_OUTSTANDING || self.weight >= MAX_WEIGHT => Err(TOO_MANY),
            false => Ok(()),
        }
    }

    pub(super) fn insert(&mut self, id: u32, asked: Asked) {
        self.weight += weight(&asked);
        self.asked.insert(id, asked);
    }

    /// What an answer is to; `None` when nobody asked.
    pub(super) fn answered(&mut self, id: u32) -> Option<Asked> {
        let asked = self.asked.remove(&id)?;
        self.weight -= weight(&asked);
        if self.asked.is_empty() && self.asked.capacity() > MUCH {
            self.asked = HashMap::new();
        }
        Some(asked)
    }

    pub(super) fn is_working_directory(&self, id: u32) -> bool {
        matches!(self.asked.get(&id), Some(Asked::WorkingDirectory))
    }

    /// Changes that were never answered, by id.
    pub(super) fn unanswered_changes(&mut self) -> Vec<Change> {
        let mut left: Vec<_> = std::mem::take(&mut self.asked).into_iter().collect();
        self.weight = 0;
        left.sort_unstable_by_key(|(id, _)| *id);
        let change = |(_, asked)| if let Asked::Change(change) = asked { Some(*change) } else { None };
        left.into_iter().filter_map(change).collect()
    }
}

fn weight(asked: &Asked) -> usize {
    if let Asked::Change(change) = asked { change.weight() } else { 0 }
}
