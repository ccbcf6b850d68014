//! How the gateway logs in at a server. The person has no part in it and sees no credential.

use std::sync::Arc;

use jiff::Timestamp;
use russh::MethodKind;
use russh::client::{AuthResult, Handle, KeyboardInteractiveAuthResponse};
use russh::keys::{HashAlg, PrivateKeyWithHashAlg, decode_secret_key};
use secrecy::{ExposeSecret, SecretString};

use super::host_key::Verifier;
use crate::identity::ssh_ca_upstream::{OnBehalf, UpstreamCa};
use crate::socket::SshCredential;

/// Questions of a server that asks by keyboard-interactive; the password answers one of them.
const MOST_QUESTIONS: usize = 4;

/// On whose behalf, and who vouches for it where the server wants a certificate.
#[derive(Clone, Copy)]
pub(in crate::upstream) struct Who<'a> {
    pub(in crate::upstream) on_behalf: &'a OnBehalf,
    pub(in crate::upstream) ca: &'a UpstreamCa,
}

/// Logs in as `user`. The error is in words for the user.
pub(super) async fn log_in(
    handle: &mut Handle<Verifier>,
    user: &str,
    credential: &SshCredential,
    who: &Who<'_>,
) -> Result<(), String> {
    let outcome = match credential {
        SshCredential::PrivateKey { key, passphrase } => with_key(handle, user, key, passphrase.as_ref()).await?,
        SshCredential::Password(password) => with_password(handle, user, password).await,
        SshCredential::Certificate => with_certificate(handle, user, who).await?,
    };
    match (outcome, credential) {
        (Ok(true), _) => Ok(()),
        (Ok(false), SshCredential::Certificate) => {
            Err("the server refused the gateway's certificate for this login; tell \
                                                        whoever runs the server"
                .into())
        }
        (Ok(false), _) => Err("the server refused the gateway's credential; tell whoever runs the gateway".into()),
        (Err(_), _) => Err("the server closed the connection during the login".into()),
    }
}

async fn with_certificate(
    handle: &mut Handle<Verifier>,
    user: &str,
    who: &Who<'_>,
) -> Result<Result<bool, russh::Error>, String> {
    let made = who.ca.credential(who.on_behalf, user, Timestamp::now());
    let made = made.map_err(|_| "the gateway cannot make a certificate; tell whoever runs the gateway")?;
    let answer = handle.authenticate_openssh_cert(user, made.key, made.certificate).await;
    Ok(answer.map(|result| result.success()))
}

async fn with_key(
    handle: &mut Handle<Verifier>,
    user: &str,
    key: &SecretString,
    passphrase: Option<&SecretString>,
) -> Result<Result<bool, russh::Error>, String> {
    let (key, passphrase) = (key.clone(), passphrase.cloned());
    // A passphrase is made to be slow.
    let decoded = tokio::task::spawn_blocking(move || {
        decode_secret_key(key.expose_secret(), passphrase.as_ref().map(ExposeSecret::expose_secret)).ok()
    });
    let Ok(Some(key)) = decoded.await else {
        return Err(
            "the gateway's private key cannot be read, or not with its passphrase; tell whoever runs the gateway"
                .into(),
        );
    };
    let hash = match key.algorithm().is_rsa() {
        // Never SHA-1: where the server announces nothing, SHA-256 is tried.
        true => match handle.best_supported_rsa_hash().await {
            Ok(Some(Some(hash))) => Some(hash),
            _ => Some(HashAlg::Sha256),
        },
        false => None,
    };
    let key = PrivateKeyWithHashAlg::new(Arc::new(key), hash);
    Ok(handle.authenticate_publickey(user, key).await.map(|result| result.success()))
}

async fn with_password(
    handle: &mut Handle<Verifier>,
    user: &str,
    password: &SecretString,
) -> Result<bool, russh::Error> {
    let password = password.expose_secret();
    match handle.authenticate_password(user, password).await? {
        AuthResult::Success => return Ok(true),
        AuthResult::Failure { remaining_methods, .. } => {
            if !remaining_methods.contains(&MethodKind::KeyboardInteractive) {
                return Ok(false);
            }
        }
    }
    // Many servers ask for the password by keyboard-interactive (RFC 4256): answer one hidden prompt, once.
    let mut answer = handle.authenticate_keyboard_interactive_start(user, None).await?;
    let mut asked = false;
    for _ in 0..MOST_QUESTIONS {
        answer = match answer {
            KeyboardInteractiveAuthResponse::Success => return Ok(true),
            KeyboardInteractiveAuthResponse::Failure { .. } => return Ok(false),
            KeyboardInteractiveAuthResponse::InfoRequest { prompts, .. } => {
                let hidden = prompts.iter().filter(|prompt| !prompt.echo).count();
                if hidden > 1 || prompts.len() != hidden || (asked && hidden == 1) {
                    return Ok(false);
                }
                asked |= hidden == 1;
                let responses = prompts.iter().map(|_| password.to_owned()).collect();
                handle.authenticate_keyboard_interactive_respond(responses).await?
            }
        };
    }
    Ok(false)
}
