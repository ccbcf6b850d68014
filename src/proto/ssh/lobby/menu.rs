//! The menu of a lobby: what one may reach, a line to type on, and the session that was picked.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, timeout_at};

use super::{Lobby, Use};
use crate::proto::ssh::client::{Client, Did, harmless};
use crate::proto::ssh::connection::Connection;
use crate::proto::ssh::sign_in::door::{self, Refused, Wanted};
use crate::session::Session;
use crate::socket::{Protocol, Socket};
use crate::upstream::{Program, Terminal};

/// How long somebody may take to pick, in all.
const TO_PICK: Duration = Duration::from_secs(120);

/// Picks that may be refused.
const TRIES: usize = 3;

/// Sockets that are listed; others can be named.
const LISTED: usize = 100;

/// The longest line: a login and a name.
const LONGEST: usize = 256;

/// Lets somebody pick a socket, and opens the session. `None`: none was, and the channel is closed.
pub(in crate::proto::ssh) async fn choose(
    connection: &Arc<Connection>,
    client: &mut Client,
    program: &Program,
    terminal: &mut Option<Terminal>,
) -> Option<Arc<Session>> {
    // A session may just have come by another channel.
    let Some(lobby) = connection.lobby() else { return connection.session() };
    let picked = match (ready(connection, &lobby).await, program, terminal) {
        (Err(words), ..) => Err(Unpicked::Refused(words)),
        (Ok(()), Program::Shell, Some(terminal)) if connection.permits_terminals() => {
            ask(connection, &lobby, client, terminal).await
        }
        _ => Err(Unpicked::Refused(no_terminal(connection, &lobby).await)),
    };
    match picked {
        Ok(session) => return Some(session),
        Err(Unpicked::Refused(words)) => client.to.refuse(&words).await,
        Err(Unpicked::Late) => client.to.refuse("nothing was picked in time; connect again").await,
        Err(Unpicked::Left) => client.to.done().await,
    }
    None
}

/// How a menu ends without a session.
enum Unpicked {
    Refused(String),
    Late,
    Left,
}

/// Whether something may be asked for: not too often, and by what still counts.
async fn ready(connection: &Connection, lobby: &Lobby) -> Result<(), String> {
    lobby.in_pace(&connection.front, connection.client.ip())?;
    lobby.still_known(&connection.front).await
}

/// The words where there is nobody to ask. A row tells of it, as of every socket that does not exist.
async fn no_terminal(connection: &Connection, lobby: &Lobby) -> String {
    let refused = door::no_socket(connection, (None, lobby.name.clone()), lobby.known.clone()).await;
    format!(
        "{refused}: write `ssh SOCKET@GATEWAY COMMAND` or `ssh -J GATEWAY SOCKET COMMAND`; `ssh GATEWAY` alone, in a \
         terminal, lists what you may reach"
    )
}

async fn ask(
    connection: &Arc<Connection>,
    lobby: &Lobby,
    client: &mut Client,
    terminal: &mut Terminal,
) -> Result<Arc<Session>, Unpicked> {
    let until = Instant::now() + TO_PICK;
    let sessions = &connection.front.sessions;
    let mut sockets = sessions.reachable(&lobby.known.identity, connection.client.ip());
    sockets.retain(|socket| socket.protocol == Protocol::Ssh && lobby.known.may_use(socket).is_ok());
    say(client, menu(&sockets), until).await?;
    let mut refusals = 0;
    let mut line = Line::default();
    loop {
        // Only this waits for the person, so only this has their deadline: what was picked is opened to its end.
        let did = tokio::select! {
            biased;
            leave = lobby.until_asked() => return Err(Unpicked::Refused(leave.words().into())),
            _ = connection.until_session() => return Err(Unpicked::Refused(USED.into())),
            did = timeout_at(until, client.from.next()) => did.map_err(|_| Unpicked::Late)?,
        };
        let data = match did {
            Did::Data(0, data) => data,
            Did::Data(_, data) => {
                client.from.taken(data.len());
                continue;
            }
            Did::Resize(size) => {
                terminal.size = size;
                continue;
            }
            Did::Eof | Did::Gone => return Err(Unpicked::Left),
            _ => continue,
        };
        client.from.taken(data.len());
        // What is typed after a line's end is for what the line starts, and comes too early.
        let (echo, entered) = line.take(&data);
        say(client, echo, until).await?;
        let wanted = match entered {
            None => continue,
            Some(Entered::Left) => return Err(Unpicked::Left),
            Some(Entered::Line(text)) => match choice(&text, &sockets) {
                Choice::None => Err(String::new()),
                Choice::Left => return Err(Unpicked::Left),
                Choice::NoNumber => Err(format!("there is no number {text}\r\n")),
                Choice::Wanted(wanted) => Ok(wanted),
            },
        };
        let words = match wanted {
            Err(words) => words,
            Ok(wanted) => match pick(connection, lobby, wanted).await {
                Ok(session) => return Ok(session),
                Err(words) => {
                    refusals += 1;
                    if refusals == TRIES {
                        return Err(Unpicked::Refused(words));
                    }
                    format!("gatescribe: {}\r\n", harmless(&words))
                }
            },
        };
        say(client, format!("{words}{PROMPT}"), until).await?;
    }
}

/// Writes into the terminal, whose client may have stopped reading.
async fn say(client: &Client, text: String, until: Instant) -> Result<(), Unpicked> {
    match timeout_at(until, client.to.send(0, Bytes::from(text))).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(Unpicked::Left),
        Err(_) => Err(Unpicked::Late),
    }
}

/// Opens the session; else why not.
async fn pick(connection: &Arc<Connection>, lobby: &Lobby, wanted: Wanted) -> Result<Arc<Session>, String> {
    ready(connection, lobby).await?;
    lobby.claim(Use::Visit)?;
    let entered = Box::pin(door::enter(connection, wanted, lobby.known.clone(), false)).await;
    match (entered, connection.session()) {
        (Ok(()), Some(session)) => {
            connection.tell_version(session.clone());
            Ok(session)
        }
        (entered, _) => {
            lobby.give_back();
            Err(match entered {
                Err(Refused::Told(words)) => words,
                Err(Refused::StepUp { denied, .. }) => denied.to_string(),
                Ok(()) => "the session has ended".into(),
            })
        }
    }
}

/// To somebody at a second menu.
const USED: &str = "a socket was picked in another terminal of this connection; connect again";

const PROMPT: &str = "Number or name, q to leave: ";

fn menu(sockets: &[Arc<Socket>]) -> String {
    let mut text = String::from("\r\nGatescribe: you may reach\r\n\r\n");
    for (index, socket) in sockets.iter().take(LISTED).enumerate() {
        let login = if socket.fixes_login() { "" } else { "LOGIN@" };
        text += &format!("{:>5}  {login}{}\r\n", index + 1, socket.name);
    }
    match sockets.len().saturating_sub(LISTED) {
        0 if sockets.is_empty() => text += "   nothing now\r\n",
        0 => {}
        more => text += &format!("   and {more} more by name\r\n"),
    }
    text + "\r\n" + PROMPT
}

/// What a line asks for.
#[derive(Debug, PartialEq, Eq)]
enum Choice {
    None,
    Left,
    NoNumber,
    Wanted(Wanted),
}

/// `[login@]` and a number of the list or a name.
fn choice(line: &str, sockets: &[Arc<Socket>]) -> Choice {
    let (login, which) = match line.trim().rsplit_once('@') {
        Some((login, which)) => (Some(login.to_owned()).filter(|login| !login.is_empty()), which),
        None => (None, line.trim()),
    };
    let is_named = || sockets.iter().any(|socket| socket.name == which);
    match which.parse::<usize>() {
        _ if which.is_empty() => Choice::None,
        Ok(number) if !is_named() => match number.checked_sub(1).and_then(|index| sockets.get(index)) {
            Some(socket) => Choice::Wanted((login, socket.name.clone())),
            None => Choice::NoNumber,
        },
        Err(_) if which == "q" && login.is_none() && !is_named() => Choice::Left,
        _ => Choice::Wanted((login, which.to_ascii_lowercase())),
    }
}

/// A line as it is typed into a terminal in raw mode.
#[derive(Default)]
struct Line {
    text: String,
    keys: Keys,
}

/// How much of a function key's sequence came (ECMA-48 section 5.4).
#[derive(Default)]
enum Keys {
    #[default]
    Plain,
    Escape,
    Sequence,
}

/// How a line ends.
#[derive(Debug, PartialEq, Eq)]
enum Entered {
    Line(String),
    Left,
}

impl Line {
    /// Takes what was typed, up to the line's end: what is to be shown, and the line once it is there.
    fn take(&mut self, typed: &[u8]) -> (String, Option<Entered>) {
        let mut echo = String::new();
        for byte in typed {
            self.keys = match (&self.keys, byte) {
                (Keys::Escape, b'[' | b'O') => Keys::Sequence,
                (Keys::Sequence, 0x20..=0x3f) => Keys::Sequence,
                (Keys::Escape | Keys::Sequence, 0x20..=0x7e) => Keys::Plain,
                (_, 0x1b) => Keys::Escape,
                (_, b'\r' | b'\n') => {
                    self.keys = Keys::Plain;
                    return (echo + "\r\n", Some(Entered::Line(std::mem::take(&mut self.text))));
                }
                // Ctrl-C, Ctrl-D.
                (_, 0x03 | 0x04) => return (echo + "\r\n", Some(Entered::Left)),
                (_, 0x08 | 0x7f) => {
                    if self.text.pop().is_some() {
                        echo += "\u{8} \u{8}";
                    }
                    Keys::Plain
                }
                // Ctrl-U.
                (_, 0x15) => {
                    echo += &"\u{8} \u{8}".repeat(self.text.len());
                    self.text.clear();
                    Keys::Plain
                }
                (_, 0x20..=0x7e) if self.text.len() < LONGEST => {
                    self.text.push(char::from(*byte));
                    echo.push(char::from(*byte));
                    Keys::Plain
                }
                _ => Keys::Plain,
            };
        }
        (echo, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sockets(names: &[&str]) -> Vec<Arc<Socket>> {
        names.iter().map(|name| Arc::new(Socket::into_shell(*name, "demo"))).collect()
    }

    fn wanted(login: Option<&str>, name: &str) -> Choice {
        Choice::Wanted((login.map(str::to_owned), name.to_owned()))
    }

    #[test]
    fn a_line_is_a_number_a_name_or_the_end() {
        let all = sockets(&["web", "db", "7"]);
        let table = [
            ("1", wanted(None, "web")),
            (" 2 ", wanted(None, "db")),
            ("root@2", wanted(Some("root"), "db")),
            ("a@b@web", wanted(Some("a@b"), "web")),
            ("Web", wanted(None, "web")),
            ("elsewhere", wanted(None, "elsewhere")),
            ("7", wanted(None, "7")),
            ("3", wanted(None, "7")),
            ("@db", wanted(None, "db")),
            ("q@db", wanted(Some("q"), "db")),
            ("0", Choice::NoNumber),
            ("4", Choice::NoNumber),
            ("q", Choice::Left),
            ("", Choice::None),
            ("root@", Choice::None),
        ];
        for (line, choice_expected) in table {
            assert_eq!(choice(line, &all), choice_expected, "{line:?}");
        }
        assert_eq!(choice("q", &sockets(&["q"])), wanted(None, "q"));
    }

    #[test]
    fn a_line_is_edited_as_it_is_typed() {
        let typed = |parts: &[&[u8]]| {
            let mut line = Line::default();
            let mut shown = String::new();
            for part in parts {
                let (echo, entered) = line.take(part);
                shown += &echo;
                if entered.is_some() {
                    return (shown, entered);
                }
            }
            (shown, None)
        };
        let entered = |text: &str| Some(Entered::Line(text.into()));
        assert_eq!(typed(&[b"we", b"b\r", b"more"]), ("web\r\n".into(), entered("web")));
        assert_eq!(typed(&[b"wx\x7feb\n"]).1, entered("web"));
        assert_eq!(typed(&[b"\x7f\x08x"]), ("x".into(), None));
        assert_eq!(typed(&[b"junk\x15db\r"]).1, entered("db"));
        // Cursor keys and function keys, also in pieces.
        assert_eq!(typed(&[b"\x1b[A\x1bOPw\x1b[", b"15~eb\r"]), ("web\r\n".into(), entered("web")));
        assert_eq!(typed(&[b"db\x03"]).1, Some(Entered::Left));
        assert_eq!(typed(&[b"\x04"]).1, Some(Entered::Left));
        assert_eq!(typed(&[&[0xff, 0x00, 0x07], b"a\r"]).1, entered("a"));
        assert_eq!(typed(&[&[b'x'; 1000], b"\r"]).1, entered(&"x".repeat(LONGEST)));
    }

    #[test]
    fn the_menu_has_an_end() {
        let names: Vec<String> = (0..LISTED + 5).map(|number| format!("s{number}")).collect();
        let text = menu(&sockets(&names.iter().map(String::as_str).collect::<Vec<_>>()));
        assert!(text.contains("  100  s99\r\n") && !text.contains("s100\r\n"), "{text}");
        assert!(text.contains("and 5 more by name") && text.ends_with(PROMPT), "{text}");
        assert!(menu(&[]).contains("nothing now"));
    }
}
