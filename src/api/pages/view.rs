//! The pages' HTML. Everything that a person or a client wrote is escaped by maud.

use std::net::IpAddr;

use jiff::Timestamp;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use secrecy::ExposeSecret;

use super::IssuedToken;
use super::browsers::Session;
use crate::geo::Geo;
use crate::identity::link::{Asked, Asks};
use crate::identity::tokens::Role;

/// A page's title and what stands in it.
type Content = (&'static str, Markup);

/// The frame around every page.
pub(super) fn frame(title: &str, nonce: &str, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · Gatescribe" }
                style nonce=(nonce) { (PreEscaped(CSS)) }
            }
            body {
                main { (body) }
            }
        }
    }
}

pub(super) fn landing(session: Option<&Session>) -> Content {
    let body = html! {
        h1 { "Gatescribe" }
        p { "This gateway leads to servers for people who may use them, and writes down what happens." }
        @if let Some(session) = session {
            p { "You are signed in as " strong { (session.identity.email()) } "." }
            p { a href="/token" { "Get a token for the API" } }
            form method="post" action="/signout" {
                (csrf(session))
                button { "Sign out" }
            }
        } @else {
            p { "To connect, type in a terminal: " code { "ssh socket@this-gateway" } ". It shows a link to sign in." }
            p { a href="/sign-in" { "Sign in" } }
        }
    };
    ("Welcome", body)
}

pub(super) fn question(asked: &Asked, session: &Session, browser: IpAddr, geo: &Geo, code: &str) -> Content {
    let confirmed = terminal(asked).filter(|terminal| !crate::identity::link::same_place(*terminal, browser));
    let body = html! {
        h1 { "Is this you?" }
        @if let Some(terminal) = confirmed {
            p.warning role="alert" {
                "The terminal is at " (spot(geo, terminal)) ", this browser is at " (spot(geo, browser)) ". "
                "Approve only if that terminal is yours."
            }
        }
        p { "A terminal asks to sign in as " strong { (session.identity.email()) } "." }
        @if let Some(demand) = &asked.demand {
            p { "A new sign-in is asked for because " (demand.why) "." }
        }
        (requests(asked, geo))
        p { "If you did not just start this connection yourself, deny it: somebody may be trying to use your name." }
        form method="post" action={ "/link/" (code) } {
            (csrf(session))
            button.main name="answer" value="approve" { "Approve" } " "
            button name="answer" value="deny" { "Deny" }
        }
        p { a href={ "/link/" (code) "/sign-in" } { "Use another account" } }
    };
    ("Sign in to a terminal", body)
}

pub(super) fn warning(asked: &Asked, terminal: IpAddr, browser: IpAddr, geo: &Geo, code: &str) -> Content {
    let body = html! {
        div.warning role="alert" {
            h1 { "Two different places" }
            p { "The terminal that asks is at " (spot(geo, terminal)) "." }
            p { "This browser is at " (spot(geo, browser)) "." }
            p { "If somebody sent you this link, close this page: they would get in under your name." }
        }
        (requests(asked, geo))
        p { "If that terminal is yours, sign in again to confirm it." }
        p { a.button href={ "/link/" (code) "/sign-in" } { "Sign in again to confirm" } }
    };
    ("Two different places", body)
}

pub(super) fn digits(digits: &str) -> Content {
    let (first, second) = digits.split_at_checked(3).unwrap_or((digits, ""));
    let body = html! {
        h1 { "Type these in your terminal" }
        p.digits { (first) " " (second) }
        p { "The terminal asks for these six digits. Tell them to nobody; after that you can close this page." }
    };
    ("Type these digits", body)
}

pub(super) fn denied() -> Content {
    let body = html! {
        h1 { "Denied" }
        p { "The terminal was told so. If you did not start that connection, tell an administrator." }
    };
    ("Denied", body)
}

pub(super) fn signed_out() -> Content {
    let body = html! {
        h1 { "Signed out" }
        p { "You are signed out here. The identity provider may still know you." }
        p { a href="/" { "Back" } }
    };
    ("Signed out", body)
}

pub(super) fn token_question(session: &Session, role: Role) -> Content {
    let (who, may) = match role {
        Role::User => ("", "see your sessions and their recordings, and end them"),
        Role::Auditor => (", an auditor", "see everybody's sessions and their recordings"),
        Role::Operator => (", an operator", "see everybody's sessions and their recordings, and end them"),
        Role::Admin => (
            ", an administrator",
            "see and end everybody's sessions, read what everybody typed, make tokens for others, and sign people out",
        ),
    };
    let body = html! {
        h1 { "A token for the API" }
        p { "You are " strong { (session.identity.email()) } (who) ". Whoever has the token can " (may) "." }
        form method="post" action="/token" {
            (csrf(session))
            button.main { "Make a token" }
        }
    };
    ("A token for the API", body)
}

pub(super) fn token(issued: &IssuedToken) -> Content {
    let body = html! {
        h1 { "Your token" }
        p { "It is shown this once, and counts until " (minute(issued.expires)) "." }
        p { code.token { (issued.token.expose_secret()) } }
        p { "Send it as the header " code { "x-access-token" } "." }
    };
    ("Your token", body)
}

/// This sign-in does not do for a link; another one may.
pub(super) fn another_sign_in(title: &'static str, words: &str, code: &str) -> Content {
    let body = html! {
        h1 { (title) }
        p role="alert" { (words) "." }
        p { a.button href={ "/link/" (code) "/sign-in" } { "Sign in again or as somebody else" } }
    };
    (title, body)
}

pub(super) fn renewed(session: &Session) -> Content {
    let until = session.identity.expires().strftime("%H:%M UTC");
    let body = html! {
        h1 { "Signed in again" }
        p { "You are signed in as " strong { (session.identity.email()) } "." }
        p { "Your sign-in was renewed until " strong { (until) } "; your open sessions go on." }
        p { "You can close this page." }
    };
    ("Signed in again", body)
}

pub(super) fn failure(title: &str, words: &str) -> Markup {
    html! {
        h1 { (title) }
        p role="alert" { (words) "." }
        p { a href="/" { "Back to the start" } }
    }
}

fn requests(asked: &Asked, geo: &Geo) -> Markup {
    html! {
        @for asks in &asked.asks {
            dl {
                @if asks.anywhere {
                    dt { "Reaches" } dd { strong { "every SSH socket that you may reach" } }
                    dt { "Called as" } dd { (asks.socket) }
                } @else {
                    dt { "Socket" } dd { (asks.socket) }
                }
                @if let Some(login) = &asks.login {
                    dt { "Login" } dd { (login) }
                }
                dt { "From" } dd { (spot(geo, asks.client.ip())) }
                dt { "Program" } dd { (asks.software) }
                @if let Some(key) = &asks.proven_key {
                    dt { "Key" } dd { (key) }
                }
                dt { "Asked at" } dd { (second(asked.since)) }
            }
        }
    }
}

/// An address, with its place where that is known.
fn spot(geo: &Geo, address: IpAddr) -> Markup {
    let address = address.to_canonical();
    html! {
        strong { (address) }
        @if let Some(place) = geo.locate(address).words() { " (" (place) ")" }
    }
}

fn terminal(asked: &Asked) -> Option<IpAddr> {
    asked.asks.first().map(|asks: &Asks| asks.client.ip().to_canonical())
}

pub(super) fn csrf(session: &Session) -> Markup {
    html! { input type="hidden" name="csrf" value=(session.csrf); }
}

pub(super) fn second(at: Timestamp) -> String {
    at.strftime("%H:%M:%S UTC").to_string()
}

pub(super) fn minute(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M UTC").to_string()
}

const CSS: &str = "\
:root{color-scheme:light dark;--line:#8886;--red:#b00020;--main:#0b5cad}\
@media(prefers-color-scheme:dark){:root{--red:#ff8a94;--main:#6db3ff}}\
body{margin:0;font:1rem/1.5 system-ui,sans-serif}\
main{max-width:34rem;margin:0 auto;padding:1rem}\
h1{font-size:1.4rem;line-height:1.25}\
dl{display:grid;grid-template-columns:max-content 1fr;gap:.25rem 1rem;border:1px solid var(--line);\
border-radius:.5rem;padding:.75rem;margin:1rem 0}\
dt{opacity:.75}dd{margin:0;overflow-wrap:anywhere}\
a{color:var(--main)}\
input{font:inherit;padding:.5rem;max-width:100%;box-sizing:border-box}\
button,.button{display:inline-block;font:inherit;padding:.6rem 1.2rem;margin:.25rem 0;border-radius:.5rem;\
border:2px solid var(--main);background:none;color:inherit;text-decoration:none;cursor:pointer}\
button.main{background:var(--main);color:Canvas}\
:focus-visible{outline:3px solid var(--main);outline-offset:2px}\
.warning{border:3px solid var(--red);border-radius:.5rem;padding:.5rem 1rem}.warning h1{color:var(--red)}\
.digits{font:700 clamp(2.5rem,16vw,5rem)/1.2 ui-monospace,monospace;text-align:center;margin:1rem 0}\
code{font-family:ui-monospace,monospace;overflow-wrap:anywhere}\
.token{display:block;padding:.75rem;border:1px solid var(--line);border-radius:.5rem}";
