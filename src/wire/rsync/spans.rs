//! What comes in, as pieces that are written down or not.

use bytes::Bytes;

use crate::wire::Step;
use crate::wire::told::Keep;

/// What comes in, as pieces that are written down or not.
pub(super) struct Spans {
    data: Bytes,
    keep: Keep,
    passed: usize,
    at: usize,
    class: Class,
}

/// Whether bytes are contents.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Class {
    Control,
    Contents,
}

impl Spans {
    pub(super) fn new(data: Bytes, keep: Keep) -> Self {
        Self { data, keep, passed: 0, at: 0, class: Class::Control }
    }

    pub(super) fn rest(&self) -> &[u8] {
        self.data.get(self.at..).unwrap_or_default()
    }

    pub(super) fn take(&mut self, count: usize, class: Class, steps: &mut Vec<Step>) {
        if class != self.class {
            self.finish(steps);
            self.class = class;
        }
        self.at = self.data.len().min(self.at + count);
    }

    pub(super) fn finish(&mut self, steps: &mut Vec<Step>) {
        if self.passed == self.at {
            return;
        }
        let piece = self.data.slice(self.passed..self.at);
        self.passed = self.at;
        steps.push(match self.class == Class::Control || self.keep == Keep::Contents {
            true => Step::Pass(piece),
            false => Step::PassUnkept(piece),
        });
    }
}
