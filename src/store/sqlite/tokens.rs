//! API tokens: written, looked up, listed, revoked. Secrets never get here, only what they hash to.

use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};
use rusqlite::{Connection, OptionalExtension, Row, params};
use uuid::Uuid;

use super::Store;
use super::values::{Id, Json, Time};
use crate::identity::Identity;
use crate::store::{BrowserSignIn, IN_BROWSER, NewToken, SignInRow, StoreError, TokenRow, ValidToken};

impl Store {
    /// Writes a token. A sign-in that it names must be in the book. `false`: the token that it is made with counts no more.
    pub async fn add_token(&self, token: NewToken) -> Result<bool, StoreError> {
        self.writes.call(move |db| insert(db, &token)).await
    }

    /// Writes a browser's sign-in and the token that is made for it, both or neither.
    pub async fn add_browser_token(&self, sign_in: BrowserSignIn, token: NewToken) -> Result<(), StoreError> {
        self.writes
            .call(move |db| {
                let BrowserSignIn { sign_in_id, identity, client_ip } = sign_in.clone();
                let row = SignInRow {
                    sign_in_id,
                    identity,
                    client_ip: client_ip.to_canonical(),
                    software: Some(IN_BROWSER.to_owned()),
                    created: token.created,
                    revoked: None,
                    revoked_by: None,
                };
                super::sign_ins::insert(db, &row)?;
                insert(db, &token)?;
                Ok(())
            })
            .await
    }

    /// The token with this hash, if it counts at `now`: neither it nor its sign-in has expired or was revoked.
    pub async fn valid_token(&self, hash: [u8; 32], now: Timestamp) -> Result<Option<ValidToken>, StoreError> {
        self.look_ups
            .call(move |db| {
                let mut find = db.prepare_cached(&format!(
                    "SELECT {COLUMNS}, s.identity FROM tokens t LEFT JOIN sign_ins s USING (sign_in_id)
                     WHERE t.hash = ?1 AND t.expires > ?2 AND t.revoked IS NULL
                       AND (t.sign_in_id IS NULL OR (s.expires > ?2 AND s.revoked IS NULL))"
                ))?;
                let found = find.query_row(params![hash, Time(now)], |row| {
                    let identity = row.get::<_, Option<Json<Identity>>>("identity")?;
                    Ok(ValidToken { row: token(row)?, identity: identity.map(|json| json.0) })
                });
                Ok(found.optional()?)
            })
            .await
    }

    /// Notes that a token was used, at most once a minute and without waiting for it: neither a full disk nor a slow
    /// one keeps an administrator out.
    pub fn note_token_use(&self, used: &TokenRow, from: IpAddr, now: Timestamp) {
        let stale = now - USES_APART;
        if used.last_used.is_some_and(|last| last > stale) {
            return;
        }
        let id = used.token_id;
        self.writes.offer(move |db| {
            let mut mark = db.prepare_cached(
                "UPDATE tokens SET last_used = ?2, last_ip = ?3
                 WHERE token_id = ?1 AND (last_used IS NULL OR last_used <= ?4)",
            )?;
            mark.execute(params![Id(id), Time(now), from.to_canonical().to_string(), Time(stale)])?;
            Ok(())
        });
    }

    /// A page of tokens, newest first, also of those that count no more, and how many there are. Pages count from 1.
    pub async fn tokens(&self, page: u32, page_size: u32) -> Result<(Vec<TokenRow>, u64), StoreError> {
        let skipped = i64::from(page.saturating_sub(1)) * i64::from(page_size);
        self.lists
            .call(move |db| {
                let view = db.unchecked_transaction()?;
                let total: i64 = view.prepare_cached("SELECT count(*) FROM tokens")?.query_row([], |row| row.get(0))?;
                // The ids are made in the order of time.
                let mut find = view.prepare_cached(&format!(
                    "SELECT {COLUMNS} FROM tokens t ORDER BY t.token_id DESC LIMIT ?1 OFFSET ?2"
                ))?;
                let rows = find.query_map([i64::from(page_size), skipped], token)?.collect::<Result<_, _>>()?;
                Ok((rows, u64::try_from(total).unwrap_or(0)))
            })
            .await
    }

    /// Revokes a token with what it made, and gives it as it is now; `None` if there is none. The first revocation's time
    /// stands. What somebody made with a token of their own stays, because it is theirs (see [`Store::revoke_person`]).
    pub async fn revoke_token(&self, id: Uuid, now: Timestamp) -> Result<Option<TokenRow>, StoreError> {
        self.writes
            .call(move |db| {
                revoke(db, "token_id = ?1", &Id(id), now)?;
                let mut find = db.prepare_cached(&format!("SELECT {COLUMNS} FROM tokens t WHERE t.token_id = ?1"))?;
                Ok(find.query_row([Id(id)], token).optional()?)
            })
            .await
    }
}

/// Revokes the tokens that meet the condition about `?1`, and, of those that belong to nobody, what they made. How many.
pub(super) fn revoke(
    db: &Connection,
    which: &str,
    value: &dyn rusqlite::ToSql,
    now: Timestamp,
) -> Result<usize, StoreError> {
    let mut revoke = db.prepare_cached(&format!(
        "WITH RECURSIVE ended (id) AS (
           SELECT token_id FROM tokens WHERE {which}
           UNION
           SELECT made.token_id FROM ended JOIN tokens maker ON maker.token_id = ended.id
             JOIN tokens made ON made.maker = ended.id WHERE maker.sign_in_id IS NULL)
         UPDATE tokens SET revoked = ?2 WHERE token_id IN (SELECT id FROM ended) AND revoked IS NULL"
    ))?;
    Ok(revoke.execute(params![value, Time(now)])?)
}

fn insert(db: &Connection, token: &NewToken) -> Result<bool, StoreError> {
    // Asked by the thread that writes: what is revoked after this finds the new token in the book.
    if let Some(maker) = token.maker {
        let mut counts = db.prepare_cached(
            "SELECT 1 FROM tokens t LEFT JOIN sign_ins s USING (sign_in_id)
             WHERE t.token_id = ?1 AND t.expires > ?2 AND t.revoked IS NULL
               AND (t.sign_in_id IS NULL OR (s.expires > ?2 AND s.revoked IS NULL))",
        )?;
        if !counts.exists(params![Id(maker), Time(token.created)])? {
            return Ok(false);
        }
    }
    db.prepare_cached("DELETE FROM tokens WHERE expires <= ?1")?.execute([Time(token.created - KEPT_AFTER_EXPIRY)])?;
    let mut add = db.prepare_cached(
        "INSERT INTO tokens (hash, token_id, label, email, sign_in_id, scopes, networks, created_by, created, expires,
                             maker)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
    )?;
    add.execute(params![
        token.hash,
        Id(token.token_id),
        token.label,
        token.user_email,
        token.sign_in_id.map(Id),
        Json(&token.scopes),
        Json(&token.networks),
        token.created_by,
        Time(token.created),
        Time(token.expires),
        token.maker.map(Id),
    ])?;
    Ok(true)
}

fn token(row: &Row<'_>) -> rusqlite::Result<TokenRow> {
    let time = |name: &str| Ok::<_, rusqlite::Error>(row.get::<_, Option<Time>>(name)?.map(|time| time.0));
    Ok(TokenRow {
        token_id: row.get::<_, Id>("token_id")?.0,
        label: row.get("label")?,
        user_email: row.get("email")?,
        sign_in_id: row.get::<_, Option<Id>>("sign_in_id")?.map(|id| id.0),
        scopes: row.get::<_, Json<_>>("scopes")?.0,
        networks: row.get::<_, Json<_>>("networks")?.0,
        created_by: row.get("created_by")?,
        created: row.get::<_, Time>("created")?.0,
        expires: row.get::<_, Time>("expires")?.0,
        last_used: time("last_used")?,
        last_ip: row.get("last_ip")?,
        revoked: time("revoked")?,
    })
}

/// The columns that [`token`] reads.
const COLUMNS: &str = "t.token_id, t.label, t.email, t.sign_in_id, t.scopes, t.networks, t.created_by, t.created, \
    t.expires, t.last_used, t.last_ip, t.revoked";
/// How far apart two writes of `last_used` are.
const USES_APART: SignedDuration = SignedDuration::from_secs(60);
/// How long an expired token is still listed.
const KEPT_AFTER_EXPIRY: SignedDuration = SignedDuration::from_hours(30 * 24);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Scope;
    use crate::store::testing::{Book, identity, time};

    fn later(from: Timestamp, seconds: i64) -> Timestamp {
        from + SignedDuration::from_secs(seconds)
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn new_token(hash: u8) -> NewToken {
        NewToken {
            token_id: Uuid::now_v7(),
            hash: [hash; 32],
            label: "ci".into(),
            user_email: None,
            sign_in_id: None,
            scopes: vec![Scope::SessionsRead, Scope::InputRead],
            networks: vec!["10.0.0.0/8".parse().unwrap()],
            created_by: Some("admin@example.com".into()),
            maker: None,
            created: time("2026-03-01T10:00:00Z"),
            expires: time("2026-03-01T11:00:00Z"),
        }
    }

    /// Returns what was written before, because all writes go through one queue.
    async fn settled(book: &Book) {
        book.touch(Vec::new(), Timestamp::now()).await.unwrap();
    }

    #[tokio::test]
    async fn a_token_counts_until_it_expires() {
        let book = Book::new();
        let new = new_token(7);
        book.add_token(new.clone()).await.unwrap();
        assert!(matches!(book.add_token(new.clone()).await, Err(StoreError::Conflict(_))));
        let row = TokenRow {
            token_id: new.token_id,
            label: new.label,
            user_email: None,
            sign_in_id: None,
            scopes: new.scopes,
            networks: new.networks,
            created_by: new.created_by,
            created: new.created,
            expires: new.expires,
            last_used: None,
            last_ip: None,
            revoked: None,
        };
        let last = later(new.created, 3599);
        assert_eq!(book.valid_token([7; 32], last).await.unwrap(), Some(ValidToken { row, identity: None }));
        assert_eq!(book.valid_token([7; 32], later(new.created, 3600)).await.unwrap(), None);
        assert_eq!(book.valid_token([8; 32], new.created).await.unwrap(), None);
    }

    #[tokio::test]
    async fn its_use_is_noted_by_the_minute() {
        let book = Book::new();
        let new = new_token(7);
        book.add_token(new.clone()).await.unwrap();
        let used = async |seconds: i64, from: &str| {
            let now = later(new.created, seconds);
            let before = book.valid_token([7; 32], now).await.unwrap().unwrap().row;
            book.note_token_use(&before, ip(from), now);
            settled(&book).await;
            let after = book.valid_token([7; 32], now).await.unwrap().unwrap().row;
            (after.last_used.unwrap(), after.last_ip.unwrap())
        };
        assert_eq!(used(1, "::ffff:10.0.0.1").await, (later(new.created, 1), "10.0.0.1".into()));
        assert_eq!(used(60, "10.0.0.2").await, (later(new.created, 1), "10.0.0.1".into()), "59 seconds: not moved");
        assert_eq!(used(61, "10.0.0.3").await, (later(new.created, 61), "10.0.0.3".into()));
    }

    #[tokio::test]
    async fn a_sign_in_s_token_counts_as_long_as_the_sign_in() {
        let book = Book::new();
        let created = Timestamp::now();
        let who = identity(later(created, 100));
        let sign_in_id = Uuid::now_v7();
        let new = NewToken {
            sign_in_id: Some(sign_in_id),
            created,
            expires: later(created, 1000),
            scopes: Vec::new(),
            ..new_token(7)
        };
        assert!(matches!(book.add_token(new.clone()).await, Err(StoreError::Conflict(_))), "no such sign-in");
        let sign_in = BrowserSignIn { sign_in_id, identity: who.clone(), client_ip: ip("192.0.2.7") };
        book.add_browser_token(sign_in, new).await.unwrap();
        let found = book.valid_token([7; 32], later(created, 99)).await.unwrap().unwrap();
        assert_eq!((found.identity, found.row.sign_in_id), (Some(who), Some(sign_in_id)));
        assert_eq!(book.valid_token([7; 32], later(created, 100)).await.unwrap(), None, "the sign-in is over");
        let revoke = |db: &Connection| Ok(db.execute("UPDATE sign_ins SET revoked = 1", [])?);
        book.writes.call(revoke).await.unwrap();
        assert_eq!(book.valid_token([7; 32], created).await.unwrap(), None, "the sign-in was revoked");
    }

    #[tokio::test]
    async fn a_revoked_token_counts_no_more_and_is_listed() {
        let book = Book::new();
        let (one, two) = (new_token(1), new_token(2));
        book.add_token(one.clone()).await.unwrap();
        book.add_token(two.clone()).await.unwrap();
        let now = later(one.created, 5);
        let revoked = book.revoke_token(one.token_id, now).await.unwrap().unwrap();
        assert_eq!((revoked.token_id, revoked.revoked), (one.token_id, Some(now)));
        assert_eq!(book.revoke_token(one.token_id, later(now, 9)).await.unwrap(), Some(revoked.clone()));
        assert_eq!(book.revoke_token(Uuid::now_v7(), now).await.unwrap(), None);
        assert_eq!(book.valid_token([1; 32], now).await.unwrap(), None);
        assert!(book.valid_token([2; 32], now).await.unwrap().is_some());
        let (rows, total) = book.tokens(2, 1).await.unwrap();
        assert_eq!((rows, total), (vec![revoked], 2));
        assert_eq!(book.tokens(1, 1).await.unwrap().0.remove(0).token_id, two.token_id);
    }

    #[tokio::test]
    async fn what_a_token_or_a_person_made_ends_with_them() {
        let book = Book::new();
        let made = |hash: u8, maker: Option<Uuid>, by: &str| NewToken {
            maker,
            created_by: Some(by.into()),
            ..new_token(hash)
        };
        let counting = async || {
            let now = new_token(0).created;
            let mut found = Vec::new();
            for hash in 1..=5 {
                found.extend(book.valid_token([hash; 32], now).await.unwrap().map(|_| hash));
            }
            found
        };
        let one = made(1, None, "admin@example.com");
        let two = made(2, Some(one.token_id), "token x (1)");
        let three = made(3, Some(two.token_id), "token x (2)");
        let four = made(4, None, "bob@example.com");
        let five = made(5, Some(four.token_id), "token x (4)");
        for new in [&one, &two, &three, &four, &five] {
            assert!(book.add_token(new.clone()).await.unwrap());
        }
        let now = later(one.created, 1);
        book.revoke_token(two.token_id, now).await.unwrap().unwrap();
        assert_eq!(counting().await, [1, 4, 5]);
        assert!(!book.add_token(made(6, Some(three.token_id), "x")).await.unwrap(), "its maker counts no more");
        assert!(!book.add_token(made(6, Some(Uuid::now_v7()), "x")).await.unwrap(), "nor did this one ever");
        let revoked = book.revoke_person("Bob@example.com", "x", now).await.unwrap();
        assert_eq!((revoked.tokens, counting().await), (2, vec![1]));
    }

    #[tokio::test]
    async fn tokens_that_expired_long_ago_are_swept() {
        let book = Book::new();
        let old = new_token(1);
        book.add_token(old.clone()).await.unwrap();
        book.add_token(NewToken { created: old.expires, ..new_token(2) }).await.unwrap();
        assert_eq!(book.tokens(1, 10).await.unwrap().1, 2);
        book.add_token(NewToken { created: old.expires + KEPT_AFTER_EXPIRY, ..new_token(3) }).await.unwrap();
        let (rows, _) = book.tokens(1, 10).await.unwrap();
        assert_eq!(rows.len(), 1, "{rows:?}");
    }
}
