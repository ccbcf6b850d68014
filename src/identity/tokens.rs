//! API tokens: opaque secrets with an expiry, known to the book by their SHA-256 only, and what their bearers may do.
//!
//! A token has 256 random bits, so that it can neither be guessed nor found from its hash, and a fast hash is enough:
//! there is nothing for a slow one to protect. Looking the hash up tells an attacker's clock nothing about the secret.
//!
//! There are two kinds. A sign-in's token acts for its person, with the role that their groups have whenever it is
//! used. Any other has the scopes that it was made with, and belongs to nobody.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use aws_lc_rs::{digest, rand};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ipnet::IpNet;
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::Identity;
use super::people::People;
pub use crate::store::Scope;
use crate::store::{BrowserSignIn, NewToken, Owner, Store, StoreError, TokenRow, ValidToken};

/// Issues and verifies API tokens. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Tokens {
    store: Store,
    roles: Arc<ArcSwap<RoleGroups>>,
    /// What is known of people since their last sign-in.
    people: People,
    /// The identity provider in force: tokens of people whom another one vouched for count for nothing.
    issuer: Arc<str>,
}

/// Which groups have which role.
#[derive(Clone, Debug, Default)]
pub struct RoleGroups {
    /// Groups of administrators.
    pub admin: Vec<String>,
    /// Groups of operators.
    pub operator: Vec<String>,
    /// Groups of auditors.
    pub auditor: Vec<String>,
}

/// What a person may do beside using sockets. Everybody has one; the greatest of their groups' counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Reads their own sessions and recordings, and ends their own sessions.
    User,
    /// Reads and watches everybody's.
    Auditor,
    /// Also ends everybody's.
    Operator,
    /// Everything, typed input too.
    Admin,
}

/// A token that was just made. The secret is its only copy.
#[derive(Clone, Debug)]
pub struct Issued {
    /// What the API tells of it.
    pub row: TokenRow,
    /// What its bearer shows.
    pub secret: SecretString,
}

impl Tokens {
    /// From now on these groups have roles.
    pub fn set_roles(&self, roles: RoleGroups) {
        self.roles.store(Arc::new(roles));
    }

    /// Tokens kept in this book, of people with these roles, signed in at this identity provider.
    pub fn new(store: Store, roles: RoleGroups, issuer: &str) -> Self {
        Self { store, roles: Arc::new(ArcSwap::from_pointee(roles)), people: People::default(), issuer: issuer.into() }
    }

    /// The same; what groups people are in is what is known since their last sign-in.
    pub fn of_people(self, people: People) -> Self {
        Self { people, ..self }
    }

    /// A token that counts for `lifetime` from now, only from `networks` if there are any. `by` made it.
    pub async fn issue(
        &self,
        scopes: Vec<Scope>,
        networks: Vec<IpNet>,
        label: &str,
        lifetime: Duration,
        by: Option<&str>,
    ) -> Result<Issued, TokenError> {
        let (secret, new) = for_a_program(label, lifetime)?;
        let new = NewToken { scopes, networks, created_by: by.map(str::to_owned), ..new };
        self.store.add_token(new.clone()).await?;
        Ok(Issued { row: row(new), secret })
    }

    /// The same, for somebody who asks for it. A token that belongs to nobody makes others only within its own limits, so
    /// that it neither outgrows nor outlives itself.
    pub async fn issue_for(
        &self,
        caller: &Caller,
        scopes: Vec<Scope>,
        networks: Vec<IpNet>,
        label: &str,
        lifetime: Duration,
    ) -> Result<Issued, TokenError> {
        let (secret, new) = for_a_program(label, lifetime)?;
        let (created_by, maker) = (Some(caller.name().to_owned()), Some(caller.token.token_id));
        let new = NewToken { scopes, networks, created_by, maker, ..new };
        if !caller.may_make(&new) {
            return Err(TokenError::Outgrows);
        }
        match self.store.add_token(new.clone()).await? {
            true => Ok(Issued { row: row(new), secret }),
            false => Err(TokenError::Over),
        }
    }

    /// A token that acts for the person of a sign-in in the book, until it ends.
    pub async fn issue_for_sign_in(
        &self,
        sign_in: Uuid,
        identity: &Identity,
        label: &str,
    ) -> Result<SecretString, TokenError> {
        let (secret, new) = new_token(label, Timestamp::now(), identity.expires())?;
        self.store.add_token(of_sign_in(new, sign_in, identity)).await?;
        Ok(secret)
    }

    /// Writes a sign-in in a browser into the book, and makes a token for it that counts for `lifetime` at most.
    pub async fn issue_in_browser(
        &self,
        identity: &Identity,
        client_ip: IpAddr,
        label: &str,
        lifetime: Duration,
    ) -> Result<Issued, TokenError> {
        let created = Timestamp::now();
        let expires = created.checked_add(lifetime).map_err(|_| TokenError::Lifetime)?.min(identity.expires());
        let (secret, new) = new_token(label, created, expires)?;
        let sign_in = BrowserSignIn { sign_in_id: Uuid::now_v7(), identity: identity.clone(), client_ip };
        let new = of_sign_in(new, sign_in.sign_in_id, identity);
        self.store.add_browser_token(sign_in, new.clone()).await?;
        Ok(Issued { row: row(new), secret })
    }

    /// Who calls with this token from this address; `None` when it is no token of ours, counts no more, or not there.
    pub async fn verify(&self, token: &str, from: IpAddr) -> Result<Option<Caller>, TokenError> {
        if token.len() > LONGEST || !token.starts_with(PREFIX) {
            return Ok(None);
        }
        let now = Timestamp::now();
        let Some(ValidToken { row, identity }) = self.store.valid_token(hash(token), now).await? else {
            return Ok(None);
        };
        if identity.as_ref().is_some_and(|who| who.issuer() != &*self.issuer) {
            tracing::info!(token = %row.token_id, "a token of another identity provider's sign-in was shown");
            return Ok(None);
        }
        let from = from.to_canonical();
        if !row.networks.is_empty() && !row.networks.iter().any(|network| network.contains(&from)) {
            tracing::warn!(token = %row.token_id, %from, "a token was shown from outside its networks");
            return Ok(None);
        }
        self.store.note_token_use(&row, from, now);
        let rights = match identity.map(|who| self.people.update(who)) {
            Some(identity) => Rights::Person { role: self.role_of(&identity), identity: Box::new(identity) },
            // A sign-in's token has no scopes of its own, so that without a person it may do nothing.
            None => Rights::Scopes(row.scopes.clone()),
        };
        Ok(Some(Caller { name: name(&row, &rights), token: row, rights }))
    }

    /// The role that this person's groups have now.
    pub fn role_of(&self, who: &Identity) -> Role {
        let is_in = |groups: &[String]| who.groups().iter().any(|group| groups.contains(group));
        let roles = self.roles.load();
        let RoleGroups { admin, operator, auditor } = &**roles;
        match () {
            () if is_in(admin) => Role::Admin,
            () if is_in(operator) => Role::Operator,
            () if is_in(auditor) => Role::Auditor,
            () => Role::User,
        }
    }
}

/// Somebody who showed a token that counts. Made by [`Tokens::verify`] alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    name: String,
    token: TokenRow,
    rights: Rights,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Rights {
    Person { role: Role, identity: Box<Identity> },
    Scopes(Vec<Scope>),
}

/// Whose sessions a right is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Everybody's.
    Everybody,
    /// Those of this person.
    Own(Owner),
}

impl Reach {
    /// The one whose sessions alone may be touched; `None` when everybody's may.
    pub fn owner(self) -> Option<Owner> {
        match self {
            Reach::Everybody => None,
            Reach::Own(owner) => Some(owner),
        }
    }
}

impl Caller {
    /// Whether the caller may do this to everybody's sessions. For one's own, see [`Caller::reach`].
    pub fn may(&self, scope: Scope) -> bool {
        match &self.rights {
            Rights::Person { role, .. } => role.may(scope),
            Rights::Scopes(scopes) => scopes.contains(&scope) || scopes.contains(&Scope::Admin),
        }
    }

    /// To whose sessions the caller may do this; `None`: to nobody's.
    pub fn reach(&self, scope: Scope) -> Option<Reach> {
        match &self.rights {
            _ if self.may(scope) => Some(Reach::Everybody),
            Rights::Person { identity, .. } if OWN.contains(&scope) => Some(Reach::Own(Owner::of(identity))),
            _ => None,
        }
    }

    /// The person's role; `None` for a token that belongs to nobody.
    pub fn role(&self) -> Option<Role> {
        match &self.rights {
            Rights::Person { role, .. } => Some(*role),
            Rights::Scopes(_) => None,
        }
    }

    /// The person, where the token is somebody's.
    pub fn identity(&self) -> Option<&Identity> {
        match &self.rights {
            Rights::Person { identity, .. } => Some(identity),
            Rights::Scopes(_) => None,
        }
    }

    /// The person's e-mail address.
    pub fn email(&self) -> Option<&str> {
        self.identity().map(Identity::email)
    }

    /// Who it was, for rows, events and the log: a person's e-mail address, else `token LABEL (ID)`. The label is
    /// somebody's words, so that it must not pass for a person.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The sign-in that the token counts with.
    pub fn sign_in(&self) -> Option<Uuid> {
        self.token.sign_in_id
    }

    /// Whether what the caller may do, where and for how long, holds what this token may.
    fn may_make(&self, new: &NewToken) -> bool {
        let Rights::Scopes(_) = self.rights else { return true };
        let own = &self.token.networks;
        let within = |network: &IpNet| own.iter().any(|own| own.contains(network));
        // No networks: anywhere.
        let is_there = own.is_empty() || (!new.networks.is_empty() && new.networks.iter().all(within));
        is_there && new.expires <= self.token.expires && new.scopes.iter().all(|scope| self.may(*scope))
    }

    /// The token, without its secret.
    pub fn token(&self) -> &TokenRow {
        &self.token
    }
}

impl Role {
    /// Whether people of this role may do this to everybody's sessions.
    pub fn may(self, scope: Scope) -> bool {
        match scope {
            Scope::SessionsRead | Scope::RecordingsRead => self >= Role::Auditor,
            Scope::SessionsKill => self >= Role::Operator,
            Scope::InputRead | Scope::Admin => self >= Role::Admin,
        }
    }
}

/// Why a token could not be issued or verified.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The expiry is no date.
    #[error("the token's lifetime is too long")]
    Lifetime,
    /// A token that belongs to nobody asked for more than it has.
    #[error("a token makes others only for its own networks, and to end no later than it does")]
    Outgrows,
    /// The token that asks was revoked meanwhile.
    #[error("the token counts no more")]
    Over,
    /// The system gave no random bytes.
    #[error("the system has no random numbers")]
    Random,
    /// The book failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn name(token: &TokenRow, rights: &Rights) -> String {
    match rights {
        Rights::Person { identity, .. } => identity.email().to_owned(),
        Rights::Scopes(_) => format!("token {} ({})", token.label, token.token_id),
    }
}

fn for_a_program(label: &str, lifetime: Duration) -> Result<(SecretString, NewToken), TokenError> {
    let created = Timestamp::now();
    let expires = created.checked_add(lifetime).map_err(|_| TokenError::Lifetime)?;
    new_token(label, created, expires)
}

/// A secret, and a token without any rights for it.
fn new_token(label: &str, created: Timestamp, expires: Timestamp) -> Result<(SecretString, NewToken), TokenError> {
    let mut random = [0; RANDOM_BYTES];
    rand::fill(&mut random).map_err(|_| TokenError::Random)?;
    let secret = SecretString::from(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(random)));
    let new = NewToken {
        token_id: Uuid::now_v7(),
        hash: hash(secret.expose_secret()),
        label: label.to_owned(),
        user_email: None,
        sign_in_id: None,
        scopes: Vec::new(),
        networks: Vec::new(),
        created_by: None,
        maker: None,
        created,
        expires,
    };
    Ok((secret, new))
}

fn of_sign_in(new: NewToken, sign_in: Uuid, identity: &Identity) -> NewToken {
    NewToken { user_email: Some(identity.email().to_owned()), sign_in_id: Some(sign_in), ..new }
}

fn row(new: NewToken) -> TokenRow {
    let NewToken { token_id, label, user_email, sign_in_id, scopes, networks, created_by, created, expires, .. } = new;
    TokenRow {
        token_id,
        label,
        user_email,
        sign_in_id,
        scopes,
        networks,
        created_by,
        created,
        expires,
        last_used: None,
        last_ip: None,
        revoked: None,
    }
}

fn hash(token: &str) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, token.as_bytes()).as_ref());
    hash
}

/// What everybody may do to their own sessions. Not read what they typed: that holds passwords, and a token that lies
/// in a file must not give them away.
const OWN: [Scope; 3] = [Scope::SessionsRead, Scope::RecordingsRead, Scope::SessionsKill];
/// What our tokens begin with, so that secret scanners can find them.
const PREFIX: &str = "gsa_";
/// Random bytes in a token.
const RANDOM_BYTES: usize = 32;
/// No token of ours is longer than this many bytes.
const LONGEST: usize = 64;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::identity::sign_ins::testing::ISSUER;
    use crate::store::testing::Book;

    const HOUR: Duration = Duration::from_secs(3600);
    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    fn tokens(book: &Book) -> Tokens {
        let roles = RoleGroups {
            admin: vec!["security".into()],
            operator: vec!["oncall".into(), "both".into()],
            auditor: vec!["audit".into(), "both".into()],
        };
        Tokens::new(Store::clone(book), roles, ISSUER)
    }

    fn person(groups: &[&str], lifetime: Duration) -> Identity {
        serde_json::from_value(json!({
            "issuer": "https://idp.example.com", "subject": "u-1", "email": "alice@example.com", "name": null,
            "picture": null, "nickname": null, "groups": groups,
            "signed_in": Timestamp::now(), "expires": Timestamp::now() + lifetime,
        }))
        .unwrap()
    }

    async fn of(tokens: &Tokens, groups: &[&str]) -> Caller {
        let issued = tokens.issue_in_browser(&person(groups, HOUR), HERE, "tests", HOUR).await.unwrap();
        tokens.verify(issued.secret.expose_secret(), HERE).await.unwrap().unwrap()
    }

    #[tokio::test]
    async fn roles_come_from_groups_and_give_reach() {
        let book = Book::new();
        let tokens = tokens(&book);
        // Per scope, in the order of `Scope::ALL`: e(verybody's), o(wn), n(obody's).
        let table = [
            (&["engineering"][..], Role::User, "oonon"),
            (&[], Role::User, "oonon"),
            (&["Security"], Role::User, "oonon"),
            (&["audit"], Role::Auditor, "eenon"),
            (&["audit", "oncall"], Role::Operator, "eenen"),
            (&["both"], Role::Operator, "eenen"),
            (&["engineering", "security"], Role::Admin, "eeeee"),
        ];
        for (groups, role, reach) in table {
            let caller = of(&tokens, groups).await;
            assert_eq!(caller.role(), Some(role), "{groups:?}");
            for (scope, expected) in Scope::ALL.into_iter().zip(reach.chars()) {
                let expected = match expected {
                    'e' => Some(Reach::Everybody),
                    'o' => Some(Reach::Own(Owner::of(caller.identity().unwrap()))),
                    _ => None,
                };
                assert_eq!(caller.may(scope), expected == Some(Reach::Everybody), "{groups:?} {scope}");
                assert_eq!(caller.reach(scope), expected, "{groups:?} {scope}");
            }
        }
    }

    #[tokio::test]
    async fn a_scope_gives_itself_and_admin_gives_all() {
        let book = Book::new();
        let tokens = tokens(&book);
        for scope in Scope::ALL {
            let issued = tokens.issue(vec![scope], Vec::new(), "ci", HOUR, Some("admin@example.com")).await.unwrap();
            let caller = tokens.verify(issued.secret.expose_secret(), HERE).await.unwrap().unwrap();
            let name = format!("token ci ({})", issued.row.token_id);
            assert_eq!((caller.role(), caller.email(), caller.name()), (None, None, name.as_str()));
            assert_eq!((caller.identity(), caller.sign_in()), (None, None));
            for other in Scope::ALL {
                let expected = (other == scope || scope == Scope::Admin).then_some(Reach::Everybody);
                assert_eq!(caller.reach(other), expected, "{scope} {other}");
            }
        }
        let nothing = tokens.issue(Vec::new(), Vec::new(), "ci", HOUR, None).await.unwrap();
        let caller = tokens.verify(nothing.secret.expose_secret(), HERE).await.unwrap().unwrap();
        assert!(Scope::ALL.into_iter().all(|scope| caller.reach(scope).is_none()));
    }

    #[tokio::test]
    async fn a_role_is_that_of_the_groups_in_force_when_the_token_is_used() {
        let book = Book::new();
        let secret = tokens(&book).issue_in_browser(&person(&["security"], HOUR), HERE, "tests", HOUR).await.unwrap();
        let later = Tokens::new(Store::clone(&book), RoleGroups::default(), ISSUER);
        let caller = later.verify(secret.secret.expose_secret(), HERE).await.unwrap().unwrap();
        assert_eq!((caller.role(), caller.name()), (Some(Role::User), "alice@example.com"));
        assert_eq!(caller.sign_in(), secret.row.sign_in_id);
    }

    #[tokio::test]
    async fn a_token_counts_no_longer_than_it_or_its_sign_in() {
        let book = Book::new();
        let tokens = tokens(&book);
        let expired = tokens.issue(vec![Scope::Admin], Vec::new(), "ci", Duration::ZERO, None).await.unwrap();
        assert_eq!(tokens.verify(expired.secret.expose_secret(), HERE).await.unwrap(), None);
        let over = person(&[], Duration::ZERO);
        let issued = tokens.issue_in_browser(&over, HERE, "tests", HOUR).await.unwrap();
        assert_eq!(issued.row.expires, over.expires());
        assert_eq!(tokens.verify(issued.secret.expose_secret(), HERE).await.unwrap(), None);
        let forever = tokens.issue(Vec::new(), Vec::new(), "ci", Duration::MAX, None).await;
        assert!(matches!(forever, Err(TokenError::Lifetime)));
    }

    #[tokio::test]
    async fn a_second_token_of_a_sign_in_needs_the_sign_in() {
        let book = Book::new();
        let (tokens, alice) = (tokens(&book), person(&[], HOUR));
        let first = tokens.issue_in_browser(&alice, HERE, "one", HOUR).await.unwrap();
        let sign_in = first.row.sign_in_id.unwrap();
        let second = tokens.issue_for_sign_in(sign_in, &alice, "two").await.unwrap();
        let caller = tokens.verify(second.expose_secret(), HERE).await.unwrap().unwrap();
        assert_eq!((caller.sign_in(), caller.token().label.as_str()), (Some(sign_in), "two"));
        assert_eq!(caller.token().expires, book.tokens(1, 1).await.unwrap().0[0].expires);
        let unknown = tokens.issue_for_sign_in(Uuid::now_v7(), &alice, "three").await;
        assert!(matches!(unknown, Err(TokenError::Store(StoreError::Conflict(_)))));
    }

    #[tokio::test]
    async fn networks_hold_and_a_refused_use_is_none() {
        let book = Book::new();
        let tokens = tokens(&book);
        let networks = ["10.1.0.0/16", "2001:db8::/32"].map(|network| network.parse().unwrap()).to_vec();
        let issued = tokens.issue(vec![Scope::Admin], networks, "ci", HOUR, None).await.unwrap();
        for (from, counts) in [
            ("10.2.0.1", false),
            ("2001:db9::1", false),
            ("::ffff:10.2.0.1", false),
            ("::1", false),
            ("10.1.255.255", true),
            ("::ffff:10.1.0.1", true),
            ("2001:db8::1", true),
        ] {
            let caller = tokens.verify(issued.secret.expose_secret(), from.parse().unwrap()).await.unwrap();
            assert_eq!(caller.is_some(), counts, "{from}");
            // The first use that counted is the first that was noted.
            book.touch(Vec::new(), Timestamp::now()).await.unwrap();
            let noted = book.tokens(1, 1).await.unwrap().0.remove(0).last_ip;
            assert_eq!(noted.is_some(), counts, "{from}");
        }
    }

    #[tokio::test]
    async fn what_is_not_the_very_token_is_nobody() {
        let book = Book::new();
        let tokens = tokens(&book);
        let issued = tokens.issue(vec![Scope::Admin], Vec::new(), "demo", HOUR, None).await.unwrap();
        let secret = issued.secret.expose_secret();
        let (cut, longer, upper) = (&secret[..secret.len() - 1], format!("{secret}A"), secret.to_uppercase());
        for wrong in ["", "gsa_", cut, &longer, &upper, &secret[4..], &"gsa_A".repeat(1000)] {
            assert_eq!(tokens.verify(wrong, HERE).await.unwrap(), None, "{wrong}");
        }
    }

    #[tokio::test]
    async fn the_secret_is_short_unique_and_nowhere_else() {
        let book = Book::new();
        let tokens = tokens(&book);
        let one = tokens.issue(Vec::new(), Vec::new(), "demo", HOUR, None).await.unwrap();
        let two = tokens.issue_in_browser(&person(&[], HOUR), HERE, "page", HOUR).await.unwrap();
        let text = one.secret.expose_secret();
        assert_ne!(text, two.secret.expose_secret());
        assert!(text.starts_with("gsa_") && text.len() <= 64, "{text}");
        assert!(!format!("{one:?} {tokens:?}").contains(&text[4..]));
        for file in ["book.db", "book.db-wal"] {
            let bytes = std::fs::read(book.dir().join(file)).unwrap();
            assert!(!bytes.windows(text.len()).any(|window| window == text.as_bytes()), "{file} holds the secret");
        }
    }
}
