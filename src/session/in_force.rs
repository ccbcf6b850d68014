//! What is in force: rules, locks and sockets, replaced as one, so that a decision never mixes old with new.
//!
//! Whoever decided something can wait for the next change ([`Rules::changes`]) and then asks again. Knows no file and no
//! book: others bring what they have read.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::watch;

use crate::policy::{Locks, Policies};
use crate::socket::Socket;

/// Everything that decisions are made of, as it is at one time.
#[derive(Clone, Debug, Default)]
pub struct InForce {
    /// The rules.
    pub policies: Arc<Policies>,
    /// The locks.
    pub locks: Locks,
    /// What can be reached.
    pub sockets: Sockets,
    /// Greater after every change.
    pub(super) number: u64,
    /// How often the clock was set.
    clock: u64,
}

/// All sockets, in the order of the file. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Sockets {
    list: Arc<[Arc<Socket>]>,
    by_name: Arc<HashMap<String, usize>>,
}

/// What is in force now, and how it changes. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Rules(Arc<watch::Sender<Arc<InForce>>>);

impl Sockets {
    /// These sockets.
    pub fn new(list: Vec<Arc<Socket>>) -> Self {
        let by_name = list.iter().enumerate().map(|(index, socket)| (socket.name.clone(), index)).collect();
        Self { list: list.into(), by_name: Arc::new(by_name) }
    }

    /// The socket of this name.
    pub fn get(&self, name: &str) -> Option<&Arc<Socket>> {
        self.list.get(*self.by_name.get(name)?)
    }

    /// All of them.
    pub fn all(&self) -> &[Arc<Socket>] {
        &self.list
    }
}

impl Rules {
    /// These rules and sockets, without a lock.
    pub fn new(policies: Policies, sockets: Vec<Arc<Socket>>) -> Self {
        let sockets = Sockets::new(sockets);
        let policies = Arc::new(policies.with_sockets(sockets.all().iter().map(Arc::as_ref)));
        Self(Arc::new(watch::Sender::new(Arc::new(InForce { policies, sockets, ..InForce::default() }))))
    }

    /// What is in force now.
    pub fn now(&self) -> Arc<InForce> {
        self.0.borrow().clone()
    }

    /// Other rules and sockets.
    pub fn replace(&self, policies: Policies, sockets: Vec<Arc<Socket>>) {
        let sockets = Sockets::new(sockets);
        let policies = Arc::new(policies.with_sockets(sockets.all().iter().map(Arc::as_ref)));
        self.change(|now| InForce { policies, sockets, ..now });
    }

    /// Other locks.
    pub fn set_locks(&self, locks: Locks) {
        self.change(|now| InForce { locks, ..now });
    }

    /// Nothing changed, but everybody shall ask again: the clock was set.
    pub fn ask_again(&self) {
        self.0.send_modify(|now| *now = Arc::new(InForce { clock: now.clock + 1, ..InForce::clone(now) }));
    }

    /// Tells of every change from now on.
    pub fn changes(&self) -> watch::Receiver<Arc<InForce>> {
        self.0.subscribe()
    }

    fn change(&self, change: impl FnOnce(InForce) -> InForce) {
        self.0.send_modify(|now| {
            let number = now.number + 1;
            *now = Arc::new(InForce { number, ..change(InForce::clone(now)) });
        });
    }
}
