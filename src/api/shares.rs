//! Places for what is dear, such as exports that run: no one person takes all of them, and all those who reach only their
//! own leave some to those who reach everybody's.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::store::Owner;

/// Places. Cheap to clone.
#[derive(Clone)]
pub(super) struct Shares {
    limits: Limits,
    taken: Arc<Mutex<Taken>>,
}

/// How many places there are.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    /// In all.
    pub all: usize,
    /// For those who reach only their own, all of them together. The rest is kept for others.
    pub own: usize,
    /// For each of those.
    pub each: usize,
}

/// A place; given back on drop.
pub(super) struct Share {
    taken: Arc<Mutex<Taken>>,
    of: Option<Owner>,
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoShare {
    /// Others have them.
    Full,
    /// This person has as many as one may.
    Own,
}

#[derive(Default)]
struct Taken {
    all: usize,
    own: HashMap<Owner, usize>,
}

impl Shares {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, taken: Arc::default() }
    }

    /// A place for somebody who reaches only their own; `None`: for somebody who reaches everybody's.
    pub(super) fn take(&self, of: Option<Owner>) -> Result<Share, NoShare> {
        let Limits { all, own, each } = self.limits;
        let mut taken = lock(&self.taken);
        if let Some(of) = &of {
            if taken.own.get(of).is_some_and(|places| *places >= each) {
                return Err(NoShare::Own);
            }
            if taken.own.values().sum::<usize>() >= own {
                return Err(NoShare::Full);
            }
        }
        if taken.all >= all {
            return Err(NoShare::Full);
        }
        taken.all += 1;
        if let Some(of) = &of {
            *taken.own.entry(of.clone()).or_default() += 1;
        }
        Ok(Share { taken: Arc::clone(&self.taken), of })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut taken = lock(&self.taken);
        taken.all -= 1;
        if let Some(of) = &self.of
            && let Some(places) = taken.own.get_mut(of)
        {
            *places -= 1;
            if *places == 0 {
                taken.own.remove(of);
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::testing::person;

    #[test]
    fn one_person_has_a_share_and_some_places_are_kept() {
        let shares = Shares::new(Limits { all: 5, own: 4, each: 2 });
        let of = |name: &str| Some(Owner::of(&person(name)));
        let no = |of: Option<Owner>| shares.take(of).err();
        let (first, _second) = (shares.take(of("alice")).unwrap(), shares.take(of("alice")).unwrap());
        assert_eq!(no(of("alice")), Some(NoShare::Own));
        let (_third, fourth) = (shares.take(of("bob")).unwrap(), shares.take(of("carol")).unwrap());
        assert_eq!(no(of("dave")), Some(NoShare::Full), "the last one is kept");
        let fifth = shares.take(None).unwrap();
        assert_eq!(no(None), Some(NoShare::Full));
        drop(first);
        let again = shares.take(of("alice")).unwrap();
        assert_eq!(no(of("alice")), Some(NoShare::Own));
        drop((again, fourth));
        let _others = (shares.take(None).unwrap(), shares.take(None).unwrap());
        assert_eq!(no(of("dave")), Some(NoShare::Full), "nothing is kept for those who reach only their own");
        drop(fifth);
        assert!(shares.take(of("dave")).is_ok());
        assert_eq!(lock(&shares.taken).own.len(), 2, "who has no place is forgotten");
    }
}
