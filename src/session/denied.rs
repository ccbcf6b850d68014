//! Denials of known people, as rows.

use serde_json::json;
use uuid::Uuid;

use super::{Sessions, Visit};
use crate::policy::Denied;
use crate::store::{Event, EventStatus, StoreError};
use crate::telemetry::metrics::DenialClass;

impl Sessions {
    /// Writes the denial of a visitor of whom a better sign-in was asked ([`super::OpenError::StepUp`]) and who did not
    /// bring it. Returns the row's id.
    pub async fn deny(&self, visit: Visit, denied: &Denied) -> Result<Uuid, StoreError> {
        let id = Uuid::now_v7();
        self.write_denied(id, visit, denied).await?;
        Ok(id)
    }

    /// The same on the gateway's time: the visitor has gone.
    pub fn deny_gone(&self, visit: Visit, denied: Denied) {
        let sessions = self.clone();
        self.spawn(async move {
            if let Err(error) = sessions.deny(visit, &denied).await {
                tracing::error!(%error, %denied, "a denial could not be written");
            }
        });
    }

    pub(super) async fn write_denied(&self, id: Uuid, mut visit: Visit, denied: &Denied) -> Result<(), StoreError> {
        let about = json!({ "reason": denied.to_string(), "rule": denied.rule() });
        visit.events.push(Event::now("decision", EventStatus::Denied, about));
        let class = denied.rule().map_or(DenialClass::NoRule, |_| DenialClass::Rule);
        self.metrics().denied(visit.socket.protocol.session_type(), class);
        self.store().open_session(self.denied_row(id, &visit, denied)).await
    }
}
