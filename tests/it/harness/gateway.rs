//! A gateway process of its own: configuration, data directory, ports, certificate, an administrator's token.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, PipeWriter};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use gatescribe::record::default_spool;
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::sync::watch;

use super::issuer::Issuer;
use super::{Api, Browser, SOON, Ssh, Sshd, eventually, free_port, process};

/// The people of the development issuer may do what their groups say.
pub const POLICIES: &str = r#"
[[policy]]
name = "engineers"
effect = "allow"
who = { groups = ["engineering"] }
[policy.allow.ssh]
"#;

/// A running `gatescribe`.
pub struct Gateway {
    dir: TempDir,
    child: Child,
    stdout: watch::Receiver<Vec<String>>,
    launch: Launch,
    pub https: u16,
    pub ssh: u16,
    /// The provider of `serve`; the demo has its own inside.
    pub issuer: Option<Issuer>,
    errors_expected: bool,
}

/// What the configuration of a `serve` gateway says.
pub struct Setup {
    sockets: String,
    policies: String,
    recording: String,
    gateway: String,
    listen: String,
    more: String,
    environment: Vec<(String, String)>,
    data: Option<PathBuf>,
    stderr: Option<PipeWriter>,
    by_way_of: Vec<String>,
}

/// How the process is started, and started again.
struct Launch {
    args: Vec<String>,
    environment: Vec<(String, String)>,
    data: PathBuf,
    stderr: Option<PipeWriter>,
    /// The program, or another one that becomes it, with what comes before the arguments.
    program: Vec<String>,
}

impl Setup {
    pub fn new() -> Self {
        let none = String::new;
        Self {
            sockets: none(),
            policies: POLICIES.into(),
            recording: none(),
            gateway: none(),
            listen: none(),
            more: none(),
            environment: Vec::new(),
            data: None,
            stderr: None,
            by_way_of: vec![env!("CARGO_BIN_EXE_gatescribe").into()],
        }
    }

    /// Has this become the gateway: a command whose last word is the gateway's program.
    pub fn by_way_of(mut self, command: &[&str]) -> Self {
        self.by_way_of = command.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// A socket to this server, with its host key pinned.
    pub fn ssh(self, name: &str, sshd: &Sshd) -> Self {
        self.ssh_with(name, sshd, "")
    }

    /// The same, with more lines of the socket itself.
    pub fn ssh_with(self, name: &str, sshd: &Sshd, lines: &str) -> Self {
        let (address, print) = (sshd.address(), sshd.host_fingerprint());
        self.upstream(name, lines, &address, &sshd.login_key(), &print)
    }

    /// A socket that leads anywhere.
    pub fn upstream(mut self, name: &str, lines: &str, address: &str, key: &Path, host_key: &str) -> Self {
        let user = whoami();
        let key = key.display();
        self.sockets += &format!(
            "[[socket]]\nname = \"{name}\"\ntype = \"ssh\"\n{lines}\n[socket.upstream]\nkind = \"ssh\"\n\
             address = \"{address}\"\nusername = \"{user}\"\nprivate_key = \"file:{key}\"\nhost_key = \"{host_key}\"\n"
        );
        self
    }

    /// A socket as it is written.
    pub fn socket(mut self, toml: &str) -> Self {
        self.sockets += toml;
        self
    }

    /// These policies instead of the usual one.
    pub fn policies(mut self, toml: &str) -> Self {
        self.policies = toml.to_owned();
        self
    }

    /// Lines of `[recording]`.
    pub fn recording(mut self, lines: &str) -> Self {
        self.recording = lines.to_owned();
        self
    }

    /// More lines of `[gateway]`.
    pub fn gateway(mut self, lines: &str) -> Self {
        self.gateway = lines.to_owned();
        self
    }

    /// More lines of `[listen]`.
    pub fn listen(mut self, lines: &str) -> Self {
        self.listen = lines.to_owned();
        self
    }

    /// Other tables.
    pub fn more(mut self, toml: &str) -> Self {
        self.more += toml;
        self
    }

    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Keeps the data here.
    pub fn data(mut self, data: PathBuf) -> Self {
        self.data = Some(data);
        self
    }

    /// Logs into this pipe, and [`Gateway::log`] has nothing.
    pub fn stderr(mut self, pipe: PipeWriter) -> Self {
        self.stderr = Some(pipe);
        self
    }

    /// Starts a provider and `gatescribe serve`, and waits until it is ready.
    pub async fn start(self) -> Gateway {
        let (https, ssh) = (free_port(), free_port());
        let issuer = Issuer::start(https).await;
        self.start_at(issuer, https, ssh).await
    }

    /// Starts `gatescribe serve` with this provider.
    pub async fn start_at(self, issuer: Issuer, https: u16, ssh: u16) -> Gateway {
        let dir = TempDir::with_prefix("gatescribe-").unwrap();
        let config = dir.path().join("gatescribe.toml");
        let data = self.data.clone().unwrap_or_else(|| dir.path().join("data"));
        fs::write(&config, self.config(&data, &issuer, https, ssh)).unwrap();
        let args = vec!["serve".into(), "--config".into(), config.display().to_string()];
        let program = self.by_way_of;
        let launch = Launch { args, environment: self.environment, data, stderr: self.stderr, program };
        Gateway::launch(dir, launch, https, ssh, Some(issuer)).await
    }

    /// The whole configuration file.
    pub fn config(&self, data: &Path, issuer: &Issuer, https: u16, ssh: u16) -> String {
        let data = data.display();
        let Issuer { url, client_id, .. } = issuer;
        let secret_file = issuer.secret_file();
        let secret_file = secret_file.display();
        let Setup { sockets, policies, recording, gateway, listen, more, .. } = self;
        format!(
            "[gateway]\ndomain = \"localhost\"\npublic_url = \"https://localhost:{https}\"\ndata_dir = \"{data}\"\n\
             {gateway}\n[listen]\nhttps = \"127.0.0.1:{https}\"\nssh = \"127.0.0.1:{ssh}\"\n{listen}\n\
             [oidc]\nissuer = \"{url}\"\nclient_id = \"{client_id}\"\nclient_secret = \"file:{secret_file}\"\n\
             [roles]\nadmin = [\"security\"]\noperator = [\"oncall\"]\nauditor = [\"audit\"]\n\
             [recording]\n{recording}\n{more}\n{sockets}\n{policies}"
        )
    }
}

impl Gateway {
    /// `gatescribe demo`, which approves links itself as this person if one is named.
    pub async fn demo(approve_as: Option<&str>) -> Self {
        let dir = TempDir::with_prefix("gatescribe-demo-").unwrap();
        let (https, ssh) = (free_port(), free_port());
        let data = dir.path().join("data");
        let (https_at, ssh_at) = (format!("127.0.0.1:{https}"), format!("127.0.0.1:{ssh}"));
        let named = ["--data", &data.display().to_string(), "--https", &https_at, "--ssh", &ssh_at].map(str::to_owned);
        let mut args = vec!["demo".to_owned()];
        args.extend(named);
        args.extend(approve_as.into_iter().flat_map(|person| ["--approve-as".into(), person.into()]));
        let program = vec![env!("CARGO_BIN_EXE_gatescribe").to_owned()];
        Self::launch(dir, Launch { args, environment: Vec::new(), data, stderr: None, program }, https, ssh, None).await
    }

    async fn launch(dir: TempDir, launch: Launch, https: u16, ssh: u16, issuer: Option<Issuer>) -> Self {
        let (child, stdout) = launch.spawn(dir.path());
        let mut gateway = Self { dir, child, stdout, launch, https, ssh, issuer, errors_expected: false };
        gateway.ready().await;
        gateway
    }

    /// A machine whose key this person has approved: its connections need no link any more.
    pub async fn signed_in(&self, person: &str, socket: &str) -> Ssh {
        let ssh = Ssh::new(self.ssh);
        let mut sign_in = ssh.sign_in(&[&format!("{socket}@gate"), "true"]).await;
        let digits = self.browser().approve(&sign_in.link, person).await;
        sign_in.answer(&digits);
        let done = sign_in.ssh.finish(SOON).await;
        assert!(!done.stderr.contains("Permission denied"), "{done:?}");
        ssh
    }

    pub fn browser(&self) -> Browser {
        Browser::new(&self.ca())
    }

    /// The API with an administrator's token.
    pub async fn admin(&self) -> Api {
        let token = match self.issuer {
            None => fs::read_to_string(self.data().join("admin.token")).unwrap().trim().to_owned(),
            Some(_) => self.token_of("admin").await,
        };
        self.api(Some(token))
    }

    /// The API with this token, or without any.
    pub fn api(&self, token: Option<String>) -> Api {
        Api::new(self.https, &self.ca(), token)
    }

    /// An API token, made on the page for it by this person.
    pub async fn token_of(&self, person: &str) -> String {
        let mut browser = self.browser();
        let page = browser.sign_in(&self.url("/token"), person).await;
        let form = page.form("token");
        let page = browser.submit(&form).await;
        let code = page.body.split("<code").nth(1).and_then(|rest| rest.split(['>', '<']).nth(1));
        code.unwrap_or_else(|| panic!("no token on {page:?}")).trim().to_owned()
    }

    pub fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.https)
    }

    pub fn data(&self) -> PathBuf {
        self.launch.data.clone()
    }

    pub fn ca(&self) -> PathBuf {
        self.data().join("ca.pem")
    }

    pub fn config_file(&self) -> PathBuf {
        self.dir.path().join("gatescribe.toml")
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it printed.
    pub fn stdout(&self) -> Vec<String> {
        self.stdout.borrow().clone()
    }

    /// What it logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// What it logged, once this is in it.
    pub async fn log_with(&self, words: &str) -> String {
        eventually(&format!("{words:?} in the log"), SOON, async || Some(self.log()).filter(|log| log.contains(words)))
            .await
    }

    /// This test breaks things, so errors in the log are no failure.
    pub fn expect_errors(&mut self) {
        self.errors_expected = true;
    }

    /// Ends it as a crash would.
    pub fn crash(&mut self) {
        process::signal(self.child.id(), Signal::KILL);
        self.child.wait().unwrap();
    }

    /// Whether the process that this started has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Asks it to stop and waits until it has.
    pub async fn stop(&mut self) -> ExitStatus {
        process::signal(self.child.id(), Signal::TERM);
        self.ended().await
    }

    /// Waits until it has ended.
    pub async fn ended(&mut self) -> ExitStatus {
        let child = &mut self.child;
        eventually("the gateway stops", SOON, async || child.try_wait().unwrap()).await
    }

    /// Starts it again, on the same data and ports.
    pub async fn start_again(&mut self) {
        (self.child, self.stdout) = self.launch.spawn(self.dir.path());
        self.ready().await;
    }

    async fn ready(&mut self) {
        let is_ready = |lines: &Vec<String>| lines.iter().any(|line| line == "ready");
        let ready = tokio::time::timeout(SOON, self.stdout.wait_for(is_ready)).await;
        let is_ready = matches!(ready, Ok(Ok(_)));
        drop(ready);
        assert!(is_ready, "the gateway is not ready; it printed {:?}", self.stdout());
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        for pid in process::descendants(self.child.id()) {
            process::signal(pid, Signal::KILL);
        }
        process::signal(self.child.id(), Signal::KILL);
        let _ = self.child.wait();
        // What a killed gateway left in memory; its data directory goes with the test.
        let _ = fs::remove_dir_all(default_spool(&self.data()));
        let log = self.log();
        if std::thread::panicking() {
            let from = log.len().saturating_sub(20_000);
            let from = (from..log.len()).find(|at| log.is_char_boundary(*at)).unwrap_or(0);
            eprintln!("--- the gateway's log\n{}", &log[from..]);
        } else if !self.errors_expected {
            let errors: Vec<_> = log.lines().filter(|line| line.contains("ERROR")).collect();
            assert!(errors.is_empty(), "errors in the gateway's log:\n{}", errors.join("\n"));
        }
    }
}

impl Launch {
    fn spawn(&self, dir: &Path) -> (Child, watch::Receiver<Vec<String>>) {
        let log = || File::options().append(true).create(true).open(dir.join("log")).unwrap();
        let stderr = match &self.stderr {
            Some(pipe) => Stdio::from(pipe.try_clone().unwrap()),
            None => log().into(),
        };
        let mut child = Command::new(&self.program[0])
            .args(&self.program[1..])
            .args(&self.args)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .unwrap();
        let (sender, receiver) = watch::channel(Vec::new());
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                sender.send_modify(|all| all.push(line));
            }
        });
        (child, receiver)
    }
}

/// The current user's name, which is also the login at the test's servers.
pub fn whoami() -> String {
    let told = Command::new("id").arg("-un").output().unwrap();
    String::from_utf8(told.stdout).unwrap().trim().to_owned()
}
