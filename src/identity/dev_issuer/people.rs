//! The people of the demo.

/// Somebody who can sign in at the development issuer.
#[derive(Debug)]
pub struct Person {
    /// What `--approve-as` calls them; also `nickname`.
    pub nickname: &'static str,
    /// `name`
    pub name: &'static str,
    /// `sub`
    pub subject: &'static str,
    /// `groups`
    pub groups: &'static [&'static str],
    /// `department`, a claim that is no standard one.
    pub department: &'static str,
    colour: &'static str,
}

impl Person {
    /// `email`
    pub fn email(&self) -> String {
        format!("{}@example.com", self.nickname)
    }

    /// `picture`: a disc in the person's colour, as a `data:` URI.
    pub fn picture(&self) -> String {
        format!(
            "data:image/svg+xml,%3Csvg%20xmlns='http://www.w3.org/2000/svg'%20viewBox='0%200%208%208'%3E\
             %3Ccircle%20cx='4'%20cy='4'%20r='4'%20fill='%23{}'/%3E%3C/svg%3E",
            self.colour
        )
    }
}

/// Everybody there is.
pub const PEOPLE: [Person; 5] = [
    Person {
        nickname: "alice",
        name: "Alice Archer",
        subject: "dev-1",
        groups: &["engineering"],
        department: "platform",
        colour: "2a6f97",
    },
    Person {
        nickname: "bob",
        name: "Bob Baker",
        subject: "dev-2",
        groups: &["contractors"],
        department: "external",
        colour: "bc6c25",
    },
    Person {
        nickname: "admin",
        name: "Ada Minster",
        subject: "dev-3",
        groups: &["security"],
        department: "security",
        colour: "6a4c93",
    },
    Person {
        nickname: "audrey",
        name: "Audrey Lamb",
        subject: "dev-4",
        groups: &["audit"],
        department: "compliance",
        colour: "588157",
    },
    Person {
        nickname: "oscar",
        name: "Oscar Quinn",
        subject: "dev-5",
        groups: &["oncall"],
        department: "operations",
        colour: "b5838d",
    },
];
