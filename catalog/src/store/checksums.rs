//! Checksums of what no hash chain covers, the same in every store.
//!
//! Each has the journal's id in it: what belongs to one journal does not pass for another's.

use std::time::Duration;

use domain::{JournalId, ListingDigest, ReplicaId, Side};
use storage::Checksum;

use super::words::refusal_name;
use catalog_core::{RefusedOrder, Term};

/// Of a journal's id and the stocks that it began with.
pub(super) fn of_identity(journal: JournalId, listing: &ListingDigest) -> Checksum {
    Checksum::of("the journal's id, or its listing,", journal).bytes(listing.as_bytes())
}

/// Of who leads, and the in-sync set.
pub(super) fn of_term(journal: JournalId, term: &Term) -> Checksum {
    let checksum = Checksum::of("who leads, or the in-sync set,", journal)
        .number(term.epoch.0)
        .number(term.leader.map_or(0, ReplicaId::get).into())
        .number(term.change.get());
    let in_sync = term.in_sync.iter();
    in_sync.fold(checksum, |checksum, replica| {
        checksum.number(replica.get().into())
    })
}

/// Of how long sessions may last, in whole milliseconds.
pub(super) fn of_sessions(journal: JournalId, term: Option<Duration>) -> Checksum {
    let checksum = Checksum::of("the note of gateways' sessions", journal);
    match term {
        Some(term) => checksum.bytes(&term.as_millis().to_be_bytes()),
        None => checksum,
    }
}

/// Of an order that was refused.
pub(super) fn of_refused(journal: JournalId, refused: &RefusedOrder) -> Checksum {
    let RefusedOrder { order, refusal } = refused;
    Checksum::of("an order that was refused", journal)
        .text(order.key.as_str())
        .text(order.name.as_str())
        .number(match order.side {
            Side::Buy => 1,
            Side::Sell => 2,
        })
        .number(order.quantity.get())
        .text(refusal_name(*refusal))
}
