//! What other processes say of terms and ledgers, read into the domain.

use std::time::Duration;

use domain::{
    ChainHash, Epoch, Identity, Invalid, JournalHead, LedgerEnd, LedgerWait, ListingDigest,
    Protocol, Protocols, ReplicaId, RowNumber, StartWaits, Term,
};

use tonic::Status;
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;

use crate::catalog::v1::catalog_client::CatalogClient;
use crate::catalog::v1::{GetLeadershipRequest, Leadership};
use crate::{Malformed, epoch, identity, row_number};

/// An epoch and its leader.
///
/// # Errors
/// Where the epoch is higher than stores can hold, or there is no leader.
pub fn term(epoch: u64, leader: u32) -> Result<(Epoch, ReplicaId), Malformed> {
    let epoch = self::epoch(epoch)?;
    let leader = ReplicaId::new(leader).ok_or_else(|| Invalid::new("leader", "is 0"))?;
    Ok((epoch, leader))
}

/// Asks the catalog at the other end whether it is the active one, of that journal where one is named. Returns the head of
/// its answer.
///
/// # Errors
/// Where it stands by, or another one may have taken over, or it keeps another journal, or does not answer.
pub async fn ask_if_active(catalog: Channel, journal: Vec<u8>) -> Result<MetadataMap, Status> {
    let asked = GetLeadershipRequest { journal };
    let answer = CatalogClient::new(catalog).get_leadership(asked).await;
    answer.map(|answer| answer.metadata().clone())
}

/// Who leads and how long the journal is, as the catalog says.
///
/// # Errors
/// Where a field is out of range.
pub fn head(leadership: &Leadership) -> Result<JournalHead, Malformed> {
    let term = match leadership.epoch {
        0 => Term::default(),
        epoch => {
            let (epoch, leader) = self::term(epoch, leadership.leader)?;
            Term {
                epoch,
                leader: Some(leader),
            }
        }
    };
    Ok(JournalHead {
        term,
        end: end(
            leadership.journal_rows,
            leadership.stock_changes,
            &leadership.chain_hash,
        )?,
    })
}

/// The version of the protocol that the bazaar is at.
///
/// # Errors
/// Where this release does not speak it.
pub fn protocol(leadership: &Leadership) -> Result<Protocol, Malformed> {
    let protocol = Protocol::new(leadership.protocol).unwrap_or(Protocol::FIRST);
    let own = Protocols::OWN;
    match own.contains(protocol) {
        true => Ok(protocol),
        false => {
            let problem = format!(
                "is at version {protocol}, and this release speaks {own}: start one that speaks it"
            );
            Err(Malformed(Invalid::new("the bazaar's protocol", problem)))
        }
    }
}

/// What a catalog that starts waits for still. One of release 0.1.0 does not say for whose ledgers.
pub fn start_waits(leadership: &Leadership) -> StartWaits {
    let ledgers = || LedgerWait {
        unheard: leadership
            .unheard
            .iter()
            .copied()
            .filter_map(ReplicaId::new)
            .collect(),
        at_most: leadership.unheard_ms.map(Duration::from_millis),
    };
    StartWaits {
        leases: Duration::from_millis(leadership.unsettled_ms),
        ledgers: (!leadership.healed).then(ledgers),
    }
}

/// The same, to be said.
pub fn say_start_waits(waits: StartWaits, leadership: &mut Leadership) {
    leadership.unsettled_ms = waits.leases.as_millis() as u64;
    leadership.healed = waits.ledgers.is_none();
    let LedgerWait { unheard, at_most } = waits.ledgers.unwrap_or_default();
    leadership.unheard = unheard.into_iter().map(ReplicaId::get).collect();
    leadership.unheard_ms = at_most.map(|at_most| at_most.as_millis() as u64);
}

/// Which journal the catalog keeps.
///
/// # Errors
/// Where it does not say.
pub fn identity(leadership: &Leadership) -> Result<Identity, Malformed> {
    Ok(Identity {
        journal: identity::named(&leadership.journal)?,
        listing: ListingDigest::try_from(leadership.listing.as_slice())?,
        lease_horizon: Duration::from_millis(leadership.lease_horizon_ms),
    })
}

/// Where a ledger ends.
///
/// # Errors
/// Where there are more rows than stores can hold, or more of them change stocks, or the hash has another length.
pub fn end(rows: u64, stock_changes: u64, chain: &[u8]) -> Result<LedgerEnd, Malformed> {
    let stock_changes = crate::stock_changes(stock_changes, rows)?;
    let rows: RowNumber = row_number(rows)?;
    Ok(LedgerEnd {
        rows,
        stock_changes,
        chain: ChainHash::try_from(chain)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_waits_is_what_is_read() {
        let ledgers = LedgerWait {
            unheard: [2, 3].into_iter().filter_map(ReplicaId::new).collect(),
            at_most: Some(Duration::from_millis(900)),
        };
        for waits in [
            StartWaits::default(),
            StartWaits {
                leases: Duration::from_secs(66),
                ledgers: Some(ledgers),
            },
            StartWaits {
                leases: Duration::ZERO,
                ledgers: Some(LedgerWait::default()),
            },
        ] {
            let mut said = Leadership::default();
            say_start_waits(waits.clone(), &mut said);
            assert_eq!(start_waits(&said), waits);
        }
    }
}
