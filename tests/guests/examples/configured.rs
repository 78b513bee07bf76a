//! Answers `/config` with its configuration, which must begin with `say `: another is refused, with
//! words of its own on two lines.

use frontend_guest::types::{Action, Decision, Request, Response};
use frontend_guest::{Configured, DefaultPolicy, Policy, export};

struct Says(Vec<u8>);

impl Configured for Says {
    fn from_config(config: &[u8]) -> Result<Self, String> {
        let said = config.strip_prefix(b"say ");
        let shown = || config.escape_ascii().to_string();
        let said = said.ok_or_else(|| format!("it begins with another word:\n`{}`", shown()))?;
        Ok(Self(said.to_vec()))
    }
}

impl Policy for Says {
    fn name(&self) -> &'static str {
        "configured"
    }

    fn on_request(&self, request: &Request) -> Decision {
        if request.target != "/config" {
            return DefaultPolicy.on_request(request);
        }
        Action::Respond(Response {
            status: 200,
            headers: Vec::new(),
            body: self.0.clone(),
            keep_ms: None,
        })
        .into()
    }
}

export!(configured Says);
