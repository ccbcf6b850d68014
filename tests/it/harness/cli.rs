//! A person's machine with `gatescribe` on it: a profile of its own, no agent, no screen, nobody at the terminal.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use tempfile::TempDir;

use super::ssh::{Done, Running, link_in};
use super::{Browser, Gateway, SOON, Terminal};

/// The machine.
#[derive(Clone)]
pub struct Cli {
    home: Arc<TempDir>,
    environment: Vec<(String, String)>,
}

impl Cli {
    pub fn new() -> Self {
        Self { home: Arc::new(TempDir::with_prefix("gatescribe-cli-").unwrap()), environment: Vec::new() }
    }

    /// The same machine with this in the environment.
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A file of the profile.
    pub fn path(&self, name: &str) -> PathBuf {
        self.home.path().join("profile").join(name)
    }

    /// Where commands run.
    pub fn dir(&self) -> PathBuf {
        self.home.path().to_owned()
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gatescribe"));
        command.args(args).current_dir(self.home.path()).env("GATESCRIBE_HOME", self.path(""));
        for name in REMOVED {
            command.env_remove(name);
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Starts it, with pipes on all three sides.
    pub fn start(&self, args: &[&str]) -> Running {
        Running::start(self.command(args))
    }

    /// Runs it to its end.
    pub async fn run(&self, args: &[&str]) -> Done {
        self.start(args).finish(SOON).await
    }

    /// Runs it in a terminal of this width.
    pub fn terminal(&self, args: &[&str], cols: u16) -> Terminal {
        Terminal::start(&self.command(args), cols, 40)
    }

    /// Starts a sign-in with the gateway's CA in a file, and returns it with the page that it shows.
    pub async fn begin_login(&self, gateway: &Gateway, more: &[&str]) -> (Running, String) {
        let (url, ca) = (gateway.url(""), gateway.ca().display().to_string());
        let mut args = vec!["login", "--gateway", &url, "--ca", &ca];
        args.extend(more);
        let mut login = self.start(&args);
        let told = login.told("https://").await;
        (login, link_in(&told).unwrap())
    }

    /// A whole sign-in as this person; what it printed.
    pub async fn login(&self, gateway: &Gateway, person: &str, more: &[&str]) -> String {
        let (login, page) = self.begin_login(gateway, more).await;
        let mut browser = gateway.browser();
        let words = browser.sign_in_command_line(&page, person, "approve").await;
        assert!(words.contains("is signed in"), "{words}");
        login.finish(SOON).await.ok()
    }
}

impl Browser {
    /// Opens the page of a command line's sign-in, presses this button, and follows to the command line's own page.
    pub async fn sign_in_command_line(&mut self, page: &str, person: &str, button: &str) -> String {
        let page = self.sign_in(page, person).await;
        let page = self.submit(&page.form(button)).await;
        assert_eq!(page.url.host_str(), Some("127.0.0.1"), "not back at the command line: {page:?}");
        assert_eq!(page.url.scheme(), "http");
        page.text()
    }
}

/// What a developer's own environment may hold.
const REMOVED: [&str; 8] = [
    "SSH_AUTH_SOCK",
    "DISPLAY",
    "WAYLAND_DISPLAY",
    "BROWSER",
    "NO_COLOR",
    "GATESCRIBE_GATEWAY",
    "GATESCRIBE_CA",
    "GATESCRIBE_TOKEN_FILE",
];
