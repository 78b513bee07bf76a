//! Adds to every reply what its configuration says, a line each: `NAME: VALUE`, or `NAME: VALUE when NAME:
//! VALUE`. It panics at `/stocks/trap…`, and has that refused.

use frontend_guest::types::{Decision, OnFailure, ReplyHeader, Request};
use frontend_guest::{Configured, DefaultPolicy, Policy, export};

struct Adds(Vec<ReplyHeader>);

impl Configured for Adds {
    fn from_config(config: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(config).map_err(|error| error.to_string())?;
        let header = |line: &str| {
            let (header, when) = match line.split_once(" when ") {
                None => (line, None),
                Some((header, when)) => (header, Some(when.split_once(": ")?)),
            };
            let (name, value) = header.split_once(": ")?;
            let header = ReplyHeader::always(name, value);
            Some(match when {
                None => header,
                Some((name, value)) => header.when(name, value),
            })
        };
        let headers: Option<_> = text.lines().map(header).collect();
        headers.map(Self).ok_or_else(|| "no header".to_owned())
    }
}

impl Policy for Adds {
    fn name(&self) -> &'static str {
        "adds"
    }

    fn on_failure(&self) -> OnFailure {
        OnFailure::Refuse
    }

    fn reply_headers(&self) -> Vec<ReplyHeader> {
        self.0.clone()
    }

    fn on_request(&self, request: &Request) -> Decision {
        assert!(!request.target.starts_with("/stocks/trap"), "sprung");
        DefaultPolicy.on_request(request)
    }
}

export!(configured Adds);
