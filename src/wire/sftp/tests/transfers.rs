//! Files: what is counted and summed, in which order requests and answers come, and what is kept.

use aws_lc_rs::digest::{SHA256, digest};
use serde_json::{Value, json};

use super::talk::*;
use crate::wire::Keep;
use crate::wire::{Outcome, Reading};

fn sha256(contents: &[u8]) -> Value {
    digest(&SHA256, contents).as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<String>().into()
}

/// The one file's fact, after CLOSE by id 99.
fn closed(talk: &mut Talk) -> (Outcome, Value) {
    talk.both(&close(99, b"h"), &status(99, 0));
    let mut told = talk.told();
    assert_eq!(told.len(), 1, "{told:?}");
    told.remove(0)
}

#[test]
fn a_download() {
    let mut talk = Talk::with_file(1);
    talk.both(&read(1, b"h", 0), &data(1, b"hello "));
    talk.both(&read(2, b"h", 6), &data(2, b"world"));
    talk.both(&read(3, b"h", 11), &status(3, 1));
    assert_eq!(
        closed(&mut talk),
        (
            Outcome::Done,
            json!({
                "operation": "read", "path": "a", "flags": ["read"], "bytes_read": 11, "bytes_written": 0,
                "sha256": sha256(b"hello world"), "contents_kept": false, "complete": true
            })
        )
    );
    assert_eq!(talk.seen.unkept, [0, 11]);
    talk.finish();
    let (_, summary) = talk.told().remove(0);
    assert_eq!(
        (&summary["files_read"], &summary["bytes_read"], &summary["files_written"]),
        (&1.into(), &11.into(), &0.into())
    );
}

#[test]
fn an_upload() {
    let mut talk = Talk::begun(true);
    talk.both(&packet(3, 0, &[S(b"a"), N(0x1a), N(4), N(0o100640)]), &handle(0, b"h"));
    talk.client(&write(1, b"h", 0, b"hello ")).unwrap();
    talk.client(&write(2, b"h", 6, b"world")).unwrap();
    talk.server(&[status(2, 0), status(1, 0)].concat()).unwrap();
    assert_eq!(
        closed(&mut talk),
        (
            Outcome::Done,
            json!({
                "operation": "write", "path": "a", "flags": ["write", "create", "truncate"], "mode": "0640",
                "bytes_read": 0, "bytes_written": 11, "sha256": sha256(b"hello world"), "contents_kept": false,
                "complete": true
            })
        )
    );
    assert_eq!(talk.seen.unkept, [11, 0]);
    talk.finish();
    let (_, summary) = talk.told().remove(0);
    assert_eq!((&summary["files_written"], &summary["bytes_written"]), (&1.into(), &11.into()));
}

/// One thing that a client does with a file, and the server's answer.
type Exchange = (Vec<u8>, Vec<u8>);

/// Words for it, the flags of OPEN, what is done, and the contents that the sum is of.
type Case = (&'static str, u32, Vec<Exchange>, Option<&'static [u8]>);

#[test]
fn what_has_a_sum() {
    let r = |offset, contents: &[u8]| -> Exchange { (read(1, b"h", offset), data(1, contents)) };
    let w = |offset, contents: &[u8]| -> Exchange { (write(1, b"h", offset, contents), status(1, 0)) };
    let end = |offset| -> Exchange { (read(1, b"h", offset), status(1, 1)) };
    let copied = || -> Exchange { (extended(1, "copy-data", &[S(b"h"), L(0), L(0), S(b"h"), L(0)]), status(1, 0)) };
    let table: Vec<Case> = vec![
        ("nothing", 1, vec![], None),
        ("an empty file, read to its end", 1, vec![end(0)], Some(b"")),
        ("an end elsewhere", 1, vec![end(1)], None),
        ("an empty file, made", 0x1a, vec![], Some(b"")),
        ("a file that may have had contents", 2, vec![], None),
        ("in order", 1, vec![r(0, b"a"), r(1, b"b"), end(2)], Some(b"ab")),
        ("not from the beginning", 1, vec![r(1, b"b")], None),
        ("with a gap", 1, vec![r(0, b"a"), r(2, b"c")], None),
        ("again", 1, vec![r(0, b"a"), r(0, b"a")], None),
        ("written in order", 0x1a, vec![w(0, b"a"), w(1, b"b")], Some(b"ab")),
        ("resumed", 2, vec![w(1, b"b")], None),
        ("written backwards", 0x1a, vec![w(1, b"b"), w(0, b"a")], None),
        ("appended", 6, vec![w(0, b"a")], None),
        ("both ways", 3, vec![w(0, b"a"), r(0, b"a")], None),
        ("read after truncation", 0x1b, vec![r(0, b"a")], None),
        ("failed", 0x1a, vec![w(0, b"a"), (write(1, b"h", 1, b"b"), status(1, 4))], None),
        ("copied by the server", 0x1b, vec![copied()], None),
    ];
    for (what, flags, exchanges, sum) in table {
        let mut talk = Talk::with_file(flags);
        for (request, reply) in exchanges {
            talk.both(&request, &reply);
        }
        talk.both(&close(99, b"h"), &status(99, 0));
        let (_, about) = talk.told().pop().unwrap();
        assert_eq!(about["sha256"], sum.map_or(Value::Null, sha256), "{what}");
    }
}

#[test]
fn operations_by_flags() {
    for (flags, operation) in [
        (0, "read"),
        (1, "read"),
        (8, "read"),
        (2, "write"),
        (4, "write"),
        (0x1a, "write"),
        (3, "read_write"),
        (5, "read_write"),
    ] {
        assert_eq!(closed(&mut Talk::with_file(flags)).1["operation"], operation, "{flags:x}");
    }
    assert_eq!(
        closed(&mut Talk::with_file(0x3f)).1["flags"],
        json!(["read", "write", "append", "create", "truncate", "exclusive"])
    );
}

#[test]
fn contents_are_kept_where_that_is_asked_for() {
    let mut talk = Talk::new(Keep::Contents);
    talk.both(&init(3), &version(3));
    talk.both(&open(0, "a", 3), &handle(0, b"h"));
    talk.both(&write(1, b"h", 0, b"up"), &status(1, 0));
    talk.both(&read(1, b"h", 0), &data(1, b"down"));
    assert_eq!(talk.seen.kept, [talk.seen.to_server.clone(), talk.seen.to_client.clone()]);
    assert_eq!(closed(&mut talk).1["contents_kept"], true);
    talk.may_write = false;
    talk.client(&write(1, b"h", 0, b"up")).unwrap();
    assert_eq!(talk.seen.refused, write(1, b"h", 0, b"up"));
}

#[test]
fn a_close_overtakes() {
    // The server of these answers in another order: CLOSE first, and the handle is another file's before that.
    let mut talk = Talk::with_file(2);
    talk.client(&write(1, b"h", 0, b"one")).unwrap();
    talk.client(&close(2, b"h")).unwrap();
    talk.client(&open(3, "b", 2)).unwrap();
    talk.server(&handle(3, b"h")).unwrap();
    talk.client(&write(4, b"h", 0, b"two!")).unwrap();
    talk.server(&status(2, 0)).unwrap();
    assert!(talk.told().is_empty(), "a write is not answered");
    talk.server(&status(1, 0)).unwrap();
    let (_, about) = talk.told().remove(0);
    assert_eq!((&about["path"], &about["bytes_written"]), (&"a".into(), &3.into()));
    assert_eq!(about["sha256"], sha256(b"one"));
    talk.server(&status(4, 0)).unwrap();
    let (_, about) = closed(&mut talk);
    assert_eq!((&about["path"], &about["bytes_written"]), (&"b".into(), &4.into()));
}

#[test]
fn what_is_cut_off_is_told() {
    let mut talk = Talk::with_file(3);
    talk.both(&write(1, b"h", 0, b"x"), &status(1, 0));
    talk.client(&write(2, b"h", 1, b"y")).unwrap();
    talk.client(&open(3, "never answered", 1)).unwrap();
    talk.finish();
    let told = talk.told();
    assert_eq!(told.len(), 3);
    assert_eq!(
        (told[0].0, &told[0].1["bytes_written"], &told[0].1["complete"]),
        (Outcome::Done, &1.into(), &false.into())
    );
    assert_eq!(told[0].1["sha256"], Value::Null, "the server may have more than it said");
    assert_eq!(
        told[1],
        (Outcome::Failed, json!({"operation": "read", "path": "never answered", "flags": ["read"], "complete": false}))
    );
    assert_eq!(told[2].1["incomplete"], 2);
    // In the middle of contents.
    let mut talk = Talk::with_file(1);
    talk.client(&read(1, b"h", 0)).unwrap();
    talk.server(&data(1, b"hello")[..15]).unwrap();
    talk.finish();
    let about = talk.told().remove(0).1;
    assert_eq!((&about["bytes_read"], &about["sha256"]), (&2.into(), &sha256(b"he")));
}

#[test]
fn failures_of_a_file() {
    let failed = json!({"code": 4, "message": "as it is"});
    let mut talk = Talk::begun(true);
    talk.both(&open(1, "a", 1), &status(1, 4));
    let about = json!({"operation": "read", "path": "a", "flags": ["read"], "status": failed});
    assert_eq!(talk.told(), [(Outcome::Failed, about)]);
    for (request, reply) in [(read(1, b"h", 0), status(1, 4)), (write(1, b"h", 0, b"x"), status(1, 4))] {
        let mut talk = Talk::with_file(3);
        talk.both(&request, &reply);
        let (outcome, about) = closed(&mut talk);
        assert_eq!((outcome, &about["status"], &about["bytes_written"]), (Outcome::Failed, &failed, &0.into()));
    }
    // A full disk over the network is often told only then.
    let mut talk = Talk::with_file(2);
    talk.both(&close(1, b"h"), &status(1, 4));
    let (outcome, about) = talk.told().remove(0);
    assert_eq!((outcome, &about["status"], &about["complete"]), (Outcome::Failed, &failed, &true.into()));
}

#[test]
fn an_answer_may_stand_between_packets_only() {
    let mut talk = Talk::with_file(1);
    talk.client(&read(1, b"h", 0)).unwrap();
    let packets = [data(1, b"hello"), name(2, &["a", "b"])].concat();
    talk.client(&packet(16, 2, &[S(b"x")])).unwrap();
    let between: Vec<_> = packets
        .iter()
        .map(|byte| {
            talk.server(&[*byte]).unwrap();
            talk.files.is_between()
        })
        .collect();
    // Heads are passed as one, so until then nothing of them has been.
    let (first, second) = (data(1, b"hello").len(), name(2, &["a", "b"]).len());
    let expected = [vec![true; 12], vec![false; first - 13], vec![true; 13], vec![false; second - 13], vec![true]];
    assert_eq!(between, expected.concat());
}

#[test]
fn payloads_are_not_held_or_copied() {
    let mut talk = Talk::with_file(2);
    let whole = bytes::Bytes::from(write(1, b"h", 0, &[7; 100_000]));
    let mut steps = Vec::new();
    talk.files.input(whole.slice(..50_000), true, &mut steps).unwrap();
    talk.files.input(whole.slice(50_000..), true, &mut steps).unwrap();
    let range = whole.as_ptr_range();
    let passed: Vec<_> = steps
        .iter()
        .map(|step| match step {
            crate::wire::Step::Pass(bytes) | crate::wire::Step::PassUnkept(bytes) => {
                assert!(range.contains(&bytes.as_ptr()), "copied");
                bytes.len()
            }
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(passed, [26, 49_974, whole.len() - 50_000]);
}
