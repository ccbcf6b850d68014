//! The REST API as a program uses it: HTTPS with the gateway's CA, a token in `x-access-token`.

use std::path::Path;
use std::time::Duration;

use gatescribe::store::{Outcome, SessionRow};
use reqwest::{Certificate, Client, Method, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{SOON, eventually};

/// A client with one token, or none.
#[derive(Clone)]
pub struct Api {
    client: Client,
    base: String,
    token: Option<String>,
}

/// An answer, whatever its status.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub body: Vec<u8>,
}

impl Api {
    pub fn new(port: u16, ca: &Path, token: Option<String>) -> Self {
        let client = https_client(ca).build().unwrap();
        Self { client, base: format!("https://localhost:{port}"), token }
    }

    /// The same with another token.
    pub fn with_token(&self, token: Option<&str>) -> Self {
        Self { token: token.map(str::to_owned), ..self.clone() }
    }

    pub async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Answer {
        let mut request = self.client.request(method, format!("{}{path}", self.base));
        if let Some(token) = &self.token {
            request = request.header("x-access-token", token);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await.unwrap_or_else(|e| panic!("{path}: {e:?}"));
        Answer { status: response.status(), body: response.bytes().await.unwrap().to_vec() }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, None).await
    }

    /// `GET /sessions` with this query, as it is answered.
    pub async fn sessions(&self, query: &str) -> Value {
        self.get(&format!("/api/v1/sessions?{query}")).await.ok_json()
    }

    /// The rows of a list.
    pub async fn rows(&self, query: &str) -> Vec<SessionRow> {
        serde_json::from_value(self.sessions(query).await["session_logs"].clone()).unwrap()
    }

    /// The newest row of a socket.
    pub async fn newest(&self, socket: &str) -> SessionRow {
        let mut rows = self.rows(&format!("socket_name={socket}&page_size=1")).await;
        assert!(!rows.is_empty(), "no session on {socket}");
        rows.remove(0)
    }

    /// One row with its events and recordings.
    pub async fn details(&self, row: &SessionRow) -> SessionRow {
        let path = format!("/api/v1/session/{}/{}", row.socket_id, row.session_id);
        serde_json::from_value(self.get(&path).await.ok_json()).unwrap()
    }

    /// The newest row of a socket once it has ended.
    pub async fn ended(&self, socket: &str) -> SessionRow {
        let row = self.newest(socket).await;
        self.end_of(&row).await
    }

    /// The row once it has ended.
    pub async fn end_of(&self, row: &SessionRow) -> SessionRow {
        eventually("the row is closed", SOON, async || Some(self.details(row).await).filter(|r| r.outcome.is_some()))
            .await
    }

    /// The one live session on this socket, once it is there.
    pub async fn live(&self, socket: &str) -> SessionRow {
        let query = format!("socket_name={socket}&live=true");
        eventually("a live session", SOON, async || self.rows(&query).await.into_iter().next()).await
    }

    /// A recording as it is exported.
    pub async fn log(&self, row: &SessionRow, recording: Option<Uuid>, format: &str) -> Answer {
        let recording = recording.map(|id| format!("recording_id={id}&")).unwrap_or_default();
        let path =
            format!("/api/v1/session/{}/{}/session_log?{recording}format={format}", row.socket_id, row.session_id);
        self.get(&path).await
    }

    /// A recording on its way.
    pub async fn download(&self, row: &SessionRow, format: &str) -> reqwest::Response {
        let (socket, session) = (row.socket_id, row.session_id);
        let url = format!("{}/api/v1/session/{socket}/{session}/session_log?format={format}", self.base);
        let token = self.token.as_deref().unwrap_or_default();
        self.client.get(url).header("x-access-token", token).send().await.unwrap().error_for_status().unwrap()
    }

    /// Ends a session; fails when the answer takes longer than the limit.
    pub async fn kill(&self, row: &SessionRow, reason: &str, limit: Duration) -> SessionRow {
        let answer = tokio::time::timeout(limit, self.try_kill(row, reason)).await;
        let answer = answer.unwrap_or_else(|_| panic!("the kill was not answered within {limit:?}"));
        let row: SessionRow = serde_json::from_value(answer.ok_json()).unwrap();
        assert!(row.killed);
        assert_eq!(row.outcome, Some(Outcome::Killed));
        row
    }

    pub async fn try_kill(&self, row: &SessionRow, reason: &str) -> Answer {
        let path = format!("/api/v1/session/{}/{}", row.socket_id, row.session_id);
        self.call(Method::PUT, &path, Some(json!({"killed": true, "reason": reason}))).await
    }

    /// Ends one channel of a session.
    pub async fn try_kill_channel(&self, row: &SessionRow, recording: Uuid, reason: &str) -> Answer {
        let path = format!("/api/v1/session/{}/{}", row.socket_id, row.session_id);
        let order = json!({"killed": true, "reason": reason, "recording_id": recording});
        self.call(Method::PUT, &path, Some(order)).await
    }
}

impl Answer {
    /// The body of a successful answer.
    #[track_caller]
    pub fn ok(self) -> Vec<u8> {
        assert!(self.status.is_success(), "{}: {}", self.status, String::from_utf8_lossy(&self.body));
        self.body
    }

    #[track_caller]
    pub fn ok_json(self) -> Value {
        serde_json::from_slice(&self.ok()).unwrap()
    }

    /// The words of an error, which has the contract's form.
    #[track_caller]
    pub fn error(self, status: u16) -> String {
        let text = String::from_utf8_lossy(&self.body).into_owned();
        assert_eq!(self.status.as_u16(), status, "{text}");
        let value: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("no JSON: {text:?}"));
        assert_eq!(value["status_code"], status, "{text}");
        value["error_message"].as_str().unwrap_or_else(|| panic!("no error_message in {text}")).to_owned()
    }
}

/// A client that trusts this CA and nothing else.
pub fn https_client(ca: &Path) -> reqwest::ClientBuilder {
    let pem = std::fs::read(ca).unwrap();
    Client::builder()
        .tls_certs_only([Certificate::from_pem(&pem).unwrap()])
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(Duration::from_secs(120))
}
