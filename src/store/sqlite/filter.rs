//! A [`Filter`] as SQL, put together from fixed texts; what users typed travels as parameters only.

use rusqlite::types::ToSqlOutput;
use rusqlite::{Connection, params_from_iter};

use crate::socket::socket_id;
use crate::store::{AuthResult, Filter, StoreError};

/// A filter as SQL: all of the terms must hold.
#[derive(Default)]
pub(super) struct Terms {
    /// Conditions; each `?` takes the next value.
    sql: Vec<&'static str>,
    values: Vec<ToSqlOutput<'static>>,
    /// Where the last term is one that nearly every row meets: the condition of the few that do not.
    complement: Option<&'static str>,
    /// How many terms are such.
    broad: usize,
}

impl Terms {
    pub(super) fn of(filter: &Filter) -> Self {
        let mut terms = Terms::default();
        if let Some(owner) = &filter.owner {
            terms.with("issuer = ?", owner.issuer().to_owned());
            terms.with("sub = ?", owner.subject().to_owned());
        }
        // A socket's id follows from its name, so that both use one index.
        for id in [filter.socket_id, filter.socket_name.as_deref().map(socket_id)].into_iter().flatten() {
            terms.with("socket_id = ?", id.as_bytes().to_vec());
        }
        if let Some(email) = &filter.user_email {
            terms.with("user_email = ?", email.clone());
        }
        if let Some(ip) = filter.client_ip {
            terms.with("client_ip = ?", ip.to_canonical().to_string());
        }
        match &filter.country {
            Some(code) if code.len() == 2 => terms.with("country_code = ?", code.clone()),
            Some(name) => terms.with("country = ?", name.clone()),
            None => {}
        }
        // A partial index is used only where its condition stands word by word: literals, not parameters.
        match filter.result {
            Some(AuthResult::Denied) => terms.fixed("result = 'denied'", None),
            Some(AuthResult::Success) => terms.fixed("result = 'success'", Some("result = 'denied'")),
            None => {}
        }
        match filter.live {
            Some(true) => terms.fixed("end_time IS NULL", None),
            Some(false) => terms.fixed("end_time IS NOT NULL", Some("end_time IS NULL")),
            None => {}
        }
        match filter.killed {
            Some(true) => terms.fixed("killed = 1", None),
            Some(false) => terms.fixed("killed = 0", Some("killed = 1")),
            None => {}
        }
        if let Some(kind) = &filter.session_type {
            // Often nearly all sessions are of one type: beside a selective term its index is the wrong one, and `+`
            // keeps SQLite from taking it.
            let only_broad = terms.sql.len() == terms.broad;
            terms.with(if only_broad { "session_type = ?" } else { "+session_type = ?" }, kind.clone());
        }
        if let Some(after) = filter.start_after {
            terms.with("start_time > ?", after.as_microsecond());
        }
        if let Some(before) = filter.start_before {
            terms.with("start_time < ?", before.as_microsecond());
        }
        terms
    }

    fn with(&mut self, sql: &'static str, value: impl Into<ToSqlOutput<'static>>) {
        self.sql.push(sql);
        self.values.push(value.into());
    }

    fn fixed(&mut self, sql: &'static str, complement: Option<&'static str>) {
        self.sql.push(sql);
        self.broad += usize::from(complement.is_some());
        self.complement = complement;
    }

    /// What stands behind `WHERE`.
    pub(super) fn conditions(&self) -> String {
        if self.sql.is_empty() { "1".to_owned() } else { self.sql.join(" AND ") }
    }

    /// The values of the conditions, in order.
    pub(super) fn values(&self) -> &[ToSqlOutput<'static>] {
        &self.values
    }

    /// How many sessions match. Without a filter, and with one that nearly all match, nothing is counted row by row.
    pub(super) fn count(&self, db: &Connection) -> Result<u64, StoreError> {
        let counted = |condition: &str, values: &[ToSqlOutput<'static>]| -> Result<i64, StoreError> {
            let mut count = db.prepare_cached(&format!("SELECT count(*) FROM sessions WHERE {condition}"))?;
            Ok(count.query_row(params_from_iter(values), |row| row.get(0))?)
        };
        let all = || -> Result<i64, StoreError> {
            let mut all = db.prepare_cached("SELECT n FROM counts WHERE what = 'sessions'")?;
            Ok(all.query_row([], |row| row.get(0))?)
        };
        let total = match (self.sql.as_slice(), self.complement) {
            ([], _) => all()?,
            ([_], Some(others)) => all()? - counted(others, &[])?,
            _ => counted(&self.conditions(), &self.values)?,
        };
        Ok(u64::try_from(total).unwrap_or(0))
    }
}
