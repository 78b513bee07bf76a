//! Orders that are looked for.

use order_core::lookup::{Absent, Action, Input};
use order_core::timing::{CONFIRM_TIMEOUT, JOURNAL_TIMEOUT};
use order_core::{Event, Lookup};

use domain::OrderNumber;

use super::Replica;
use crate::messages::{Caller, Failure, Purpose, Request, Response};
use crate::oracle::Oracle;
use crate::timeline::{Time, Timeline};

/// An order that somebody looks for.
pub(super) struct LookedFor {
    caller: Caller,
    lookup: Lookup,
    /// Until when it waits for the catalog to be there, while it does.
    waits_until: Option<Time>,
}

impl Replica {
    pub(super) fn get(
        &mut self,
        line: &mut Timeline,
        oracle: &mut Oracle,
        caller: Caller,
        number: OrderNumber,
    ) {
        let lookup = Lookup::new(number, self.plan.order_rules());
        let looked_for = LookedFor {
            caller,
            lookup,
            waits_until: None,
        };
        self.last += 1;
        self.lookups.insert(self.last, looked_for);
        self.look_up(line, oracle, self.last, Input::Begin);
    }

    /// Goes on with a lookup.
    pub(super) fn look_up(
        &mut self,
        line: &mut Timeline,
        oracle: &mut Oracle,
        lookup: u64,
        mut input: Input,
    ) {
        loop {
            let looked_for = self.lookups.get_mut(&lookup).expect("it is looked for");
            let (caller, number) = (looked_for.caller, looked_for.lookup.number());
            looked_for.waits_until = None;
            input = match looked_for.lookup.step(input) {
                Action::ReadLedger => match self.read_order(number) {
                    Ok(row) => Input::Found(row),
                    Err(_) => {
                        self.lookups.remove(&lookup);
                        return line.reply(self.run.node, caller, Err(Failure::Unavailable));
                    }
                },
                Action::FindRecent => Input::Found(self.core.find(number).cloned()),
                Action::AwaitCatalog if self.core.status().reaches_catalog => Input::Reached(true),
                Action::AwaitCatalog => {
                    looked_for.waits_until = Some(line.now() + CONFIRM_TIMEOUT);
                    return;
                }
                Action::AskCatalog => {
                    let request = Request::GetLeadership;
                    let purpose = Purpose::Confirm(lookup);
                    return self.call_catalog(line, request, CONFIRM_TIMEOUT, purpose);
                }
                Action::Fetch { rows } => {
                    let request = Request::ReadOrder(number);
                    let purpose = Purpose::FetchOne(lookup);
                    self.call_catalog(line, request, JOURNAL_TIMEOUT, purpose);
                    return self.step(line, oracle, Some(Event::Heard(rows)));
                }
                Action::Answer(answer) => {
                    self.lookups.remove(&lookup);
                    let told = match answer {
                        Ok(row) => Ok(Response::Row(row)),
                        Err(Absent::DoesNotExist) => Ok(Response::NoSuchOrder),
                        Err(Absent::Unconfirmed | Absent::NotGiven) => Err(Failure::Unavailable),
                    };
                    return line.reply(self.run.node, caller, told);
                }
            };
        }
    }

    /// Goes on with those that wait for the catalog, where it is there or they have waited long enough.
    pub(super) fn look_up_waiting(&mut self, line: &mut Timeline, oracle: &mut Oracle) {
        let (now, is_there) = (line.now(), self.core.status().reaches_catalog);
        let waiting = self.lookups.iter().filter_map(|(&lookup, looked_for)| {
            let until = looked_for.waits_until?;
            (is_there || until <= now).then_some(lookup)
        });
        for lookup in waiting.collect::<Vec<_>>() {
            self.look_up(line, oracle, lookup, Input::Reached(is_there));
        }
    }

    /// When the first of them has waited long enough.
    pub(super) fn lookups_wait_until(&self) -> Option<Time> {
        let waiting = self.lookups.values();
        waiting
            .filter_map(|looked_for| looked_for.waits_until)
            .min()
    }
}
