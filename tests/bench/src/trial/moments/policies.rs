//! Policies that are pushed and activated.

use std::cell::Cell;
use std::fs;
use std::net::SocketAddr;

use policy_build::Builder;
use serde_json::Value;

use crate::error::Error;
use crate::http;

/// Two that serve well.
const EDITIONS: [&str; 2] = ["edition-amber", "edition-blue"];

/// Where they are, from the project's root.
const GUESTS_DIR: &str = "tests/guests";

/// What a section is called that no version but one has.
const SECTION: &[u8] = b"bench";

/// The versions that a gateway is given.
#[derive(Debug)]
pub struct Policies {
    admin: SocketAddr,
    component: Vec<u8>,
    /// Of versions that were active before: their compiled code is kept.
    kept: [String; 2],
    /// Which of them comes next.
    next: Cell<usize>,
    /// Makes each version that is new another one than those of other runs.
    number: Cell<u64>,
}

impl Policies {
    /// Has a gateway know two versions, the second of which is active then.
    pub fn of(admin: SocketAddr) -> Result<Self, Error> {
        let mut component = Vec::new();
        let mut kept = Vec::new();
        for edition in EDITIONS {
            let path = Builder::in_project(GUESTS_DIR).example(edition).build()?;
            component = fs::read(&path).map_err(Error::file(&path))?;
            kept.push(digest(&ask(admin, "PUT", "/policy", &component)?)?);
        }
        let [first, second] = &kept[..] else {
            unreachable!("there are two editions");
        };
        Ok(Self {
            admin,
            component,
            kept: [first.clone(), second.clone()],
            next: Cell::new(0),
            number: Cell::new(fastrand::u64(..)),
        })
    }

    /// Pushes a version that was never compiled before, and waits until it is active.
    pub fn push_new(&self) -> Result<(), Error> {
        let number = self.number.get().wrapping_add(1);
        self.number.set(number);
        let component = tagged(&self.component, number);
        ask(self.admin, "PUT", "/policy", &component).map(drop)
    }

    /// Activates one of the two, each in its turn.
    pub fn swap(&self) -> Result<(), Error> {
        let next = self.next.get();
        self.next.set((next + 1) % self.kept.len());
        let target = format!("/policy/activate?digest={}", self.kept[next]);
        ask(self.admin, "POST", &target, &[]).map(drop)
    }
}

/// The same component with a custom section more (WebAssembly's binary format, section 5.5.3), which no one reads.
fn tagged(component: &[u8], number: u64) -> Vec<u8> {
    let mut content = vec![SECTION.len() as u8];
    content.extend_from_slice(SECTION);
    content.extend_from_slice(&number.to_be_bytes());
    let mut tagged = component.to_vec();
    tagged.extend([0, content.len() as u8]); // shorter than 128 bytes, so that its length is one
    tagged.extend(content);
    tagged
}

fn ask(admin: SocketAddr, method: &str, target: &str, body: &[u8]) -> Result<Value, Error> {
    let wrong = |answer: String| Error::Wrong {
        name: format!("{method} {target}"),
        answer,
    };
    let answer = http::send(admin, method, target, body);
    let answer = answer.map_err(|error| wrong(error.to_string()))?;
    match (answer.status, serde_json::from_str(&answer.body)) {
        (200, Ok(policy)) => Ok(policy),
        _ => Err(wrong(answer.body)),
    }
}

/// Of the version that is active.
fn digest(policy: &Value) -> Result<String, Error> {
    let digest = policy["active"]["digest"].as_str();
    digest.map(str::to_owned).ok_or_else(|| Error::Wrong {
        name: "GET /policy".to_owned(),
        answer: policy.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tagged_component_is_another_one_and_begins_with_the_same() {
        let component = b"\0asm\x0d\0\x01\0";
        let [one, other] = [1, 2].map(|number| tagged(component, number));
        assert_ne!(one, other);
        assert!(one.starts_with(component));
        let section = &one[component.len()..];
        assert_eq!(section[..3], [0, 14, 5]);
        assert_eq!(usize::from(section[1]), section.len() - 2);
    }

    #[test]
    fn the_active_version_is_known_by_its_digest() {
        let policy = serde_json::json!({ "active": { "digest": "sha256:12" } });
        assert_eq!(digest(&policy).unwrap(), "sha256:12");
        assert!(digest(&serde_json::json!({})).is_err());
    }
}
