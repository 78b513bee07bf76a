//! Follows what a gateway says of everybody, and comes back where that ends.

use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::moment::{AllPolicies, Moment};
use super::text::{harmless, make_harmless};
use crate::admin::{Admin, AdminError};

/// Where it is said, see `frontend-host/src/admin/console.rs`.
const PATH: &str = "/console/events";

/// Longest event, in bytes: what 64 gateways and all services may say is less.
const EVENT_BYTES_MAX: usize = 8 << 20;

/// How long nothing may come: something does every second.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// How soon it is tried again, at first and at last.
const PAUSE_MIN: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// What comes of following.
#[derive(Debug)]
pub enum News {
    /// How everybody is.
    Moment(Box<Moment>),
    /// What gateways say of their policies.
    Policies(AllPolicies),
    /// The gateway is not heard; why. It is tried again.
    Lost(String),
}

/// Why a stream is over.
#[derive(Debug, thiserror::Error)]
pub enum Over {
    #[error("nothing has come for {} s", SILENCE_MAX.as_secs())]
    Silent,
    #[error("the connection failed: {0}")]
    Broken(hyper::Error),
    #[error("the gateway said too much at once")]
    TooLong,
    /// As streams end, after some minutes, or since the gateway stops.
    #[error("the gateway has ended it")]
    Ended,
    #[error(transparent)]
    Nonsense(#[from] serde_json::Error),
}

/// A gateway's stream.
#[derive(Debug)]
pub struct Stream {
    body: Incoming,
    events: Events,
}

impl Stream {
    /// Begins to follow.
    ///
    /// # Errors
    /// Where the gateway is not there, refuses, or does not know of this.
    pub async fn open(admin: &mut Admin) -> Result<Self, AdminError> {
        Ok(Self {
            body: admin.follow(PATH).await?,
            events: Events::default(),
        })
    }

    /// What is new; never [`News::Lost`].
    ///
    /// # Errors
    /// Where it is over.
    pub async fn next(&mut self) -> Result<News, Over> {
        loop {
            while let Some(event) = self.events.next() {
                if let Some(news) = news(&event)? {
                    return Ok(news);
                }
            }
            let frame = timeout(SILENCE_MAX, self.body.frame()).await;
            let frame = frame.map_err(|_| Over::Silent)?.ok_or(Over::Ended)?;
            let data = frame.map_err(Over::Broken)?.into_data();
            if let Ok(data) = data
                && !self.events.take(&data)
            {
                return Err(Over::TooLong);
            }
        }
    }
}

/// Tells all that is new until nobody wants it any more, and returns why it cannot go on, where that is so.
pub async fn follow(
    mut admin: Admin,
    stream: Stream,
    to: mpsc::Sender<News>,
) -> Option<AdminError> {
    let mut stream = Some(stream);
    let mut pause = PAUSE_MIN;
    loop {
        let mut is_heard = false;
        if let Some(mut open) = stream.take() {
            let over = loop {
                match open.next().await {
                    Ok(news) => to.send(news).await.ok()?,
                    Err(over) => break over,
                }
                is_heard = true;
            };
            match over {
                // What answers is no gateway, or of another release.
                Over::Nonsense(error) => return Some(error.into()),
                // It is asked at once whether it is still there.
                Over::Ended if is_heard => {}
                over => to.send(News::Lost(over.to_string())).await.ok()?,
            }
        }
        if is_heard {
            pause = PAUSE_MIN;
        } else {
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
        match Stream::open(&mut admin).await {
            Ok(open) => stream = Some(open),
            Err(error) if error.is_of_now() => {
                let why = harmless(&error.to_string());
                to.send(News::Lost(why)).await.ok()?;
            }
            Err(error) => return Some(error),
        }
    }
}

/// What an event says; nothing that is of interest here where it is of another kind.
fn news(event: &Event) -> Result<Option<News>, serde_json::Error> {
    Ok(match event.name.as_str() {
        "now" => Some(News::Moment(parsed(&event.data)?)),
        "policy" => Some(News::Policies(parsed(&event.data)?)),
        _ => None,
    })
}

/// Nothing in it is a command to a terminal any more.
fn parsed<T: DeserializeOwned>(json: &[u8]) -> Result<T, serde_json::Error> {
    let mut said: Value = serde_json::from_slice(json)?;
    make_harmless(&mut said);
    serde_json::from_value(said)
}

#[derive(Debug, PartialEq, Eq)]
struct Event {
    name: String,
    data: Vec<u8>,
}

/// Server-sent events (HTML standard, section 9.2.6), as gateways write them: a name, and one line of data.
#[derive(Debug, Default)]
struct Events {
    bytes: Vec<u8>,
    /// How far there is no end of an event.
    searched: usize,
}

impl Events {
    const END: &[u8] = b"\n\n";

    /// Whether there is room for these bytes.
    fn take(&mut self, bytes: &[u8]) -> bool {
        let has_room = self.bytes.len() + bytes.len() <= EVENT_BYTES_MAX;
        if has_room {
            self.bytes.extend_from_slice(bytes);
        }
        has_room
    }

    fn next(&mut self) -> Option<Event> {
        let mut windows = self.bytes[self.searched..].windows(Self::END.len());
        let Some(end) = windows.position(|window| window == Self::END) else {
            self.searched = self.bytes.len().saturating_sub(1);
            return None;
        };
        let end = self.searched + end;
        let event = event(&self.bytes[..end]);
        self.bytes.drain(..end + Self::END.len());
        self.searched = 0;
        // One that was large is not kept for ever.
        self.bytes.shrink_to(2 * self.bytes.len().max(64 << 10));
        Some(event)
    }
}

fn event(lines: &[u8]) -> Event {
    let mut event = Event {
        name: String::new(),
        data: Vec::new(),
    };
    for line in lines.split(|byte| *byte == b'\n') {
        if let Some(name) = line.strip_prefix(b"event: ") {
            event.name = String::from_utf8_lossy(name).into_owned();
        } else if let Some(data) = line.strip_prefix(b"data: ") {
            event.data = data.to_vec();
        }
    }
    event
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_however_their_bytes_come() {
        let sent = b"event: you\ndata: {}\n\nevent: now\ndata: {\"a\":1}\n\n: comment\n\nevent: p";
        for step in [1, 2, 7, sent.len()] {
            let mut events = Events::default();
            let mut read = Vec::new();
            for bytes in sent.chunks(step) {
                assert!(events.take(bytes));
                read.extend(std::iter::from_fn(|| events.next()));
            }
            let read = read.iter();
            let read = read.map(|event| (event.name.as_str(), event.data.as_slice()));
            let read: Vec<_> = read.collect();
            let expected: [(&str, &[u8]); 3] = [("you", b"{}"), ("now", b"{\"a\":1}"), ("", b"")];
            assert_eq!(read, expected, "{step} bytes at a time");
        }
    }

    #[test]
    fn an_event_without_an_end_is_held_up_to_a_bound() {
        let mut events = Events::default();
        let bytes = vec![b'x'; EVENT_BYTES_MAX];
        assert!(events.take(&bytes));
        assert!(!events.take(b"x"));
        assert_eq!(events.bytes.len(), EVENT_BYTES_MAX);
    }

    #[test]
    fn what_is_said_is_harmless_before_anything_is_made_of_it() {
        let event = Event {
            name: "policy".to_owned(),
            data: br#"{"a\u001b[2J at h":{"policy":{"closed":"\u009b31m","active":null}}}"#
                .to_vec(),
        };
        let Ok(Some(News::Policies(policies))) = news(&event) else {
            panic!()
        };
        let said = format!("{policies:?}");
        assert!(!said.chars().any(char::is_control), "{said}");
        assert!(policies.contains_key("a\\u{1b}[2J at h"), "{said}");
        let nonsense = Event {
            name: "now".to_owned(),
            data: b"<html>".to_vec(),
        };
        assert!(news(&nonsense).is_err());
        let other = Event {
            name: "you".to_owned(),
            data: Vec::new(),
        };
        assert!(matches!(news(&other), Ok(None)));
    }
}
