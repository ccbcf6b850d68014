//! What a server's identification string (RFC 4253 section 4.2) says about the shell that gets its commands.

/// Whether commands go to a POSIX shell there: with OpenSSH and dropbear they do, except for OpenSSH's port to Windows,
/// which hands them to cmd.exe or PowerShell. Of others nobody knows. The server's key stands behind what it says.
pub(super) fn has_posix_shell(version: &[u8]) -> bool {
    let Some(software) = version.strip_prefix(b"SSH-2.0-") else { return false };
    match software.strip_prefix(b"OpenSSH_") {
        Some(rest) => rest.first().is_some_and(u8::is_ascii_digit) && !contains(rest, b"indows"),
        None => software.starts_with(b"dropbear"),
    }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_servers_have_a_posix_shell() {
        for version in ["SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3", "SSH-2.0-OpenSSH_10.0", "SSH-2.0-dropbear_2022.83"] {
            assert!(has_posix_shell(version.as_bytes()), "{version}");
        }
        for version in [
            "SSH-2.0-OpenSSH_for_Windows_9.5",
            "SSH-2.0-OpenSSH_7.7p1 Microsoft_Windows",
            "SSH-2.0-9.99 FlowSsh: Bitvise SSH Server (WinSSHD)",
            "SSH-2.0-Go",
            "SSH-1.99-OpenSSH_3.4",
            "",
        ] {
            assert!(!has_posix_shell(version.as_bytes()), "{version}");
        }
    }
}
