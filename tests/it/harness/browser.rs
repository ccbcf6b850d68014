//! A browser without a screen: keeps cookies, follows redirects, fills in and posts the forms that pages show.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use reqwest::header::{COOKIE, LOCATION, ORIGIN, SET_COOKIE};
use reqwest::{Client, Method, StatusCode, Url};

use super::api::https_client;

/// One person's browser.
pub struct Browser {
    client: Client,
    /// By host, which is what cookies go by, and name.
    cookies: BTreeMap<(String, String), String>,
}

/// A page that was loaded.
#[derive(Debug)]
pub struct Page {
    pub url: Url,
    pub status: StatusCode,
    pub body: String,
}

/// A form on a page.
#[derive(Clone, Debug)]
pub struct Form {
    action: Url,
    method: Method,
    page: Url,
    /// Names and values of its fields; of buttons only the one that is pressed goes along.
    fields: Vec<(String, String)>,
    buttons: Vec<Button>,
}

#[derive(Clone, Debug)]
struct Button {
    field: Option<(String, String)>,
    label: String,
}

impl Browser {
    /// A browser with nothing in it, which trusts the gateway's CA.
    pub fn new(ca: &Path) -> Self {
        let builder = https_client(ca);
        Self { client: builder.build().unwrap(), cookies: BTreeMap::new() }
    }

    /// A browser for which `localhost` is this address.
    pub fn through(ca: &Path, localhost: IpAddr) -> Self {
        let builder = https_client(ca).resolve("localhost", (localhost, 0).into());
        Self { client: builder.build().unwrap(), cookies: BTreeMap::new() }
    }

    /// Opens an address and follows where it leads.
    pub async fn open(&mut self, url: &str) -> Page {
        self.load(Method::GET, Url::parse(url).unwrap(), None, None).await
    }

    /// Posts a form as it stands.
    pub async fn submit(&mut self, form: &Form) -> Page {
        let body = form_urlencoded(&form.fields);
        match form.method {
            Method::POST => self.load(Method::POST, form.action.clone(), Some(body), Some(&form.page)).await,
            _ => {
                let mut url = form.action.clone();
                url.set_query(Some(&body));
                self.load(Method::GET, url, None, None).await
            }
        }
    }

    /// Posts a form and gives where its answer leads, without going there.
    pub async fn submit_unfollowed(&mut self, form: &Form) -> Option<Url> {
        let request = self.client.request(form.method.clone(), form.action.clone());
        let request = request.header(COOKIE, self.cookies_for(&form.action));
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        let request = request.header(ORIGIN, form.page.origin().ascii_serialization());
        let response = request.body(form_urlencoded(&form.fields)).send().await.unwrap();
        let to = response.headers().get(LOCATION).filter(|_| response.status().is_redirection())?;
        form.action.join(to.to_str().unwrap()).ok()
    }

    /// Opens a sign-in link, signs in as this person where the provider asks, approves, and returns the digits.
    pub async fn approve(&mut self, link: &str, person: &str) -> String {
        let page = self.sign_in(link, person).await;
        let form = page.form("approve");
        let page = self.submit(&form).await;
        page.digits().unwrap_or_else(|| panic!("no digits on {page:?}"))
    }

    /// Opens a page that wants a sign-in and comes back to it signed in as this person.
    pub async fn sign_in(&mut self, url: &str, person: &str) -> Page {
        let home = Url::parse(url).unwrap();
        let mut page = self.open(url).await;
        for _ in 0..4 {
            if page.url.origin() == home.origin() {
                break;
            }
            page = match page.link(&format!("as={person}")) {
                Some(to) => self.open(&to).await,
                None => self.submit(&page.form(person)).await,
            };
        }
        assert_eq!(page.url.origin(), home.origin(), "still at the provider: {page:?}");
        page
    }

    async fn load(&mut self, mut method: Method, mut url: Url, mut body: Option<String>, from: Option<&Url>) -> Page {
        for _ in 0..12 {
            let mut request = self.client.request(method.clone(), url.clone());
            let cookies = self.cookies_for(&url);
            if !cookies.is_empty() {
                request = request.header(COOKIE, cookies);
            }
            if let Some(body) = body.take() {
                request = request.header("content-type", "application/x-www-form-urlencoded").body(body);
                if let Some(from) = from {
                    request = request.header(ORIGIN, from.origin().ascii_serialization());
                }
            }
            let response = request.send().await.unwrap_or_else(|e| panic!("{url}: {e:?}"));
            for cookie in response.headers().get_all(SET_COOKIE) {
                self.keep(&url, cookie.to_str().unwrap());
            }
            let Some(to) = response.headers().get(LOCATION).filter(|_| response.status().is_redirection()) else {
                let status = response.status();
                return Page { url, status, body: response.text().await.unwrap() };
            };
            url = url.join(to.to_str().unwrap()).unwrap();
            if !matches!(response.status(), StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT) {
                method = Method::GET;
            }
        }
        panic!("redirected in a circle, last to {url}");
    }

    fn cookies_for(&self, url: &Url) -> String {
        let host = url.host_str().unwrap_or_default();
        let mine = self.cookies.iter().filter(|((of, _), _)| of == host);
        mine.map(|((_, name), value)| format!("{name}={value}")).collect::<Vec<_>>().join("; ")
    }

    fn keep(&mut self, url: &Url, cookie: &str) {
        let mut parts = cookie.split(';').map(str::trim);
        let Some((name, value)) = parts.next().and_then(|pair| pair.split_once('=')) else { return };
        let key = (url.host_str().unwrap_or_default().to_owned(), name.to_owned());
        let gone = parts.any(|attribute| attribute.eq_ignore_ascii_case("max-age=0"));
        match gone {
            true => self.cookies.remove(&key),
            false => self.cookies.insert(key, value.to_owned()),
        };
    }
}

impl Page {
    /// The form with a button that says this, or carries it as its value; without letter case.
    #[track_caller]
    pub fn form(&self, word: &str) -> Form {
        self.find_form(word).unwrap_or_else(|| panic!("no form with a button {word:?} on {self:?}"))
    }

    pub fn find_form(&self, word: &str) -> Option<Form> {
        let word = word.to_lowercase();
        let says = |text: &str| text.to_lowercase().contains(&word);
        self.forms().into_iter().find_map(|mut form| {
            let says_it = |b: &&Button| says(&b.label) || b.field.as_ref().is_some_and(|(_, value)| says(value));
            let pressed = form.buttons.iter().find(says_it)?.clone();
            form.fields.extend(pressed.field);
            Some(form)
        })
    }

    /// Where the link leads whose address holds these words.
    pub fn link(&self, words: &str) -> Option<String> {
        let tags = self.body.split("<a ").skip(1).filter_map(|rest| rest.split('>').next());
        let to = tags.filter_map(|tag| attribute(&format!(" {tag}"), "href")).find(|to| to.contains(words))?;
        Some(self.url.join(&to).ok()?.into())
    }

    pub fn forms(&self) -> Vec<Form> {
        let pieces = self.body.split("<form").skip(1);
        pieces.filter_map(|piece| self.read_form(piece.split("</form>").next()?)).collect()
    }

    /// The words on the page, without tags.
    pub fn text(&self) -> String {
        let visible = self.body.split_once("<body").map_or(self.body.as_str(), |(_, body)| body);
        text_of(&format!("<{visible}"))
    }

    /// Six digits that stand alone, with or without a space in the middle.
    pub fn digits(&self) -> Option<String> {
        let text = self.text();
        let words: Vec<_> = text.split_whitespace().collect();
        let is = |word: &str, length| word.len() == length && word.bytes().all(|b| b.is_ascii_digit());
        let alone = words.iter().find(|word| is(word, 6)).map(|word| (*word).to_owned());
        alone.or_else(|| words.windows(2).find(|pair| pair.iter().all(|w| is(w, 3))).map(|pair| pair.concat()))
    }

    fn read_form(&self, piece: &str) -> Option<Form> {
        let (head, inside) = piece.split_once('>')?;
        let action = attribute(head, "action").filter(|to| !to.is_empty());
        let action = action.map_or_else(|| Ok(self.url.clone()), |to| self.url.join(&to)).ok()?;
        let is_post = attribute(head, "method").is_some_and(|m| m.eq_ignore_ascii_case("post"));
        let method = if is_post { Method::POST } else { Method::GET };
        let mut form = Form { action, method, page: self.url.clone(), fields: Vec::new(), buttons: Vec::new() };
        for tag in inside.split('<').skip(1) {
            form.add(tag);
        }
        Some(form)
    }
}

impl Form {
    /// Fills in a field, replacing what it held.
    pub fn set(&mut self, name: &str, value: &str) {
        self.fields.retain(|(known, _)| known != name);
        self.fields.push((name.to_owned(), value.to_owned()));
    }

    /// Leaves a field out.
    pub fn remove(&mut self, name: &str) -> Option<String> {
        let at = self.fields.iter().position(|(known, _)| known == name)?;
        Some(self.fields.remove(at).1)
    }

    /// The names of its fields.
    pub fn names(&self) -> Vec<&str> {
        self.fields.iter().map(|(name, _)| name.as_str()).collect()
    }

    fn add(&mut self, tag: &str) {
        let (head, label) = tag.split_once('>').unwrap_or((tag, ""));
        let value = || attribute(head, "value").unwrap_or_default();
        let field = attribute(head, "name").map(|name| (name, value()));
        let kind = attribute(head, "type").unwrap_or_default();
        match head.split_whitespace().next() {
            Some("button") => self.buttons.push(Button { field, label: text_of(label) }),
            Some("input") if kind == "submit" => self.buttons.push(Button { label: value(), field }),
            Some("input") if matches!(kind.as_str(), "checkbox" | "radio") && !head.contains("checked") => {}
            Some("input") => self.fields.extend(field),
            _ => {}
        }
    }
}

fn attribute(head: &str, name: &str) -> Option<String> {
    let start = head.find(&format!(" {name}=\""))? + name.len() + 3;
    let value = &head[start..];
    Some(unescape(&value[..value.find('"')?]))
}

fn text_of(html: &str) -> String {
    let parts = html.split('<').enumerate();
    let words = parts.map(|(at, part)| if at == 0 { part } else { part.split_once('>').map_or("", |(_, text)| text) });
    unescape(words.collect::<Vec<_>>().join(" ").trim())
}

fn unescape(text: &str) -> String {
    let pairs = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#39;", "'"), ("&amp;", "&")];
    pairs.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

fn form_urlencoded(fields: &[(String, String)]) -> String {
    let mut url = Url::parse("http://localhost/").unwrap();
    url.query_pairs_mut().extend_pairs(fields);
    url.query().unwrap_or_default().to_owned()
}
