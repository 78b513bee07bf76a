//! What readers see of the stocks while trades become durable and caches let go.
//!
//! A change becomes visible in steps. It is [prepared](Visibility::prepare) before it is
//! written to disk, which tells the holders to let go; it becomes
//! [durable](Visibility::mark_durable); and it is shown once it is durable and nobody holds the value
//! before it any more. Until then readers see the old value, which they may not keep. So no
//! reader sees a value while another may still be served an older one out of a cache.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::Duration;

use domain::time::BootTime;
use domain::{SessionId, StockName, Version};

use super::ablation::Rule;
use super::leases::{
    Acknowledged, Floor, Invalidation, Leases, NotOpened, Renewal, Round, SessionExpired,
};
use super::ledger::{Batch, Stock};

/// A stock as a reader sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub stock: Stock,
    /// Whether the session now holds the stock, and will be told to let go of it.
    pub cacheable: bool,
}

/// The visible stocks, and the leases on them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Visibility {
    stocks: BTreeMap<StockName, VisibleStock>,
    leases: Leases,
    /// Names of the stocks of the batch that is on its way to the disk.
    prepared: Vec<StockName>,
    serving_from: BootTime,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct VisibleStock {
    visible: Stock,
    /// The newest durable value, where it is not visible yet.
    durable: Option<Stock>,
    /// The value on its way to the disk.
    prepared: Option<Version>,
}

impl VisibleStock {
    /// While a change is under way nobody new may hold the stock; so its holders get fewer.
    fn is_changing(&self) -> bool {
        self.durable.is_some() || self.prepared.is_some()
    }
}

impl Visibility {
    /// Shows `stocks`, which are durable. Nothing may be read or traded for
    /// `unsettled`, counted from `now`: sessions of a run before may last that long.
    pub fn new(
        stocks: impl IntoIterator<Item = Stock>,
        leases: Leases,
        unsettled: Duration,
        now: BootTime,
    ) -> Self {
        let shown = |stock: Stock| {
            (
                stock.name.clone(),
                VisibleStock {
                    visible: stock,
                    durable: None,
                    prepared: None,
                },
            )
        };
        let serving_from = if leases.rules().keep(Rule::RestartWait) {
            now + unsettled
        } else {
            now
        };
        Self {
            stocks: stocks.into_iter().map(shown).collect(),
            leases,
            prepared: Vec::new(),
            serving_from,
        }
    }

    /// See [`Leases::holds_any`].
    pub fn holds_any(&self, id: SessionId) -> bool {
        self.leases.holds_any(id)
    }

    /// See [`Leases::lease_max`].
    pub fn lease_max(&self) -> Duration {
        self.leases.lease_max()
    }

    /// Nothing may be read or traded before that: sessions of before may last so long.
    pub fn serve_from(&mut self, at: BootTime) {
        if self.leases.rules().keep(Rule::RestartWait) {
            self.serving_from = self.serving_from.max(at);
        }
    }

    /// From when on stocks may be read and traded.
    pub fn serving_from(&self) -> BootTime {
        self.serving_from
    }

    /// Reads one stock, for a session that would keep it where one is given.
    pub fn read(
        &mut self,
        name: &StockName,
        session: Option<SessionId>,
        now: BootTime,
    ) -> Option<Seen> {
        let shown = self.stocks.get(name)?;
        if !shown.visible.is_listed {
            return None; // not yet
        }
        let cacheable = !shown.is_changing()
            && session.is_some_and(|session| self.leases.register(session, name, now));
        Some(Seen {
            stock: shown.visible.clone(),
            cacheable,
        })
    }

    /// Whether a change of the stock is on its way to readers: until it is shown nobody new may hold the stock.
    pub fn is_changing(&self, name: &StockName) -> bool {
        let shown = self.stocks.get(name);
        shown.is_some_and(VisibleStock::is_changing)
    }

    /// See [`Leases::is_held`].
    pub fn is_held(&self, name: &StockName) -> bool {
        self.leases.is_held(name)
    }

    /// Stocks in name order: those whose names come after `after`, or all.
    pub fn stocks_after(&self, after: Option<&StockName>) -> impl Iterator<Item = &Stock> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let stocks = self.stocks.range::<StockName, _>((from, Bound::Unbounded));
        let shown = stocks.map(|(_, shown)| &shown.visible);
        shown.filter(|stock| stock.is_listed)
    }

    /// Whether a stock is shown at that version or a later one, or is not listed and nothing else is on its way.
    pub fn is_shown(&self, name: &StockName, version: Version) -> bool {
        self.stocks
            .get(name)
            .is_none_or(|shown| shown.visible.version >= version)
    }

    /// A batch goes to the disk. Says whom to tell to let go of what.
    ///
    /// # Panics
    /// Where the batch before has not come back.
    pub fn prepare(&mut self, batch: &Batch) -> Vec<Invalidation> {
        assert!(
            self.prepared.is_empty(),
            "one batch at a time is on its way to the disk"
        );
        for stock in &batch.stocks {
            let shown = self.stocks.entry(stock.name.clone());
            // One that is about to be listed is not there until it is shown.
            let shown = shown.or_insert_with(|| VisibleStock {
                visible: Stock {
                    version: Version(0),
                    is_listed: false,
                    ..stock.clone()
                },
                durable: None,
                prepared: None,
            });
            let newest = shown.durable.as_ref().unwrap_or(&shown.visible).version;
            assert!(stock.version > newest, "versions of {} rise", stock.name);
            shown.prepared = Some(stock.version);
            self.prepared.push(stock.name.clone());
        }
        let floor = |stock: &Stock| Floor {
            name: stock.name.clone(),
            version: stock.version,
        };
        let floors: Vec<Floor> = batch.stocks.iter().map(floor).collect();
        self.leases.invalidate(&floors)
    }

    /// The prepared batch is durable: shows what nobody holds.
    ///
    /// # Panics
    /// Where it is not the prepared batch.
    pub fn mark_durable(&mut self, stocks: &[Stock]) {
        let prepared = std::mem::take(&mut self.prepared);
        assert!(
            prepared.iter().eq(stocks.iter().map(|stock| &stock.name)),
            "another batch"
        );
        for stock in stocks {
            let shown = self.shown(&stock.name);
            assert_eq!(shown.prepared.take(), Some(stock.version), "another change");
            shown.durable = Some(stock.clone());
        }
        self.show(&prepared);
    }

    /// The prepared batch is not durable, and never will be.
    pub fn abandon(&mut self) {
        for name in std::mem::take(&mut self.prepared) {
            self.shown(&name).prepared = None;
            self.forget_unlisted(&name);
        }
    }

    /// See [`Leases::open`].
    pub fn open(&mut self, id: SessionId, received: BootTime) -> Result<(), NotOpened> {
        self.leases.open(id, received)
    }

    /// See [`Leases::renew`].
    pub fn renew(
        &mut self,
        id: SessionId,
        nonce: u64,
        received: BootTime,
    ) -> Result<Renewal, SessionExpired> {
        self.leases.renew(id, nonce, received)
    }

    /// See [`Leases::acknowledge`]; shows what nobody holds any more. Returns the nonce of
    /// the renewal that is now to be answered.
    pub fn acknowledge(
        &mut self,
        id: SessionId,
        round: Round,
        now: BootTime,
    ) -> Result<Option<u64>, SessionExpired> {
        let Acknowledged { released, renewed } = self.leases.acknowledge(id, round, now)?;
        self.show(&released);
        Ok(renewed)
    }

    /// See [`Leases::release`]; shows what nobody holds any more.
    pub fn release(&mut self, id: SessionId) {
        let released = self.leases.release(id);
        self.show(&released);
    }

    /// See [`Leases::disconnect`].
    pub fn disconnect(&mut self, id: SessionId) {
        self.leases.disconnect(id);
    }

    /// See [`Leases::expire`]; shows what nobody holds any more. Returns the sessions that
    /// are over.
    pub fn expire(&mut self, now: BootTime) -> Vec<SessionId> {
        let over = self.leases.expire(now);
        for (_, released) in &over {
            self.show(released);
        }
        over.into_iter().map(|(id, _)| id).collect()
    }

    /// See [`Leases::next_expiry`].
    pub fn next_expiry(&self) -> Option<BootTime> {
        self.leases.next_expiry()
    }

    /// Whether no gateway can be serving anything that it holds, neither from this run nor
    /// from one before.
    pub fn is_unheld(&self, now: BootTime) -> bool {
        self.leases.is_empty() && now >= self.serving_from
    }

    /// Makes durable values visible where nobody holds the value before.
    fn show(&mut self, names: &[StockName]) {
        for name in names {
            if self.leases.is_held(name) && self.leases.rules().keep(Rule::DelayedVisibility) {
                continue;
            }
            let Some(shown) = self.stocks.get_mut(name) else {
                continue;
            };
            if let Some(durable) = shown.durable.take() {
                assert!(
                    durable.version > shown.visible.version,
                    "versions of {name} rise"
                );
                shown.visible = durable;
            }
            self.forget_unlisted(name);
        }
    }

    /// There is no stock where none is listed and nothing else is on its way.
    fn forget_unlisted(&mut self, name: &StockName) {
        let shown = self.stocks.get(name);
        if shown.is_some_and(|shown| !shown.visible.is_listed && !shown.is_changing()) {
            self.stocks.remove(name);
        }
    }

    fn shown(&mut self, name: &StockName) -> &mut VisibleStock {
        self.stocks
            .get_mut(name)
            .expect("it is there while it changes")
    }
}

#[cfg(test)]
mod tests;
