//! What one follower tells its watchers: a ring that is short in looks and in bytes.
//!
//! Who falls out of it is told so, and asks for the screen as it is; so a slow watcher costs the session and the others
//! nothing. It knows neither recordings nor who watches.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use axum::extract::ws::Message;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use super::screen::{Dump, Event, Shown};
use super::speak::Protocol;
use crate::record::Verdict;

/// The telling end.
pub(super) struct Ring {
    told: broadcast::Sender<Told>,
    kept: Kept,
}

/// A watcher's place on the ring.
pub(super) struct Updates {
    told: broadcast::Receiver<Told>,
    /// For as long as somebody may ask for it.
    _kept: Kept,
}

/// What happened after the screen.
pub(super) enum Update {
    Events(Arc<Events>),
    /// That was all. The recording is whole, or cut.
    Over(Verdict),
}

/// What is on the ring itself.
#[derive(Clone)]
enum Told {
    Events(Weak<Events>),
    Over(Verdict),
}

/// The ring's events, oldest first: no more than [`LOOKS`] looks, and no more bytes than [`BYTES`] beside the newest.
type Kept = Arc<Mutex<VecDeque<Arc<Events>>>>;

/// The events of one look. Each way of telling them is made once, by the first watcher who needs it.
pub(super) struct Events {
    events: Vec<Event>,
    place: Place,
    told: [OnceLock<Vec<Message>>; 4],
}

/// The screen at one point, with what the events after it count from.
#[derive(Clone, Debug)]
pub(super) struct Snapshot {
    pub(super) dump: Dump,
    pub(super) place: Place,
}

/// A point between two events.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Place {
    /// The number of the last event.
    id: u64,
    /// The last event's time for those who do not see what is typed, and for those who do.
    at: [u64; 2],
}

impl Ring {
    pub(super) fn new() -> Self {
        Self { told: broadcast::Sender::new(LOOKS), kept: Kept::default() }
    }

    /// Tells what happened after `place`. Nobody may be there, while a long recording is caught up with.
    pub(super) fn tell(&self, events: Vec<Event>, place: Place) {
        let events = Arc::new(Events { events, place, told: Default::default() });
        let told = Told::Events(Arc::downgrade(&events));
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        // What everybody has taken already, nobody asks for.
        let awaited = self.told.len();
        while kept.len() > awaited {
            kept.pop_front();
        }
        kept.push_back(events);
        // The newest one stays, whatever its size: else a watcher who begins anew would fall off again at once.
        while kept.len() > 1 && (kept.len() > LOOKS || kept.iter().map(|events| events.bytes()).sum::<usize>() > BYTES)
        {
            kept.pop_front();
        }
        drop(kept);
        let _ = self.told.send(told);
    }

    /// Tells that this was all.
    pub(super) fn over(&self, verdict: Verdict) {
        // Who is still waiting or reading gets it; nobody at all is fine.
        let _ = self.told.send(Told::Over(verdict));
    }

    /// A place from here on.
    pub(super) fn subscribe(&self) -> Updates {
        Updates { told: self.told.subscribe(), _kept: Arc::clone(&self.kept) }
    }

    pub(super) fn is_watched(&self) -> bool {
        self.told.receiver_count() > 0
    }
}

impl Updates {
    /// The next one. [`RecvError::Lagged`] where it is no longer on the ring. Cancel safe.
    pub(super) async fn recv(&mut self) -> Result<Update, RecvError> {
        match self.told.recv().await? {
            Told::Events(events) => events.upgrade().map(Update::Events).ok_or(RecvError::Lagged(1)),
            Told::Over(verdict) => Ok(Update::Over(verdict)),
        }
    }
}

impl Snapshot {
    /// The first messages to a new watcher.
    pub(super) fn begin(&self, protocol: Protocol, with_input: bool) -> Vec<Message> {
        protocol.begin(self.place.at(with_input), self.place.id, &self.dump)
    }

    /// The messages to a watcher that fell behind.
    pub(super) fn again(&self, protocol: Protocol, with_input: bool) -> Vec<Message> {
        protocol.again(self.place.at(with_input), self.place.id, &self.dump)
    }
}

impl Events {
    /// What it takes, with the messages made of it until now.
    fn bytes(&self) -> usize {
        let message = |message: &Message| size_of::<Message>() + message_len(message);
        let told = self.told.iter().filter_map(OnceLock::get).flatten().map(message).sum::<usize>();
        self.events.iter().map(Event::bytes).sum::<usize>() + told
    }

    /// The messages to those who are spoken to in this way.
    pub(super) fn told(&self, protocol: Protocol, with_input: bool) -> &[Message] {
        let way = match (protocol, with_input) {
            (Protocol::Alis, false) => 0,
            (Protocol::Alis, true) => 1,
            (Protocol::Asciicast3, false) => 2,
            (Protocol::Asciicast3, true) => 3,
        };
        let Some(told) = self.told.get(way) else { return &[] };
        told.get_or_init(|| {
            let mut last = self.place.at(with_input);
            let numbered = (self.place.id + 1..).zip(&self.events);
            let seen = numbered.filter(|(_, event)| with_input || !matches!(event.shown, Shown::Input(_)));
            let tell = seen.map(|(id, event)| {
                let after = event.at.saturating_sub(std::mem::replace(&mut last, event.at));
                protocol.event(event, id, after)
            });
            tell.collect()
        })
    }
}

impl Place {
    /// The point after these, too.
    pub(super) fn after(mut self, events: &[Event]) -> Self {
        self.id += events.len() as u64;
        let last = |event: Option<&Event>, before: u64| event.map_or(before, |event| event.at);
        let plain = events.iter().rev().find(|event| !matches!(event.shown, Shown::Input(_)));
        self.at = [last(plain, self.at[0]), last(events.last(), self.at[1])];
        self
    }

    fn at(&self, with_input: bool) -> u64 {
        let [plain, all] = self.at;
        if with_input { all } else { plain }
    }
}

fn message_len(message: &Message) -> usize {
    match message {
        Message::Text(text) => text.len(),
        Message::Binary(bytes) => bytes.len(),
        _ => 0,
    }
}

/// Looks on a ring.
pub(super) const LOOKS: usize = 32;
/// Bytes on a ring, as events and as messages.
const BYTES: usize = 2 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_ring_holds_so_many_bytes_and_who_is_behind_them_falls_off() {
        let ring = Ring::new();
        let tell = |bytes| {
            let shown = Shown::Output("x".repeat(bytes));
            ring.tell(vec![Event { at: 0, shown }], Place::default());
        };
        let (mut slow, mut quick) = (ring.subscribe(), ring.subscribe());
        for _ in 0..9 {
            tell(BYTES / 4);
            let Update::Events(events) = quick.recv().await.unwrap() else { panic!("over") };
            // Its messages count too, twice as many bytes in all.
            assert_eq!(events.told(Protocol::Alis, false).len(), 1);
        }
        let kept = ring.kept.lock().unwrap().iter().map(|events| events.bytes()).sum::<usize>();
        assert!(kept <= BYTES + BYTES / 4 + 4096, "{kept}");
        assert!(matches!(slow.recv().await, Err(RecvError::Lagged(_))));
        tell(2 * BYTES);
        let Ok(Update::Events(large)) = quick.recv().await else { panic!("the newest one is always there") };
        assert!(large.bytes() > BYTES);
        assert_eq!(ring.kept.lock().unwrap().len(), 1);
    }

    #[test]
    fn times_count_from_what_each_watcher_was_told_last() {
        let event = |at, shown| Event { at, shown };
        let place = Place { id: 7, at: [1_000_000, 1_500_000] };
        let events = vec![
            event(2_000_000, Shown::Output("a".into())),
            event(2_500_000, Shown::Input("b".into())),
            event(4_000_000, Shown::Output("c".into())),
        ];
        assert_eq!(place.after(&events).at, [4_000_000, 4_000_000]);
        assert_eq!(place.after(&events[..2]).at, [2_000_000, 2_500_000]);
        let events = Events { events, place, told: Default::default() };
        let told = |with_input| {
            let messages = events.told(Protocol::Asciicast3, with_input).iter();
            messages.map(|message| message.to_text().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(told(false), [r#"[1.0,"o","a"]"#, r#"[2.0,"o","c"]"#]);
        assert_eq!(told(true), [r#"[0.5,"o","a"]"#, r#"[0.5,"i","b"]"#, r#"[1.5,"o","c"]"#]);
    }
}
