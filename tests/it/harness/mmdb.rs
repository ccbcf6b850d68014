//! Writes small databases in MaxMind's format (MaxMind-DB-spec 2.0): a tree over 128 bits, with IPv4 below `::/96`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use serde_json::Value;

const RECORD_BITS: u32 = 32;
const MARKER: &[u8] = b"\xab\xcd\xefMaxMind.com";

#[derive(Clone, Copy)]
enum Branch {
    Nothing,
    Node(usize),
    Data(usize),
}

/// Writes a file that says this about these networks, and replaces what was there in one step.
pub fn write(path: &Path, entries: &[(&str, Value)]) {
    let new = path.with_extension("new");
    std::fs::write(&new, database(entries)).unwrap();
    std::fs::rename(new, path).unwrap();
}

fn database(entries: &[(&str, Value)]) -> Vec<u8> {
    let mut nodes = vec![[Branch::Nothing; 2]];
    let mut data = Vec::new();
    for (network, value) in entries {
        let at = data.len();
        encode(value, &mut data);
        insert(&mut nodes, network, at);
    }
    let count = nodes.len();
    let mut file = Vec::new();
    for branch in nodes.iter().flatten() {
        let record = match branch {
            Branch::Nothing => count,
            Branch::Node(node) => *node,
            Branch::Data(at) => count + 16 + at,
        };
        file.extend((record as u32).to_be_bytes());
    }
    file.extend([0; 16]);
    file.extend(data);
    file.extend(MARKER);
    file.extend(metadata(count as u32));
    file
}

fn insert(nodes: &mut Vec<[Branch; 2]>, network: &str, data: usize) {
    let network: ipnet::IpNet = network.parse().unwrap();
    let (bits, length) = match network.addr() {
        IpAddr::V4(v4) => (u128::from(v4.to_bits()), 96 + usize::from(network.prefix_len())),
        IpAddr::V6(v6) => (v6.to_bits(), usize::from(network.prefix_len())),
    };
    let mut node = 0;
    for depth in 0..length {
        let side = (bits >> (127 - depth) & 1) as usize;
        if depth + 1 == length {
            nodes[node][side] = Branch::Data(data);
            return;
        }
        node = match nodes[node][side] {
            Branch::Node(next) => next,
            Branch::Nothing => {
                nodes.push([Branch::Nothing; 2]);
                nodes[node][side] = Branch::Node(nodes.len() - 1);
                nodes.len() - 1
            }
            Branch::Data(_) => panic!("{network} lies in a network that is there already"),
        };
    }
}

fn metadata(nodes: u32) -> Vec<u8> {
    let words = |text: &str| encoded(&Value::from(text));
    let two = |number: u16| [&[5 << 5 | 2][..], &number.to_be_bytes()].concat();
    let fields: BTreeMap<&str, Vec<u8>> = [
        ("binary_format_major_version", two(2)),
        ("binary_format_minor_version", two(0)),
        ("build_epoch", [&[8, 9 - 7][..], &1_700_000_000_u64.to_be_bytes()].concat()),
        ("database_type", words("Test")),
        ("description", vec![7 << 5]),
        ("ip_version", two(6)),
        ("languages", vec![0, 11 - 7]),
        ("node_count", [&[6 << 5 | 4][..], &nodes.to_be_bytes()].concat()),
        ("record_size", two(RECORD_BITS as u16)),
    ]
    .into();
    let mut out = vec![7 << 5 | fields.len() as u8];
    for (key, value) in fields {
        out.extend(words(key));
        out.extend(value);
    }
    out
}

fn encoded(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    encode(value, &mut out);
    out
}

/// Texts and maps, which is all that places need.
fn encode(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::String(text) => {
            head(2, text.len(), out);
            out.extend(text.as_bytes());
        }
        Value::Object(map) => {
            head(7, map.len(), out);
            for (key, value) in map {
                encode(&Value::from(key.as_str()), out);
                encode(value, out);
            }
        }
        other => panic!("not needed so far: {other}"),
    }
}

fn head(kind: u8, length: usize, out: &mut Vec<u8>) {
    match length {
        0..29 => out.push(kind << 5 | length as u8),
        _ => out.extend([kind << 5 | 29, u8::try_from(length - 29).expect("short texts only")]),
    }
}
