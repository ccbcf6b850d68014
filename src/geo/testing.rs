//! A database that knows nothing, for tests that only need one to be there.

/// The bytes of such a file (MaxMind-DB-spec 2.0): a tree of one node with two empty records, no data, the metadata.
pub(crate) fn empty_database() -> Vec<u8> {
    let word = |text: &str| [&[2 << 5 | text.len() as u8], text.as_bytes()].concat();
    let two = |number: u8| vec![5 << 5 | 1, number];
    let fields: [(&str, Vec<u8>); 9] = [
        ("binary_format_major_version", two(2)),
        ("binary_format_minor_version", two(0)),
        ("build_epoch", vec![1, 9 - 7, 1]),
        ("database_type", word("Test")),
        ("description", vec![7 << 5]),
        ("ip_version", two(6)),
        ("languages", vec![0, 11 - 7]),
        ("node_count", vec![6 << 5 | 1, 1]),
        ("record_size", two(24)),
    ];
    let mut file = vec![0, 0, 1, 0, 0, 1];
    file.extend([0; 16]);
    file.extend(b"\xab\xcd\xefMaxMind.com");
    file.push(7 << 5 | 9);
    file.extend(fields.iter().flat_map(|(key, value)| [word(key), value.clone()].concat()));
    file
}
