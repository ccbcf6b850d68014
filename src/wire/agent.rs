//! A forwarded agent (draft-ietf-sshm-ssh-agent): the upstream asks, the client's agent answers.
//!
//! What the upstream may ask is small: which keys there are, for signatures, and to bind the connection. Adding keys is
//! refused, because the private half would cross here; so are removing and locking, because nobody lends an agent for
//! that. Here "output" are requests and "input" are answers: the upstream is the one that opens such a channel.

use bytes::{Buf, Bytes, BytesMut};
use serde_json::json;

use super::{Fact, Outcome, Reading, Step, Stop};

/// The longest message (`AGENT_MAX_LEN` of OpenSSH).
const LONGEST: usize = 256 * 1024;

/// Requests (section 6.1 of the draft) that are passed on.
const REQUEST_IDENTITIES: u8 = 11;
const SIGN_REQUEST: u8 = 13;
const EXTENSION: u8 = 27;

/// Of the extensions, the one with which OpenSSH says where the agent is lent to.
const BIND: &[u8] = b"session-bind@openssh.com";

const MALFORMED: Stop = Stop { words: "this is not how an agent is asked" };

/// Follows one connection to the client's agent.
#[derive(Default)]
pub struct Agent {
    held: BytesMut,
}

impl Reading for Agent {
    fn input(&mut self, data: Bytes, _: bool, steps: &mut Vec<Step>) -> Result<(), Stop> {
        // Signatures and public keys: nothing that is secret, and nothing that is asked about.
        steps.push(Step::Pass(data));
        Ok(())
    }

    fn output(&mut self, data: Bytes, _: bool, steps: &mut Vec<Step>) -> Result<(), Stop> {
        self.held.extend_from_slice(&data);
        while let Some(message) = self.message()? {
            judge(message, steps)?;
        }
        Ok(())
    }

    fn is_between(&self) -> bool {
        false
    }

    fn finish(&mut self, _: &mut Vec<Step>) {}
}

impl Agent {
    /// The next whole message, with its length before it.
    fn message(&mut self) -> Result<Option<Bytes>, Stop> {
        let Some(length) = self.held.first_chunk::<4>() else { return Ok(None) };
        let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| MALFORMED)?;
        if length == 0 || length > LONGEST {
            return Err(MALFORMED);
        }
        Ok((self.held.len() >= 4 + length).then(|| self.held.split_to(4 + length).freeze()))
    }
}

fn judge(message: Bytes, steps: &mut Vec<Step>) -> Result<(), Stop> {
    let mut body = message.slice(4..);
    let kind = body.get_u8();
    match kind {
        REQUEST_IDENTITIES => {}
        SIGN_REQUEST => {
            let key = string(&mut body).ok_or(MALFORMED)?;
            let about = json!({ "operation": "sign", "key": fingerprint(&key) });
            steps.push(Step::Tell(Fact { kind: "ssh_agent_use", outcome: Outcome::Done, about }));
        }
        EXTENSION if string(&mut body).ok_or(MALFORMED)? == BIND => {}
        // Its contents may be a private key: not written down, and not passed on. An answer cannot be put between the
        // agent's own without counting them, so the connection ends.
        _ => {
            let about = json!({ "operation": operation(kind), "reason": "a lent agent is asked for signatures only" });
            steps.push(Step::Tell(Fact { kind: "ssh_agent_use", outcome: Outcome::Denied, about }));
            steps.push(Step::RefuseUnkept(message.len() as u64));
            return Err(Stop { words: "a lent agent is asked for signatures only" });
        }
    }
    steps.push(Step::Pass(message));
    Ok(())
}

/// What a request is called in the draft.
fn operation(kind: u8) -> &'static str {
    match kind {
        17 | 25 => "add",
        18 | 19 => "remove",
        20 | 21 | 26 => "smartcard",
        22 | 23 => "lock",
        EXTENSION => "extension",
        _ => "unknown",
    }
}

/// As `ssh-keygen -l` prints it.
fn fingerprint(key: &[u8]) -> String {
    use base64::Engine as _;
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, key);
    format!("SHA256:{}", base64::engine::general_purpose::STANDARD_NO_PAD.encode(digest))
}

/// A string (RFC 4251 section 5).
fn string(body: &mut Bytes) -> Option<Bytes> {
    let length = usize::try_from(body.try_get_u32().ok()?).ok()?;
    (length <= body.len()).then(|| body.split_to(length))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u8, strings: &[&[u8]]) -> Vec<u8> {
        let mut body = vec![kind];
        for string in strings {
            body.extend(u32::try_from(string.len()).unwrap().to_be_bytes());
            body.extend_from_slice(string);
        }
        let mut whole = u32::try_from(body.len()).unwrap().to_be_bytes().to_vec();
        whole.extend(body);
        whole
    }

    fn ask(messages: &[u8], chunk: usize) -> (Result<(), Stop>, Vec<u8>, Vec<Fact>) {
        let (mut agent, mut steps) = (Agent::default(), Vec::new());
        let chunks = messages.chunks(chunk).map(Bytes::copy_from_slice);
        let asked = chunks.map(|data| agent.output(data, true, &mut steps)).find(Result::is_err).unwrap_or(Ok(()));
        let mut passed = Vec::new();
        let mut facts = Vec::new();
        for step in steps {
            match step {
                Step::Pass(data) => passed.extend_from_slice(&data),
                Step::Tell(fact) => facts.push(fact),
                _ => {}
            }
        }
        (asked, passed, facts)
    }

    #[test]
    fn keys_are_listed_and_sign_and_each_signature_is_told() {
        let mut all = message(11, &[]);
        all.extend(message(27, &[BIND, b"hostkey", b"id", b"signature"]));
        all.extend(message(13, &[b"key blob", b"data"]));
        for chunk in [1, 7, all.len()] {
            let (asked, passed, facts) = ask(&all, chunk);
            assert_eq!((asked, passed), (Ok(()), all.clone()));
            assert_eq!(facts.len(), 1);
            assert_eq!(facts[0].about["operation"], "sign");
            assert!(facts[0].about["key"].as_str().unwrap().starts_with("SHA256:"));
        }
    }

    #[test]
    fn private_keys_never_pass_and_nothing_is_removed_or_locked() {
        for kind in [0, 1, 12, 17, 18, 19, 20, 21, 22, 23, 25, 26, 255] {
            let (asked, passed, facts) = ask(&message(kind, &[b"ssh-ed25519", b"SECRET"]), 64);
            assert!(asked.is_err() && passed.is_empty(), "{kind}");
            assert_eq!(facts[0].outcome, Outcome::Denied, "{kind}");
        }
        assert!(ask(&message(27, &[b"other@example.com"]), 64).0.is_err());
    }

    #[test]
    fn what_is_no_request_ends_it() {
        for bad in [b"\0\0\0\0".as_slice(), b"\xff\xff\xff\xff", b"\0\0\0\x02\x0d\0", b"\0\0\0\x06\x0d\0\0\0\xffx"] {
            assert_eq!(ask(bad, 64).0, Err(MALFORMED), "{bad:?}");
        }
    }
}
