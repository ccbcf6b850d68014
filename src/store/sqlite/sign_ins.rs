//! Sign-ins at the gateway, and what they issued: certificates and tokens for sockets.
//!
//! Rows are told as they are, also when they are revoked or over: what counts is decided in `identity/sign_ins`, by one
//! clock. A revocation is in the book before it is answered, and every look-up after that sees it.

use jiff::{SignedDuration, Timestamp};
use rusqlite::{Connection, OptionalExtension, Row, named_params, params};
use uuid::Uuid;

use super::values::{Id, Json, Time, Word};
use super::{Store, changes};
use crate::store::{
    CertificateKind, CertificateRow, Change, IN_BROWSER, NewCertificate, NewSocketToken, RevokedPerson, SignInRow,
    SignInsOf, SocketTokenRow, StoreError,
};

impl Store {
    /// Writes a sign-in, and sweeps those that were over long ago. A person has a bounded number of living ones: the oldest
    /// from a browser makes room, else the oldest.
    pub async fn add_sign_in(&self, new: SignInRow) -> Result<(), StoreError> {
        self.writes.call(move |db| insert(db, &new)).await
    }

    /// The sign-in with this id.
    pub async fn sign_in(&self, id: Uuid) -> Result<Option<SignInRow>, StoreError> {
        self.look_ups
            .call(move |db| {
                let mut find =
                    db.prepare_cached(&format!("SELECT {SIGN_IN} FROM sign_ins AS s WHERE s.sign_in_id = ?1"))?;
                Ok(find.query_row([Id(id)], sign_in).optional()?)
            })
            .await
    }

    /// A page of the sign-ins that count at `now`, newest first, and how many there are. Pages count from 1.
    pub async fn sign_ins(
        &self,
        of: SignInsOf,
        now: Timestamp,
        page: u32,
        page_size: u32,
    ) -> Result<(Vec<SignInRow>, u64), StoreError> {
        let skipped = i64::from(page.saturating_sub(1)) * i64::from(page_size);
        self.lists
            .call(move |db| {
                let (whose, (a, b)) = condition(&of);
                let living = format!("FROM sign_ins AS s WHERE {whose} AND s.expires > :now AND s.revoked IS NULL");
                let view = db.unchecked_transaction()?;
                let total: i64 = view
                    .prepare_cached(&format!("SELECT count(*) {living}"))?
                    .query_row(named_params! { ":a": a, ":b": b, ":now": Time(now) }, |row| row.get(0))?;
                let mut list = view.prepare_cached(&format!(
                    "SELECT {SIGN_IN} {living} ORDER BY s.created DESC, s.sign_in_id DESC LIMIT :limit OFFSET :skipped"
                ))?;
                let rows = list.query_map(
                    named_params! { ":a": a, ":b": b, ":now": Time(now), ":limit": page_size, ":skipped": skipped },
                    sign_in,
                )?;
                Ok((rows.collect::<Result<_, _>>()?, u64::try_from(total).unwrap_or(0)))
            })
            .await
    }

    /// Revokes a sign-in and so all that it issued. `false`: there is none, or it was revoked before.
    pub async fn revoke_sign_in(&self, id: Uuid, by: &str, now: Timestamp) -> Result<bool, StoreError> {
        self.end_sign_in(id, by, now, true).await
    }

    /// Ends a sign-in whose owner is done with it: nothing more is opened by it, and what is open goes on.
    pub async fn sign_out(&self, id: Uuid, by: &str, now: Timestamp) -> Result<bool, StoreError> {
        self.end_sign_in(id, by, now, false).await
    }

    async fn end_sign_in(&self, id: Uuid, by: &str, now: Timestamp, told: bool) -> Result<bool, StoreError> {
        let by = by.to_owned();
        self.writes
            .call(move |db| {
                let mut revoke = db.prepare_cached(
                    "UPDATE sign_ins SET revoked = ?2, revoked_by = ?3 WHERE sign_in_id = ?1 AND revoked IS NULL",
                )?;
                let revoked = revoke.execute(params![Id(id), Time(now), by])? > 0;
                let mut find = db.prepare_cached("SELECT EXISTS (SELECT 1 FROM sign_ins WHERE sign_in_id = ?1)")?;
                // Also of one that had ended: what was opened by it may go on.
                if told && find.query_row([Id(id)], |row| row.get(0))? {
                    changes::add(db, &Change::SignInRevoked(id))?;
                }
                Ok(revoked)
            })
            .await
    }

    /// Revokes every sign-in of the people with this e-mail address and the tokens that they made, and forgets the SSH keys
    /// that links remembered for them. How many of each.
    pub async fn revoke_person(&self, email: &str, by: &str, now: Timestamp) -> Result<RevokedPerson, StoreError> {
        let (email, by) = (email.to_owned(), by.to_owned());
        self.writes
            .call(move |db| {
                let mut revoke = db.prepare_cached(
                    "UPDATE sign_ins SET revoked = ?2, revoked_by = ?3
                     WHERE (user_email = ?1 OR (issuer, sub) IN (SELECT issuer, sub FROM people
                            WHERE identity ->> 'email' COLLATE NOCASE = ?1))
                       AND revoked IS NULL AND expires > ?2",
                )?;
                let sign_ins = revoke.execute(params![email, Time(now), by])?;
                let mut forget = db.prepare_cached(
                    "DELETE FROM remembered_keys WHERE identity ->> 'email' COLLATE NOCASE = ?1
                         OR (identity ->> 'issuer', identity ->> 'subject') IN (SELECT issuer, sub FROM people
                             WHERE identity ->> 'email' COLLATE NOCASE = ?1)",
                )?;
                let keys = forget.execute([&email])?;
                let tokens = super::tokens::revoke(db, "created_by = ?1 COLLATE NOCASE AND expires > ?2", &email, now)?;
                // Also when nothing was found here: they may be in a session by a link, which leaves nothing in these tables.
                changes::add(db, &Change::PersonRevoked(email.clone()))?;
                Ok(RevokedPerson { sign_ins, keys, tokens })
            })
            .await
    }

    /// Writes a certificate, before it is handed out. A sign-in has a bounded number of them.
    pub async fn add_certificate(&self, new: NewCertificate) -> Result<(), StoreError> {
        self.writes
            .call(move |db| {
                db.prepare_cached(
                    "DELETE FROM certificates WHERE serial IN (SELECT serial FROM certificates
                     WHERE sign_in_id = ?1 AND kind = ?2 ORDER BY created DESC, serial LIMIT -1 OFFSET ?3)",
                )?
                .execute(params![
                    Id(new.sign_in_id),
                    Word(new.kind),
                    CERTIFICATES_OF_A_SIGN_IN - 1
                ])?;
                let mut add = db.prepare_cached(
                    "INSERT INTO certificates (serial, sign_in_id, kind, fingerprint, created, expires)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                )?;
                let (created, expires) = (Time(new.created), Time(new.expires));
                add.execute(params![
                    new.serial,
                    Id(new.sign_in_id),
                    Word(new.kind),
                    new.fingerprint,
                    created,
                    expires
                ])?;
                Ok(())
            })
            .await
    }

    /// The SSH certificate with this serial number.
    pub async fn ssh_certificate(&self, serial: i64) -> Result<Option<CertificateRow>, StoreError> {
        self.look_ups.call(move |db| certificate(db, "c.serial = ?2", CertificateKind::Ssh, &serial)).await
    }

    /// The X.509 certificate with this fingerprint.
    pub async fn client_certificate(&self, fingerprint: &str) -> Result<Option<CertificateRow>, StoreError> {
        let fingerprint = fingerprint.to_owned();
        self.look_ups.call(move |db| certificate(db, "c.fingerprint = ?2", CertificateKind::X509, &fingerprint)).await
    }

    /// Writes a token for a socket, and sweeps those that are over. A sign-in has a bounded number of them.
    pub async fn add_socket_token(&self, new: NewSocketToken) -> Result<(), StoreError> {
        self.writes
            .call(move |db| {
                db.prepare_cached("DELETE FROM socket_tokens WHERE expires <= ?1")?.execute([Time(new.created)])?;
                db.prepare_cached(
                    "DELETE FROM socket_tokens WHERE hash IN (SELECT hash FROM socket_tokens
                     WHERE sign_in_id = ?1 ORDER BY created DESC, hash LIMIT -1 OFFSET ?2)",
                )?
                .execute(params![Id(new.sign_in_id), SOCKET_TOKENS_OF_A_SIGN_IN - 1])?;
                let mut add = db.prepare_cached(
                    "INSERT INTO socket_tokens (hash, sign_in_id, socket_name, client_ip, created, expires)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                )?;
                let (created, expires) = (Time(new.created), Time(new.expires));
                let address = new.client_ip.to_string();
                add.execute(params![new.hash, Id(new.sign_in_id), new.socket_name, address, created, expires])?;
                Ok(())
            })
            .await
    }

    /// The token for a socket with this hash.
    pub async fn socket_token(&self, hash: [u8; 32]) -> Result<Option<SocketTokenRow>, StoreError> {
        self.look_ups
            .call(move |db| {
                let mut find = db.prepare_cached(&format!(
                    "SELECT {SIGN_IN}, t.socket_name, t.client_ip AS token_ip, t.expires AS token_expires
                     FROM socket_tokens AS t JOIN sign_ins AS s USING (sign_in_id) WHERE t.hash = ?1"
                ))?;
                let found = find.query_row([hash], |row| {
                    Ok(SocketTokenRow {
                        socket_name: row.get("socket_name")?,
                        client_ip: row.get::<_, Word<_>>("token_ip")?.0,
                        expires: row.get::<_, Time>("token_expires")?.0,
                        sign_in: sign_in(row)?,
                    })
                });
                Ok(found.optional()?)
            })
            .await
    }
}

/// Writes a sign-in after it made room: the one way in for every kind of them.
pub(super) fn insert(db: &Connection, new: &SignInRow) -> Result<(), StoreError> {
    db.prepare_cached("DELETE FROM sign_ins WHERE expires <= ?1")?.execute([Time(new.created - KEPT_AFTER_THE_END)])?;
    let who = &new.identity;
    let mut make_room = db.prepare_cached(
        "UPDATE sign_ins SET revoked = ?3, revoked_by = 'the gateway: too many sign-ins of one person'
         WHERE sign_in_id IN (
           SELECT sign_in_id FROM sign_ins WHERE issuer = ?1 AND sub = ?2 AND revoked IS NULL AND expires > ?3
           ORDER BY software IS ?4, created DESC, sign_in_id DESC LIMIT -1 OFFSET ?5)",
    )?;
    make_room.execute(params![who.issuer(), who.subject(), Time(new.created), IN_BROWSER, SIGN_INS_OF_A_PERSON - 1])?;
    let mut add = db.prepare_cached(
        "INSERT INTO sign_ins (sign_in_id, issuer, sub, user_email, identity, client_ip, software, created, expires)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )?;
    add.execute(params![
        Id(new.sign_in_id),
        who.issuer(),
        who.subject(),
        who.email(),
        Json(who),
        new.client_ip.to_string(),
        new.software,
        Time(new.created),
        Time(who.expires()),
    ])?;
    Ok(())
}

fn certificate(
    db: &Connection,
    which: &str,
    kind: CertificateKind,
    value: &dyn rusqlite::ToSql,
) -> Result<Option<CertificateRow>, StoreError> {
    let mut find = db.prepare_cached(&format!(
        "SELECT {SIGN_IN}, c.serial, c.fingerprint, c.expires AS certificate_expires
         FROM certificates AS c JOIN sign_ins AS s USING (sign_in_id) WHERE c.kind = ?1 AND {which}"
    ))?;
    let found = find.query_row(params![Word(kind), value], |row| {
        Ok(CertificateRow {
            serial: row.get("serial")?,
            fingerprint: row.get("fingerprint")?,
            expires: row.get::<_, Time>("certificate_expires")?.0,
            sign_in: sign_in(row)?,
        })
    });
    Ok(found.optional()?)
}

/// A condition that names both parameters, so that every list is called alike.
fn condition(of: &SignInsOf) -> (&'static str, (&str, &str)) {
    match of {
        SignInsOf::All => (":a = :b", ("", "")),
        SignInsOf::Email(email) => ("s.user_email = :a AND :b = ''", (email, "")),
        SignInsOf::Person { issuer, subject } => ("s.issuer = :a AND s.sub = :b", (issuer, subject)),
    }
}

fn sign_in(row: &Row<'_>) -> rusqlite::Result<SignInRow> {
    Ok(SignInRow {
        sign_in_id: row.get::<_, Id>("sign_in_id")?.0,
        identity: row.get::<_, Json<_>>("identity")?.0,
        client_ip: row.get::<_, Word<_>>("client_ip")?.0,
        software: row.get("software")?,
        created: row.get::<_, Time>("created")?.0,
        revoked: row.get::<_, Option<Time>>("revoked")?.map(|time| time.0),
        revoked_by: row.get("revoked_by")?,
    })
}

/// A sign-in's columns.
const SIGN_IN: &str = "s.sign_in_id, s.identity, s.client_ip, s.software, s.created, s.revoked, s.revoked_by";
/// A sign-in that is over stays in the book for this long, for whoever asks what it was.
const KEPT_AFTER_THE_END: SignedDuration = SignedDuration::from_hours(30 * 24);
/// Certificates of one kind that a sign-in may have at a time; the oldest make room, and count no more.
const CERTIFICATES_OF_A_SIGN_IN: i64 = 16;
/// Sign-ins of one person, as the provider knows them, that count at a time.
const SIGN_INS_OF_A_PERSON: i64 = 64;
/// Tokens for sockets that a sign-in may have at a time; the oldest make room, and count no more.
const SOCKET_TOKENS_OF_A_SIGN_IN: i64 = 64;

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::store::testing::{Book, identity};
    use crate::store::{BrowserSignIn, NewToken};

    fn later(from: Timestamp, seconds: i64) -> Timestamp {
        from + SignedDuration::from_secs(seconds)
    }

    /// The book keeps microseconds.
    fn now() -> Timestamp {
        Timestamp::from_microsecond(Timestamp::now().as_microsecond()).unwrap()
    }

    fn new(created: Timestamp, seconds: i64) -> SignInRow {
        SignInRow {
            sign_in_id: Uuid::now_v7(),
            identity: identity(later(created, seconds)),
            client_ip: "192.0.2.7".parse().unwrap(),
            software: Some("gatescribe/0.1".into()),
            created,
            revoked: None,
            revoked_by: None,
        }
    }

    fn ssh_certificate(serial: i64, of: &SignInRow) -> NewCertificate {
        NewCertificate {
            serial,
            sign_in_id: of.sign_in_id,
            kind: CertificateKind::Ssh,
            fingerprint: format!("SHA256:{serial}"),
            created: later(of.created, serial),
            expires: of.identity.expires(),
        }
    }

    #[tokio::test]
    async fn a_sign_in_is_found_listed_and_revoked_once() {
        let book = Book::new();
        let at = now();
        let row = new(at, 100);
        book.add_sign_in(row.clone()).await.unwrap();
        assert_eq!(book.sign_in(row.sign_in_id).await.unwrap(), Some(row.clone()));
        assert_eq!(book.sign_in(Uuid::now_v7()).await.unwrap(), None);
        let person = SignInsOf::Person { issuer: row.identity.issuer().into(), subject: row.identity.subject().into() };
        let other = SignInsOf::Person { issuer: "https://other".into(), subject: row.identity.subject().into() };
        let cases = [
            (SignInsOf::All, 1),
            (SignInsOf::Email("ALICE@example.com".into()), 1),
            (SignInsOf::Email("bob@example.com".into()), 0),
            (person, 1),
            (other, 0),
        ];
        for (of, count) in cases {
            assert_eq!(book.sign_ins(of.clone(), at, 1, 10).await.unwrap().0.len(), count, "{of:?}");
            assert_eq!(book.sign_ins(of, later(at, 100), 1, 10).await.unwrap(), (vec![], 0), "over");
        }
        assert!(!book.revoke_sign_in(Uuid::now_v7(), "x", at).await.unwrap());
        assert!(book.revoke_sign_in(row.sign_in_id, "admin@example.com", at).await.unwrap());
        assert!(!book.revoke_sign_in(row.sign_in_id, "again", later(at, 1)).await.unwrap());
        let revoked = book.sign_in(row.sign_in_id).await.unwrap().unwrap();
        assert_eq!((revoked.revoked, revoked.revoked_by.as_deref()), (Some(at), Some("admin@example.com")));
        let told = |n| (n, Change::SignInRevoked(row.sign_in_id));
        assert_eq!(
            book.changes_after(0).await.unwrap(),
            [told(1), told(2)],
            "each time, because it may have left something"
        );
        assert_eq!(book.sign_ins(SignInsOf::All, at, 1, 10).await.unwrap(), (vec![], 0));
    }

    #[tokio::test]
    async fn a_person_has_so_many_sign_ins_and_those_of_browsers_make_room_first() {
        let book = Book::new();
        let at = now();
        let begin = async |second: i64, software: &str| {
            let row = SignInRow { software: Some(software.into()), ..new(later(at, second), 1000) };
            book.add_sign_in(row.clone()).await.unwrap();
            row.sign_in_id
        };
        let mut other = serde_json::to_value(identity(later(at, 1000))).unwrap();
        other["subject"] = "u-2".into();
        let other = SignInRow { identity: serde_json::from_value(other).unwrap(), ..new(at, 1000) };
        book.add_sign_in(other.clone()).await.unwrap();
        let oldest = begin(0, "gatescribe").await;
        let browsers = [begin(1, IN_BROWSER).await, begin(2, IN_BROWSER).await];
        for second in 3..SIGN_INS_OF_A_PERSON {
            begin(second, "gatescribe").await;
        }
        let living = async |id: Uuid| book.sign_in(id).await.unwrap().unwrap().revoked.is_none();
        let total = async || book.sign_ins(SignInsOf::All, later(at, 99), 1, 1).await.unwrap().1;
        assert_eq!(total().await, 65, "and the other person's");
        // Through the other way in, too.
        let token = NewToken {
            token_id: Uuid::now_v7(),
            hash: [1; 32],
            label: "page".into(),
            user_email: None,
            sign_in_id: Some(Uuid::now_v7()),
            scopes: Vec::new(),
            networks: Vec::new(),
            created_by: None,
            maker: None,
            created: later(at, 70),
            expires: later(at, 1000),
        };
        let (sign_in_id, client_ip) = (token.sign_in_id.unwrap(), other.client_ip);
        let browser = BrowserSignIn { sign_in_id, identity: identity(later(at, 1000)), client_ip };
        book.add_browser_token(browser, token).await.unwrap();
        assert_eq!((living(browsers[0]).await, living(browsers[1]).await, total().await), (false, true, 65));
        begin(71, "gatescribe").await;
        begin(72, "gatescribe").await;
        assert!(!living(browsers[1]).await && !living(sign_in_id).await && living(oldest).await);
        begin(73, "gatescribe").await;
        assert!(!living(oldest).await && living(other.sign_in_id).await);
        let page = book.sign_ins(SignInsOf::All, later(at, 99), 7, 10).await.unwrap();
        assert_eq!((page.0.len(), page.1, page.0.last()), (5, 65, Some(&other)));
    }

    #[tokio::test]
    async fn a_person_is_revoked_with_all_sign_ins_and_remembered_keys() {
        let book = Book::new();
        let at = now();
        for _ in 0..2 {
            book.add_sign_in(new(at, 100)).await.unwrap();
        }
        book.remember_key("SHA256:a", &identity(later(at, 100))).await.unwrap();
        assert_eq!(book.revoke_person("bob@example.com", "x", at).await.unwrap(), RevokedPerson::default());
        assert!(book.remembered_key("SHA256:a", at).await.unwrap().is_some());
        let revoked = book.revoke_person("Alice@Example.com", "x", at).await.unwrap();
        assert_eq!(revoked, RevokedPerson { sign_ins: 2, keys: 1, tokens: 0 });
        assert!(book.remembered_key("SHA256:a", at).await.unwrap().is_none());
        let told: Vec<_> = book.changes_after(0).await.unwrap().into_iter().map(|(_, change)| change).collect();
        assert_eq!(told, ["bob@example.com", "Alice@Example.com"].map(|email| Change::PersonRevoked(email.into())));
    }

    #[tokio::test]
    async fn certificates_are_found_by_what_names_them_and_the_oldest_make_room() {
        let book = Book::new();
        let row = new(now(), 100);
        let orphan = ssh_certificate(1, &row);
        assert!(matches!(book.add_certificate(orphan).await, Err(StoreError::Conflict(_))), "of no sign-in");
        book.add_sign_in(row.clone()).await.unwrap();
        for serial in 1..=CERTIFICATES_OF_A_SIGN_IN + 1 {
            book.add_certificate(ssh_certificate(serial, &row)).await.unwrap();
        }
        assert_eq!(book.ssh_certificate(1).await.unwrap(), None, "the oldest made room");
        let found = book.ssh_certificate(2).await.unwrap().unwrap();
        assert_eq!((found.fingerprint.as_str(), &found.sign_in), ("SHA256:2", &row));
        let client = NewCertificate { kind: CertificateKind::X509, ..ssh_certificate(77, &row) };
        book.add_certificate(client).await.unwrap();
        assert_eq!(book.ssh_certificate(77).await.unwrap(), None, "another kind");
        assert_eq!(book.client_certificate("SHA256:77").await.unwrap().unwrap().serial, 77);
        assert_eq!(book.client_certificate("SHA256:2").await.unwrap(), None);
        let taken = book.add_certificate(ssh_certificate(CERTIFICATES_OF_A_SIGN_IN, &row)).await;
        assert!(matches!(taken, Err(StoreError::Conflict(_))), "a serial number is one certificate's");
    }

    #[tokio::test]
    async fn a_socket_token_comes_with_its_sign_in_and_old_sign_ins_are_swept() {
        let book = Book::new();
        let at = now();
        let row = new(at, 100);
        book.add_sign_in(row.clone()).await.unwrap();
        let address: IpAddr = "2001:db8::1".parse().unwrap();
        let token = NewSocketToken {
            hash: [1; 32],
            sign_in_id: row.sign_in_id,
            socket_name: "orders".into(),
            client_ip: address,
            created: at,
            expires: later(at, 60),
        };
        book.add_socket_token(token.clone()).await.unwrap();
        let found = book.socket_token([1; 32]).await.unwrap().unwrap();
        assert_eq!((found.socket_name.as_str(), found.client_ip, found.sign_in), ("orders", address, row.clone()));
        assert_eq!(book.socket_token([2; 32]).await.unwrap(), None);
        for more in 2..=64 {
            let (hash, created) = ([more; 32], later(at, 1));
            book.add_socket_token(NewSocketToken { hash, created, ..token.clone() }).await.unwrap();
        }
        assert!(book.socket_token([1; 32]).await.unwrap().is_some(), "64 of them");
        book.add_socket_token(NewSocketToken { hash: [65; 32], created: later(at, 2), ..token }).await.unwrap();
        assert_eq!(book.socket_token([1; 32]).await.unwrap(), None, "the oldest made room");
        assert!(book.socket_token([2; 32]).await.unwrap().is_some());
        let much_later = at + KEPT_AFTER_THE_END + SignedDuration::from_secs(101);
        book.add_sign_in(new(much_later, 1)).await.unwrap();
        assert_eq!(book.sign_in(row.sign_in_id).await.unwrap(), None);
        assert_eq!(book.socket_token([2; 32]).await.unwrap(), None, "gone with it");
    }
}
