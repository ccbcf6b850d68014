//! OpenSSH's patterns for host names (ssh_config(5), "PATTERNS"): `*` stands for any run of characters, `?` for one. Case
//! does not count. Pure.

/// Whether `name` is one that `pattern` describes. Time grows with the product of the lengths at worst.
pub(super) fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut p, mut n) = (0, 0);
    // Where the last `*` was, and the first byte of the name that it has not taken yet.
    let mut star: Option<(usize, usize)> = None;
    while let Some(byte) = name.get(n) {
        match (pattern.get(p), star) {
            (Some(b'*'), _) => {
                star = Some((p, n));
                p += 1;
            }
            (Some(expected), _) if *expected == b'?' || expected.eq_ignore_ascii_case(byte) => {
                p += 1;
                n += 1;
            }
            (_, Some((at, taken))) => {
                star = Some((at, taken + 1));
                p = at + 1;
                n = taken + 1;
            }
            (_, None) => return false,
        }
    }
    pattern.iter().skip(p).all(|byte| *byte == b'*')
}

/// Whether a comma-separated list describes one of these names. An entry with `!` before it that describes one of them
/// forbids, whatever else is in the list.
pub(super) fn list_matches(list: &str, names: &[&str]) -> bool {
    let describes = |pattern: &str| names.iter().any(|name| matches(pattern, name));
    let mut found = false;
    for entry in list.split(',') {
        match entry.strip_prefix('!') {
            Some(forbidden) if describes(forbidden) => return false,
            Some(_) => {}
            None => found |= describes(entry),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_and_question_marks() {
        for (pattern, name, expected) in [
            ("web-1", "web-1", true),
            ("web-1", "WEB-1", true),
            ("web-1", "web-10", false),
            ("web-?", "web-1", true),
            ("web-?", "web-", false),
            ("web-?", "web-10", false),
            ("*.example.com", "a.b.example.com", true),
            ("*.example.com", "example.com", false),
            ("*a*b", "xaxxb", true),
            ("*a*b", "xaxxbc", false),
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("?", "", false),
            ("[*]:22?2", "[10.0.0.5]:2222", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
        assert!(!matches(&"*a".repeat(100), &"b".repeat(10_000)), "bounded");
    }

    #[test]
    fn an_entry_that_forbids_wins_wherever_it_stands() {
        for (list, expected) in [
            ("a,b", true),
            ("b,c", false),
            ("*,!a", false),
            ("!a,*", false),
            ("!b,*", true),
            ("!b", false),
            ("", false),
            ("[a]:22", true),
            ("*,![a]:22", false),
        ] {
            assert_eq!(list_matches(list, &["a", "[a]:22"]), expected, "{list}");
        }
    }
}
