//! Counts lookups by what was looked up and what came of it, and says so of each.

use frontend_guest::types::{Counter, Decision, Manifest, Outcome, Request};
use frontend_guest::{DefaultPolicy, Policy, export};

const LOOKUPS: &str = "lookups";

struct Observes;

impl Policy for Observes {
    fn name(&self) -> &'static str {
        "observes"
    }

    fn counters(&self) -> Vec<Counter> {
        let counter = |name: &str, labels: &[&str]| Counter {
            name: name.to_owned(),
            help: "Lookups, by what was \"looked up\".".to_owned(),
            labels: labels.iter().map(|label| (*label).to_owned()).collect(),
        };
        vec![
            counter(LOOKUPS, &["target", "found"]),
            counter("bytes", &[]),
        ]
    }

    fn describe(&self) -> Manifest {
        Manifest {
            name: self.name().to_owned(),
            counters: self.counters(),
            ..DefaultPolicy.describe()
        }
    }

    fn on_request(&self, request: &Request) -> Decision {
        let bytes = request.target.len() as u64;
        DefaultPolicy
            .on_request(request)
            .counting("bytes", &[], bytes)
    }

    fn on_outcome(&self, request: &Request, memo: &[u8], outcome: &Outcome) -> Decision {
        let found = match outcome {
            Outcome::Stock(_) => "yes",
            _ => "no",
        };
        let labels = [request.target.as_str(), found];
        DefaultPolicy
            .on_outcome(request, memo, outcome)
            .counting(LOOKUPS, &labels, 1)
            .logging(format!("{}\nwas found: {found}", request.target))
    }
}

export!(Observes);
