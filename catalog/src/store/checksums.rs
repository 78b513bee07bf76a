//! Checksums of what no hash chain covers, the same in every store.
//!
//! Each has the journal's id in it: what belongs to one journal does not pass for another's.

use std::time::Duration;

use domain::{Entry, JournalId, ListingDigest, Protocol, ReplicaId, Side};
use storage::{Checksum, stock_change};

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

/// Of the version of the protocol that the bazaar is at.
pub(super) fn of_protocol(journal: JournalId, protocol: Protocol) -> Checksum {
    Checksum::of("the version of the protocol", journal).number(protocol.get().into())
}

/// Of an order that was refused.
pub(super) fn of_refused(journal: JournalId, refused: &RefusedOrder) -> Checksum {
    let RefusedOrder { entry, refusal } = refused;
    let of = |what| {
        let checksum = Checksum::of(what, journal).text(entry.key().as_str());
        checksum.text(entry.name().as_str())
    };
    let of_entry = match entry {
        Entry::Order(order) => of("an order that was refused")
            .number(match order.side {
                Side::Buy => 1,
                Side::Sell => 2,
            })
            .number(order.quantity.get()),
        Entry::StockChange(change) => {
            of("a change of a stock that was refused").text(&stock_change::text(change))
        }
    };
    of_entry.text(refusal_name(*refusal))
}
