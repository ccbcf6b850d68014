//! What the policy says: the rules in force, and what they answer to a question. For those who may read everybody's
//! sessions, because answers tell what other people may do.

mod answer;
mod list;
mod test;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use serde_json::{Map, Value};

pub use self::answer::{Answer, Ask, BadAsk, World, answer};
pub(super) use self::list::{__path_list, list};
pub(super) use self::test::{__path_test, test};
use crate::geo::Geo;
use crate::session::Rules;

/// What questions about the policy are answered from. Cheap to clone.
#[derive(Clone, Debug)]
pub struct PolicyDesk {
    /// What is in force.
    pub rules: Rules,
    /// Where addresses are.
    pub geo: Geo,
    /// How long a sign-in counts.
    pub session_lifetime: Duration,
    /// The rules as they stand in the file.
    pub written: Written,
}

/// The rules as they stand in the file that is in force. Cheap to clone: all clones see the newest.
#[derive(Clone, Debug, Default)]
pub struct Written(Arc<ArcSwap<Vec<Map<String, Value>>>>);

impl Written {
    /// Others are in force now.
    pub fn replace(&self, policies: Vec<Map<String, Value>>) {
        self.0.store(Arc::new(policies));
    }

    fn get(&self, name: &str) -> Option<Map<String, Value>> {
        self.0.load().iter().find(|policy| policy.get("name").is_some_and(|known| known == name)).cloned()
    }
}
