//! What a replica has to be told.

use std::collections::BTreeSet;
use std::path::PathBuf;

use domain::ReplicaId;
use monitor::Monitor;
use rpc::connect::UrlError;
use tls::Cluster;
use traces::Traces;

/// Peers that a replica may have.
pub const PEERS_MAX: usize = 15;

#[derive(Debug, Clone)]
pub struct Config {
    /// Which replica this is.
    pub id: ReplicaId,
    /// The catalogs' URLs: one, or several of which one is active.
    pub catalogs: Vec<String>,
    /// The other replicas and their URLs.
    pub peers: Vec<(ReplicaId, String)>,
    /// Where its orders are kept.
    pub data_dir: PathBuf,
    /// Whether a damaged ledger is set aside and copied anew, rather than refused.
    pub rebuild: bool,
    /// How many rows of the ledger stay in the database; those before them move into files of their own. All of them
    /// stay without it.
    pub archive_after: Option<u64>,
    /// Its certificate and whom it believes; in the clear, and believing everybody, without one.
    pub cluster: Option<Cluster>,
    /// Told what this replica is at the moment.
    pub monitor: Monitor,
    /// Where orders that are traced are.
    pub traces: Traces,
}

impl Config {
    /// Refuses settings that contradict each other.
    ///
    /// # Errors
    /// Saying what is wrong.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if self.peers.len() > PEERS_MAX {
            return Err(ConfigError::TooManyPeers {
                count: self.peers.len(),
            });
        }
        let mut ids = BTreeSet::new();
        let mut addresses = BTreeSet::new();
        for url in &self.catalogs {
            if !addresses.insert(url) {
                return Err(ConfigError::SameAddress(url.clone()));
            }
        }
        for (id, url) in &self.peers {
            if *id == self.id {
                return Err(ConfigError::OwnPeer(*id));
            }
            if !ids.insert(*id) {
                return Err(ConfigError::SamePeer(*id));
            }
            if !addresses.insert(url) {
                return Err(ConfigError::SameAddress(url.clone()));
            }
        }
        Ok(())
    }
}

/// Why settings are refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("`{url}` cannot be connected to: {source}")]
    Url { url: String, source: UrlError },
    /// More peers than [`PEERS_MAX`].
    #[error("{count} peers are named; at most {PEERS_MAX} are allowed")]
    TooManyPeers { count: usize },
    /// A replica among its own peers.
    #[error("replica {0} is named as its own peer")]
    OwnPeer(ReplicaId),
    /// Two peers with one id.
    #[error("peer {0} is named twice")]
    SamePeer(ReplicaId),
    /// Two peers, or a peer and the catalog, at one address.
    #[error("the address {0} is named twice")]
    SameAddress(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(peers: &[(u32, &str)]) -> Result<(), ConfigError> {
        let peers = peers
            .iter()
            .map(|&(id, url)| (ReplicaId::new(id).unwrap(), url.to_owned()))
            .collect();
        let id = ReplicaId::new(1).unwrap();
        Config {
            id,
            catalogs: vec!["http://c:1".into()],
            peers,
            data_dir: "data".into(),
            rebuild: false,
            archive_after: None,
            cluster: None,
            monitor: Monitor::default(),
            traces: Traces::default(),
        }
        .validate()
    }

    #[test]
    fn contradictory_settings_are_refused() {
        check(&[]).unwrap();
        check(&[(2, "http://a:1"), (3, "http://a:2")]).unwrap();
        for peers in [
            &[(1, "http://a:1")][..],
            &[(2, "http://a:1"), (2, "http://a:2")],
            &[(2, "http://a:1"), (3, "http://a:1")],
            &[(2, "http://c:1")],
        ] {
            assert!(check(peers).is_err(), "{peers:?}");
        }
    }
}
