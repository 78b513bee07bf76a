//! Server-sent events of `GET /events`.

use std::io::{self, BufRead};

use serde_json::Value;

/// An event `order`: its id, and its data.
pub type Event = (u64, Value);

/// The next one of a body; `None` at its end.
pub fn next_event(body: &mut impl BufRead) -> io::Result<Option<Event>> {
    let (mut id, mut data, mut name) = (None, None, None);
    loop {
        let mut line = String::new();
        if body.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        match line.trim_end().split_once(": ") {
            Some(("id", number)) => id = Some(number.parse().unwrap()),
            Some(("event", event)) => name = Some(event.to_owned()),
            Some(("data", json)) => data = Some(serde_json::from_str(json).unwrap()),
            _ if line == "\n" && id.is_some() => break,
            _ => {}
        }
    }
    assert_eq!(name.as_deref(), Some("order"));
    Ok(Some((id.expect("an id"), data.expect("data"))))
}
