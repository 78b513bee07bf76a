//! The calls that a replica's core wants made, what it makes of answers, and how it refuses.

use catalog_core::TradeResult;
use domain::{JournalHead, LedgerEnd, Row, Term};
use order_core::Command;
use order_core::message::{CallFailure, Heard, Outcome, Refused, Shipment, Source};

use order_core::timing::{
    APPEND_TIMEOUT, FETCH_TIMEOUT, JOURNAL_TIMEOUT, SET_IN_SYNC_TIMEOUT, TRADE_TIMEOUT,
};

use super::Replica;
use crate::messages::{Failure, Node, Purpose, Request, Response, Told};
use crate::timeline::Timeline;

impl Replica {
    pub(super) fn call(&mut self, line: &mut Timeline, command: Command) {
        let (to, request, timeout, purpose) = match command {
            Command::Trade {
                call,
                epoch,
                orders,
            } => (
                Node::Catalog,
                Request::Trade { epoch, orders },
                TRADE_TIMEOUT,
                Purpose::Trade(call),
            ),
            Command::SetInSync {
                call,
                epoch,
                change,
                in_sync,
            } => (
                Node::Catalog,
                Request::SetInSync {
                    epoch,
                    change,
                    in_sync,
                },
                SET_IN_SYNC_TIMEOUT,
                Purpose::SetInSync(call),
            ),
            Command::Fetch {
                call,
                source,
                from,
                previous,
                rows_max,
            } => {
                let (to, timeout) = match source {
                    Source::Journal => (Node::Catalog, JOURNAL_TIMEOUT),
                    Source::Peer(peer) => (Node::Replica(peer), FETCH_TIMEOUT),
                };
                let request = Request::ReadRows {
                    from,
                    previous: Some(previous),
                    rows_max,
                };
                (to, request, timeout, Purpose::Fetch(call))
            }
            Command::Append {
                call,
                peer,
                epoch,
                shipment,
                committed,
            } => {
                let rows = match shipment {
                    Shipment::Rows(rows) => rows,
                    Shipment::Stored { from, rows_max } => {
                        let Ok(mut rows) = self.read(from, rows_max) else {
                            assert!(self.damaged, "what is durable can be read");
                            return; // it ends
                        };
                        rows.retain(|row| row.number < committed);
                        rows
                    }
                };
                let purpose = Purpose::Append(call, peer);
                let request = Request::Append {
                    epoch,
                    leader: self.id,
                    rows,
                    committed,
                };
                (Node::Replica(peer), request, APPEND_TIMEOUT, purpose)
            }
            other => unreachable!("not a call: {other:?}"),
        };
        line.call(self.run, to, request, timeout, purpose);
    }
}

pub(super) fn failure(refused: Refused) -> Failure {
    match refused {
        Refused::Stale { .. } | Refused::LetGo { .. } | Refused::LeadsNoMore { .. } => {
            Failure::Fenced
        }
        Refused::Unconfirmed { .. }
        | Refused::OtherLeader { .. }
        | Refused::StoreFailed
        | Refused::Broken { .. } => Failure::Refused,
    }
}

fn call_failure(failure: Failure) -> CallFailure {
    match failure {
        Failure::Fenced => CallFailure::Fenced,
        Failure::Beyond => CallFailure::Beyond,
        Failure::Differs => CallFailure::Differs,
        Failure::NotMissing => CallFailure::NotMissing,
        Failure::OtherJournal | Failure::Refused => CallFailure::Refused,
        Failure::Unavailable | Failure::TimedOut => CallFailure::Failed,
    }
}

pub(super) fn outcomes(told: Told) -> Result<Vec<Outcome>, CallFailure> {
    let Response::Traded(results) = told.map_err(call_failure)? else {
        unreachable!("a trade is answered with results")
    };
    let outcome = |result| match result {
        TradeResult::Row(row) => Outcome::Row(row),
        TradeResult::Refused(refusal) => Outcome::Refused(refusal),
    };
    Ok(results.into_iter().map(outcome).collect())
}

pub(super) fn heard(told: Told) -> Result<Heard, CallFailure> {
    let Response::Leadership(said) = told.map_err(call_failure)? else {
        unreachable!("who leads is answered with who leads")
    };
    let leadership = &said.leadership;
    Ok(Heard {
        identity: said.identity,
        head: JournalHead {
            term: Term {
                epoch: leadership.term.epoch,
                leader: leadership.term.leader,
            },
            end: leadership.end,
        },
        healed: said.healed,
        run: Some(said.run),
    })
}

pub(super) fn reported(told: Told) -> Result<(), CallFailure> {
    told.map(drop).map_err(call_failure)
}

pub(super) fn rows(told: Told) -> Result<Vec<Row>, CallFailure> {
    let Response::Rows(rows) = told.map_err(call_failure)? else {
        unreachable!("rows are answered with rows")
    };
    Ok(rows)
}

pub(super) fn held(told: Told) -> Result<LedgerEnd, CallFailure> {
    let Response::Held(end) = told.map_err(call_failure)? else {
        unreachable!("an append is answered with what is held")
    };
    Ok(end)
}
