//! Which commands are file transfers: `scp -t`, `scp -f`, `rsync --server`, `sftp-server`. The socket's `sftp` right
//! decides these, so a command is recognised only when it is known to do nothing else.
//!
//! What is not recognised is a command like any other and needs the right to run one. So nothing is lost by refusing
//! to recognise what is not sure.

mod prefix;
#[cfg(test)]
mod tests;

use crate::wire::rsync::Options;
use crate::wire::words::{Unquoted, Word, split};

/// A command that copies files and does nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// What it speaks.
    pub kind: Kind,
    /// Whether it needs the right to write. False for `sftp-server`, whose requests are judged one by one. An rsync that
    /// gets arguments in the stream is judged again there, by the same right.
    pub writes: bool,
    /// The program by its bare name or in a system directory, and nothing in front. Otherwise the right to run commands
    /// is needed as well.
    pub plain: bool,
}

/// What a transfer speaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// SFTP, by a command instead of a subsystem.
    SftpServer,
    /// The protocol that `scp` spoke before OpenSSH 9.0.
    Scp(Scp),
    /// rsync's.
    Rsync(Box<Options>),
}

/// `scp -t` or `scp -f`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scp {
    /// To the upstream (`-t`).
    pub upload: bool,
    /// `-r`
    pub recursive: bool,
    /// `-p`: times and modes.
    pub preserve: bool,
    /// `-d`: the target has to be a directory.
    pub directory: bool,
    /// The target, or the sources, as they are written. A source may have globs.
    pub paths: Vec<String>,
}

/// Recognises a command as it was sent.
///
/// A command with anything outside quotes that means something to a shell is never recognised, but for globs and `~` in
/// paths. A program anywhere else than in a system directory is not either: whoever may write files could have put it
/// there.
pub fn recognise(command: &[u8]) -> Option<Transfer> {
    let words = split(command, Unquoted::Paths).ok()?;
    let (prefixed, rest) = prefix::skip(&words)?;
    let (program, arguments) = rest.split_first()?;
    let transfer = |kind, writes| Transfer { kind, writes, plain: !prefixed };
    match program_name(program)? {
        "scp" => scp(arguments).map(|scp| transfer(Kind::Scp(scp.clone()), scp.upload)),
        "rsync" => rsync(arguments).map(|options| {
            let writes = options.writes();
            transfer(Kind::Rsync(Box::new(options)), writes)
        }),
        "sftp-server" | "internal-sftp" => sftp_server(arguments).map(|()| transfer(Kind::SftpServer, false)),
        _ => None,
    }
}

/// The name of a program that is found where only the system puts programs.
fn program_name(program: &Word) -> Option<&str> {
    let text = program.text.as_str();
    match text.rsplit_once('/') {
        _ if program.expands => None,
        None => Some(text),
        Some((directory, name)) => SYSTEM_DIRECTORIES.contains(&directory).then_some(name),
    }
}

/// OpenSSH's reading of options ends at the first path, glibc's goes on: every word with a dash in front is judged.
fn scp(arguments: &[Word]) -> Option<Scp> {
    let (mut scp, mut source, mut ended) = (Scp::default(), false, false);
    for word in arguments {
        let is_option = !ended && word.text.len() > 1 && word.text.starts_with('-');
        match word.text.as_str() {
            _ if word.begins_open && !ended => return None,
            text if !is_option => scp.paths.push(text.to_owned()),
            _ if word.expands => return None,
            "--" => ended = true,
            text => {
                for letter in text.chars().skip(1) {
                    match letter {
                        't' => scp.upload = true,
                        'f' => source = true,
                        'r' => scp.recursive = true,
                        'p' => scp.preserve = true,
                        'd' => scp.directory = true,
                        'v' | 'q' => {}
                        // `-S`, `-o`, `-F`, `-J`, `-i` start or read something else.
                        _ => return None,
                    }
                }
            }
        }
    }
    let counts = if scp.upload { scp.paths.len() == 1 } else { !scp.paths.is_empty() };
    (scp.upload != source && counts).then_some(scp)
}

fn rsync(arguments: &[Word]) -> Option<Options> {
    let (first, rest) = arguments.split_first()?;
    if first.text != "--server" || first.expands {
        return None;
    }
    let mut options = Options::default();
    options.read(rest)?;
    // Without a path there is nothing to do, unless paths come in the stream.
    (options.secluded || !options.paths.is_empty()).then_some(options)
}

/// `sftp-server(8)`: any of them only logs, begins elsewhere, or allows less.
fn sftp_server(arguments: &[Word]) -> Option<()> {
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        if word.expands {
            return None;
        }
        let mut letters = word.text.strip_prefix('-')?.chars();
        while let Some(letter) = letters.next() {
            match letter {
                'e' | 'R' | 'h' => {}
                'f' | 'l' | 'u' | 'd' | 'P' | 'p' => {
                    if letters.next().is_none() && words.next()?.expands {
                        return None;
                    }
                    break;
                }
                _ => return None,
            }
        }
    }
    Some(())
}

/// Where only the system's own programs are.
const SYSTEM_DIRECTORIES: &[&str] = &[
    "/bin",
    "/sbin",
    "/usr/bin",
    "/usr/sbin",
    "/usr/local/bin",
    "/usr/local/sbin",
    "/usr/lib",
    "/usr/lib/openssh",
    "/usr/lib/ssh",
    "/usr/lib64/misc",
    "/usr/lib64/ssh",
    "/usr/libexec",
    "/usr/libexec/openssh",
    "/usr/local/libexec",
    "/run/current-system/sw/bin",
];
