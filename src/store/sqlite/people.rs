//! What the identity provider said of each person last. Sessions that live are decided again with it.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};

use super::values::{Json, Time};
use super::{Store, changes};
use crate::identity::Identity;
use crate::store::{Change, Owner, StoreError};

impl Store {
    /// Somebody signed in at the provider. An older sign-in than the one that is known changes nothing.
    pub async fn person_seen(&self, identity: &Identity) -> Result<(), StoreError> {
        let identity = identity.clone();
        self.writes.call(move |db| seen(db, &identity, Timestamp::now())).await
    }

    /// Everybody, as they were at their newest sign-in, and when that was written.
    pub async fn people(&self) -> Result<Vec<(Identity, Timestamp)>, StoreError> {
        self.lists
            .call(|db| {
                let mut find = db.prepare_cached("SELECT identity, seen FROM people ORDER BY issuer, sub")?;
                let rows = find.query_map([], |row| Ok((row.get::<_, Json<_>>(0)?.0, row.get::<_, Time>(1)?.0)))?;
                Ok(rows.collect::<Result<_, _>>()?)
            })
            .await
    }

    /// The people with this e-mail address, compared without letter case: an address may have been given to another.
    pub async fn person(&self, email: &str) -> Result<Vec<Identity>, StoreError> {
        let email = email.to_owned();
        self.look_ups
            .call(move |db| {
                let mut find = db.prepare_cached(
                    "SELECT identity FROM people WHERE identity ->> 'email' COLLATE NOCASE = ?1 ORDER BY seen DESC",
                )?;
                let rows = find.query_map([&email], |row| Ok(row.get::<_, Json<_>>(0)?.0))?;
                Ok(rows.collect::<Result<_, _>>()?)
            })
            .await
    }

    /// One person's newest identity.
    pub async fn newest_identity(&self, person: Owner) -> Result<Option<Identity>, StoreError> {
        self.look_ups.call(move |db| newest(db, &person)).await
    }
}

fn seen(db: &Connection, identity: &Identity, now: Timestamp) -> Result<(), StoreError> {
    let person = Owner::of(identity);
    // Two browsers may finish in another order than they began.
    if newest(db, &person)?.is_some_and(|known| known.told() > identity.told() || known == *identity) {
        return Ok(());
    }
    let mut put = db.prepare_cached(
        "INSERT INTO people (issuer, sub, identity, seen) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (issuer, sub) DO UPDATE SET identity = excluded.identity, seen = excluded.seen",
    )?;
    put.execute(params![person.issuer(), person.subject(), Json(identity), Time(now)])?;
    changes::add(db, &Change::Person { issuer: person.issuer().to_owned(), subject: person.subject().to_owned() })
}

fn newest(db: &Connection, person: &Owner) -> Result<Option<Identity>, StoreError> {
    let mut find = db.prepare_cached("SELECT identity FROM people WHERE issuer = ?1 AND sub = ?2")?;
    let found = find.query_row([person.issuer(), person.subject()], |row| row.get::<_, Json<_>>(0)).optional()?;
    Ok(found.map(|identity| identity.0))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::store::testing::{Book, identity, time};

    /// Alice, who signed in then, with one thing changed.
    fn alice(signed_in: &str, key: &str, value: Value) -> Identity {
        let mut who = serde_json::to_value(identity(time("2026-03-02T00:00:00Z"))).unwrap();
        who["signed_in"] = signed_in.into();
        who[key] = value;
        serde_json::from_value(who).unwrap()
    }

    #[tokio::test]
    async fn the_newest_sign_in_stands_whatever_comes_after() {
        let book = Book::new();
        let first = alice("2026-03-01T10:00:00Z", "groups", json!(["engineering"]));
        let newer = alice("2026-03-01T10:00:00.5Z", "groups", json!(["sales"]));
        let same_time = alice("2026-03-01T10:00:00.5Z", "groups", json!(["board"]));
        let known = async || book.people().await.unwrap().into_iter().map(|(who, _)| who).collect::<Vec<_>>();
        for (seen, stands) in
            [(&first, &first), (&newer, &newer), (&first, &newer), (&newer, &newer), (&same_time, &same_time)]
        {
            book.person_seen(seen).await.unwrap();
            assert_eq!(known().await, std::slice::from_ref(stands));
        }
        let person = Change::Person { issuer: "https://idp.example.com".into(), subject: "u-1".into() };
        assert_eq!(book.newest_identity(Owner::of(&first)).await.unwrap(), Some(same_time));
        let told: Vec<_> = book.changes_after(0).await.unwrap().into_iter().map(|(_, change)| change).collect();
        assert_eq!(told, vec![person; 3], "what changes nothing is not told");
    }

    #[tokio::test]
    async fn people_are_told_apart_as_the_provider_does_and_found_by_address() {
        let book = Book::new();
        let at = "2026-03-01T10:00:00Z";
        let all = [
            alice(at, "email", json!("Alice@Example.com")),
            alice(at, "subject", json!("u-2")),
            alice(at, "issuer", json!("https://other.example.com")),
        ];
        let bob = alice(at, "email", json!("bob@example.com"));
        for who in &all {
            book.person_seen(who).await.unwrap();
        }
        assert_eq!(book.person("ALICE@example.com").await.unwrap().len(), 3);
        assert_eq!(book.person("bob@example.com").await.unwrap(), []);
        book.person_seen(&bob).await.unwrap();
        assert_eq!(book.person("bob@example.com").await.unwrap(), [bob], "the first one's address changed");
        assert_eq!(book.person("alice@example.com").await.unwrap().len(), 2);
    }
}
