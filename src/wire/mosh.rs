//! mosh's bootstrap: a command that starts a server to speak UDP with, which nothing that carries SSH can follow.
//!
//! Recognised so that people are told why it does not work. It is no barrier: who may run commands can write the same
//! in other words.

/// Whether a command starts `mosh-server new`, as the client of mosh 1.2 to 1.4 sends it.
pub fn is_bootstrap(command: &[u8]) -> bool {
    let Ok(command) = std::str::from_utf8(command) else { return false };
    command.split([';', '\n']).any(|simple| {
        let mut words = simple.split_ascii_whitespace().map(|word| word.trim_matches(['\'', '"']));
        let program = words.find(|word| !word.contains('=') && !STARTERS.contains(word));
        let is_server = program.is_some_and(|program| program.rsplit('/').next() == Some("mosh-server"));
        is_server && words.next() == Some("new")
    })
}

/// What stands in front of a program and starts it.
const STARTERS: [&str; 4] = ["env", "exec", "command", "nohup"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_mosh_sends_is_recognised_and_what_only_names_it_is_not() {
        for command in [
            "mosh-server 'new' '-c' '256' '-s' '-l' 'LANG=en_US.UTF-8'",
            "mosh-server new",
            "/usr/local/bin/mosh-server new -p 60001 -- bash",
            "LC_ALL=C.UTF-8 exec mosh-server 'new'",
            "env LANG=C.UTF-8 mosh-server new -s",
            "sh -c '[ -n \"$SSH_CONNECTION\" ] && printf \"\\nMOSH SSH_CONNECTION %s\\n\" \"$SSH_CONNECTION\"' ; mosh-server 'new' '-c'",
        ] {
            assert!(is_bootstrap(command.as_bytes()), "{command}");
        }
        for command in [
            "mosh-server",
            "mosh-server --version",
            "which mosh-server new",
            "apt-get install mosh-server new",
            "echo mosh-server new",
            "not-mosh-server new",
            "env",
            "",
        ] {
            assert!(!is_bootstrap(command.as_bytes()), "{command}");
        }
        assert!(!is_bootstrap(b"\xff; mosh-server new"));
    }
}
