//! Sessions with what they were decided by, oldest first, so that other rules can be asked about them.

use jiff::Timestamp;
use rusqlite::{Row, named_params};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::Store;
use super::values::{Id, Json, Time, Word};
use crate::identity::Identity;
use crate::store::{PastCursor, PastSession, StoreError};

impl Store {
    /// Sessions that began at `since` or later, oldest first, those behind `after`: at most `limit`.
    pub async fn past_sessions(
        &self,
        since: Timestamp,
        after: Option<PastCursor>,
        limit: u32,
    ) -> Result<Vec<PastSession>, StoreError> {
        self.lists
            .call(move |db| {
                let mut find = db.prepare_cached(&format!(
                    "SELECT {COLUMNS} FROM sessions
                     WHERE (start_time, session_id) > (:start, :id)
                     ORDER BY start_time, session_id LIMIT :limit"
                ))?;
                // Without a place to go on from: before every id, because none is all zeros.
                let after = after.filter(|after| after.start_time >= since);
                let (start, id) = after.map_or((since, Uuid::nil()), |after| (after.start_time, after.session_id));
                let place = named_params! { ":start": Time(start), ":id": Id(id), ":limit": limit };
                let rows = find.query_map(place, past)?;
                Ok(rows.collect::<Result<_, _>>()?)
            })
            .await
    }

    /// The sessions that live, whichever process holds them.
    pub async fn live_visits(&self) -> Result<Vec<PastSession>, StoreError> {
        self.look_ups
            .call(|db| {
                let mut find = db.prepare_cached(&format!(
                    "SELECT {COLUMNS} FROM sessions WHERE end_time IS NULL ORDER BY start_time, session_id"
                ))?;
                Ok(find.query_map([], past)?.collect::<Result<_, _>>()?)
            })
            .await
    }
}

/// What a sign-in proved beside who it is, for the row: all of the identity that has no column of its own.
pub(super) fn proved(who: &Identity) -> Result<Json<Map<String, Value>>, StoreError> {
    let whole = serde_json::to_value(who).map_err(|error| StoreError::Conflict(std::sync::Arc::new(error)))?;
    let Value::Object(mut whole) = whole else { return Ok(Json(Map::new())) };
    whole.retain(|key, _| PROVED.contains(&key.as_str()));
    Ok(Json(whole))
}

fn past(row: &Row<'_>) -> rusqlite::Result<PastSession> {
    let proved = row.get::<_, Option<Json<Map<String, Value>>>>("proved")?;
    Ok(PastSession {
        session_id: row.get::<_, Id>("session_id")?.0,
        start_time: row.get::<_, Time>("start_time")?.0,
        end_time: row.get::<_, Option<Time>>("end_time")?.map(|time| time.0),
        socket_name: row.get("socket_name")?,
        session_type: row.get("session_type")?,
        proved: proved.is_some(),
        identity: identity(row, proved.map(|proved| proved.0).unwrap_or_default())?,
        client_ip: row.get::<_, Word<_>>("client_ip")?.0,
        country_code: row.get("country_code")?,
        country: row.get("country")?,
        ssh_user: row.get("sshuser")?,
        result: row.get::<_, Word<_>>("result")?.0,
        rule: row.get("rule")?,
    })
}

fn identity(row: &Row<'_>, proved: Map<String, Value>) -> rusqlite::Result<Identity> {
    let mut whole = json!({
        "issuer": row.get::<_, String>("issuer")?, "subject": row.get::<_, String>("sub")?,
        "email": row.get::<_, String>("user_email")?, "name": row.get::<_, Option<String>>("name")?,
        "picture": row.get::<_, Option<String>>("picture")?, "nickname": row.get::<_, Option<String>>("nickname")?,
        "groups": row.get::<_, Json<Value>>("groups")?.0, "signed_in": row.get::<_, Time>("signed_in")?.0,
        // It held while the session lived; of one from before this was kept no more is known.
        "expires": Timestamp::MAX,
    });
    if let Value::Object(whole) = &mut whole {
        whole.extend(proved.into_iter().filter(|(key, _)| PROVED.contains(&key.as_str())));
    }
    serde_json::from_value(whole)
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, error.into()))
}

/// What of an identity stands in `proved`.
const PROVED: [&str; 4] = ["acr", "amr", "claims", "expires"];

const COLUMNS: &str = "session_id, start_time, end_time, socket_name, session_type, issuer, sub, user_email, name,
    picture, nickname, groups, signed_in, proved, client_ip, country_code, country, sshuser, result, rule";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::{Book, denied_session, identity, new_session, time};
    use crate::store::{AuthResult, NewSession, Outcome};

    #[tokio::test]
    async fn a_session_tells_what_it_was_decided_by() {
        let book = Book::new();
        let mut who = serde_json::to_value(identity(time("2026-03-01T22:00:00.5Z"))).unwrap();
        who["signed_in"] = json!("2026-03-01T09:00:00Z");
        who["acr"] = json!("gold");
        who["amr"] = json!(["pwd", "hwk"]);
        who["claims"] = json!({"department": "it", "levels": [1, 2]});
        let new = NewSession { identity: serde_json::from_value(who).unwrap(), ..new_session() };
        book.open_session(new.clone()).await.unwrap();
        let [past] = book.past_sessions(new.start_time, None, 10).await.unwrap().try_into().unwrap();
        assert_eq!(past.identity, new.identity);
        assert_eq!((past.session_id, past.start_time, past.end_time), (new.session_id, new.start_time, None));
        assert_eq!((past.socket_name.as_str(), past.session_type.as_str(), past.proved), ("shell", "ssh", true));
        assert_eq!((past.client_ip, past.ssh_user.as_deref()), (new.client_ip, Some("deploy")));
        assert_eq!((past.result, past.rule.as_deref()), (AuthResult::Success, Some("engineers")));
        assert_eq!(book.live_visits().await.unwrap(), [past]);
        book.close_session(new.session_id, time("2026-03-01T11:00:00Z"), Outcome::Closed, "".into(), None)
            .await
            .unwrap();
        assert_eq!(book.live_visits().await.unwrap(), []);
        let ended = book.past_sessions(new.start_time, None, 10).await.unwrap().remove(0);
        assert_eq!(ended.end_time, Some(time("2026-03-01T11:00:00Z")));
    }

    #[tokio::test]
    async fn of_a_session_from_before_as_much_is_told_as_stands_there() {
        let book = Book::new();
        let new = new_session();
        book.open_session(new.clone()).await.unwrap();
        book.writes.call(|db| Ok(db.execute("UPDATE sessions SET proved = NULL", [])?)).await.unwrap();
        let past = book.past_sessions(new.start_time, None, 10).await.unwrap().remove(0);
        assert!(!past.proved && past.identity.is_same_person(&new.identity));
        assert_eq!((past.identity.groups(), past.identity.acr()), (new.identity.groups(), None));
    }

    #[tokio::test]
    async fn all_are_told_once_page_by_page() {
        let book = Book::new();
        let mut expected = Vec::new();
        for (minute, new) in [(0, new_session()), (1, new_session()), (1, denied_session()), (2, new_session())] {
            let start_time = time(&format!("2026-03-01T10:0{minute}:00Z"));
            book.open_session(NewSession { start_time, ..new.clone() }).await.unwrap();
            expected.push(new.session_id);
        }
        let since = time("2026-03-01T10:00:00Z");
        let (mut told, mut after) = (Vec::<Uuid>::new(), None);
        loop {
            let page = book.past_sessions(since, after, 1).await.unwrap();
            let Some(last) = page.last() else { break };
            after = Some(last.cursor());
            told.extend(page.iter().map(|past| past.session_id));
        }
        assert_eq!(told, expected);
        let later = book.past_sessions(time("2026-03-01T10:01:00Z"), None, 10).await.unwrap();
        assert_eq!(later.iter().map(|past| past.session_id).collect::<Vec<_>>(), expected[1..]);
        assert_eq!(later[1].result, AuthResult::Denied);
    }
}
