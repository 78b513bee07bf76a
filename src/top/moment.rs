//! What a gateway says of everybody once a second, and of policies whenever they change: `GET /console/events`.

use std::collections::BTreeMap;
use std::sync::Arc;

use frontend_policy::replay::Found;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::figures::{Figures, Sources};
use crate::admin::{Change, Policies};

/// How everybody is.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Moment {
    /// Milliseconds since 1970, by the gateway's clock.
    pub at_ms: u64,
    #[serde(default)]
    pub journal: Option<String>,
    /// The version of the services' protocol.
    #[serde(default)]
    pub protocol: Option<u64>,
    #[serde(default)]
    pub epoch: u64,
    #[serde(default)]
    pub leader: Option<u32>,
    /// The journal, as the active catalog has it.
    pub catalog: Journal,
    #[serde(default)]
    pub catalogs: Vec<Catalog>,
    #[serde(default)]
    pub replicas: Vec<Replica>,
    #[serde(default)]
    pub gateways: Vec<Gateway>,
    /// Whether the catalog says which others there are.
    #[serde(default)]
    pub gateways_known: bool,
    /// How many more there are than it lists.
    #[serde(default)]
    pub gateways_left_out: u64,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Journal {
    pub reachable: bool,
    pub journal_rows: Option<u64>,
    /// How many of them change stocks.
    pub stock_changes: Option<u64>,
    pub chain_hash: Option<String>,
    pub in_sync: Vec<u32>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Catalog {
    pub url: String,
    /// `active`, `standby` or `silent`.
    pub role: String,
    pub release: Option<String>,
    #[serde(deserialize_with = "where_in_form")]
    pub said: Option<Said>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Replica {
    pub id: u32,
    pub healthy: bool,
    /// It keeps another journal's ledger.
    pub foreign: bool,
    pub role: Option<String>,
    pub epoch: Option<u64>,
    pub orders: Option<u64>,
    pub rows: Option<u64>,
    pub chain_hash: Option<String>,
    pub reaches_catalog: Option<bool>,
    pub round_trip_us: Option<u64>,
    #[serde(deserialize_with = "where_in_form")]
    pub said: Option<Said>,
}

/// What a catalog or a replica says of itself.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Said {
    pub ready: bool,
    pub says: String,
    pub figures: Arc<Figures>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Gateway {
    pub key: String,
    /// It is the one that is asked.
    pub own: bool,
    pub release: String,
    /// How old its report is.
    pub age_ms: u64,
    #[serde(deserialize_with = "where_in_form")]
    pub report: Option<Report>,
}

/// What a gateway says of itself.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Report {
    pub why_not_ready: Option<String>,
    pub epoch: Option<u64>,
    pub lease: Option<Lease>,
    /// For how long its policy has been active.
    pub active_ms: Option<f64>,
    /// How old is what it says of its policy.
    pub policy_age_ms: Option<f64>,
    /// It would have been too long.
    pub is_cut: bool,
    pub figures: Arc<Figures>,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub struct Lease {
    pub length_ms: u64,
}

/// What others say of themselves is theirs: of what is not in its form nothing is known.
fn where_in_form<'de, T: DeserializeOwned, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    let said = Value::deserialize(deserializer)?;
    Ok(serde_json::from_value(said).unwrap_or(None))
}

impl Moment {
    /// In seconds since 1970.
    pub fn at(&self) -> f64 {
        self.at_ms as f64 / 1000.0
    }

    /// How many seconds before this something was.
    pub fn seconds_since(&self, at_ms: u64) -> f64 {
        self.at() - at_ms as f64 / 1000.0
    }

    /// Everybody who counts, by which a process is known again.
    pub fn sources(&self) -> Sources {
        let gateways = self.gateways.iter().filter_map(|gateway| {
            let report = gateway.report.as_ref()?;
            Some((gateway.source(), Arc::clone(&report.figures)))
        });
        let replicas = self.replicas.iter().filter_map(|replica| {
            let said = replica.said.as_ref()?;
            Some((format!("replica {}", replica.id), Arc::clone(&said.figures)))
        });
        let catalogs = self.catalogs.iter().filter_map(|catalog| {
            let said = catalog.said.as_ref()?;
            Some((catalog.source(), Arc::clone(&said.figures)))
        });
        gateways.chain(replicas).chain(catalogs).collect()
    }

    pub fn is_in_sync(&self, replica: u32) -> bool {
        self.catalog.in_sync.contains(&replica)
    }
}

impl Gateway {
    /// What its figures are known by.
    pub fn source(&self) -> String {
        source_of_gateway(&self.key)
    }
}

pub fn source_of_gateway(key: &str) -> String {
    format!("gateway {key}")
}

impl Catalog {
    /// What its figures are known by.
    pub fn source(&self) -> String {
        format!("catalog {}", self.url)
    }

    pub fn gauge(&self, name: &str) -> Option<f64> {
        self.said.as_ref()?.figures.gauge(name)
    }
}

impl Replica {
    pub fn gauge(&self, name: &str) -> Option<f64> {
        self.said.as_ref()?.figures.gauge(name)
    }
}

/// A gateway that was there and is not any more.
#[derive(Debug, Clone)]
pub struct Gone {
    pub key: String,
    pub release: String,
    /// For how long.
    pub seconds: f64,
}

// ---- policies ----

/// What gateways say of their policies, by their keys.
pub type AllPolicies = BTreeMap<String, PolicyOf>;

/// What a gateway says of its policy.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct PolicyOf {
    pub policy: Told,
    /// What its candidate would do otherwise.
    #[serde(deserialize_with = "where_in_form")]
    pub differences: Option<Found>,
}

/// Its versions and changes, the latest first.
#[derive(Debug, Clone, Default)]
pub enum Told {
    #[default]
    Nothing,
    /// In a form that is not known here.
    Unclear,
    Policies(Arc<Policies>),
}

impl<'de> Deserialize<'de> for Told {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let said = Value::deserialize(deserializer)?;
        Ok(match serde_json::from_value(said) {
            Ok(None) => Self::Nothing,
            Ok(Some(policies)) => Self::Policies(Arc::new(policies)),
            Err(_) => Self::Unclear,
        })
    }
}

/// Whether a gateway made a change for the better of its clients, with nobody asking for it.
pub fn is_by_itself(change: &Change) -> bool {
    ["rollback", "drop"].contains(&change.what.as_str()) && change.known_by.is_none()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_one_says_of_itself_in_no_form_hides_nobody_else() {
        let moment: Moment = serde_json::from_value(json!({
            "at_ms": 1, "catalog": {},
            "gateways": [
                { "key": "a", "report": "nonsense" },
                { "key": "b", "report": { "figures": 7, "epoch": 3 } },
                { "key": "c", "report": { "epoch": "three" } },
                { "key": "d", "report": null },
            ],
            "replicas": [{ "id": 3, "said": 7 }],
        }))
        .unwrap();
        let epochs = moment.gateways.iter();
        let epochs: Vec<_> = epochs
            .map(|gateway| gateway.report.as_ref().map(|report| report.epoch))
            .collect();
        assert_eq!(epochs, [None, Some(Some(3)), None, None]);
        assert!(moment.replicas[0].said.is_none());
        let told: AllPolicies = serde_json::from_value(json!({
            "a": { "policy": null }, "b": { "policy": 7 }, "c": { "policy": { "active": null } },
        }))
        .unwrap();
        assert!(matches!(told["a"].policy, Told::Nothing));
        assert!(matches!(told["b"].policy, Told::Unclear));
        assert!(matches!(told["c"].policy, Told::Policies(_)));
    }
}
