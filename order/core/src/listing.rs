//! A page of the orders: read from the own ledger, and where that ends, with the catalog's word that the journal ends
//! there, too.

use domain::{OrderNumber, Row, RowNumber, StockName};

use crate::ablation::Rules;
use crate::lookup::{Absent, JournalEnd, Missing};
use crate::message::{CallFailure, Heard};

/// Rows that are looked at for one page: a filter that few orders pass costs no more than this.
pub const LOOKED_AT_MAX: usize = 20_000;

/// Rows that are read from the ledger at a time, at most.
const CHUNK_ROWS: usize = 1_000;

/// How often the ledger's file is looked at again for rows that the journal is known to have. With the pause between two
/// looks they have some 0.4 s to get there, of which an idle leader's need 10 ms and a follower's
/// a little more.
const LOOKS_MAX: u32 = 40;

/// Which page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// From this order on.
    pub from: OrderNumber,
    /// Most orders.
    pub limit: usize,
    /// Those of this stock alone; `None`: of all.
    pub stock: Option<StockName>,
    /// Where the ledger ends, the page may end as well, whatever else is in the journal.
    pub may_lag: bool,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Rows of orders, in number order.
    pub rows: Vec<Row>,
    /// The order behind all that were looked at.
    pub next: OrderNumber,
    /// There may be more orders from there on.
    pub more: bool,
}

/// What a listing is told: what came of the action before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// It starts, or the pause is over.
    Begin,
    /// Of [`Action::Read`]: fewer rows than were asked for where the ledger's file ends.
    Rows(Vec<Row>),
    /// Of [`Action::AwaitCatalog`]: whether it answers.
    Reached(bool),
    /// Of [`Action::AskCatalog`].
    CatalogSaid {
        answer: Result<Heard, CallFailure>,
        /// How many rows the ledger has by now.
        held: RowNumber,
    },
}

/// What is to be done next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Read rows from the ledger's file.
    Read {
        /// From this order's on.
        from: OrderNumber,
        rows_max: usize,
    },
    /// As in a [lookup](crate::lookup::Action::AwaitCatalog).
    AwaitCatalog,
    /// Ask the catalog how long its journal is.
    AskCatalog,
    /// Tell the core that the journal has so many rows, and look again after a pause.
    Pause {
        /// How many rows the journal has.
        rows: RowNumber,
    },
    /// Answer whoever lists.
    Answer(Result<Page, Absent>),
}

/// Lists orders.
#[derive(Debug)]
pub struct Listing {
    wanted: Wanted,
    page: Page,
    looked_at: usize,
    /// How many rows are being read.
    rows_max: usize,
    looks: u32,
    /// Where the journal ended when the catalog was asked: behind this order. All that were acknowledged before the listing
    /// began are before it.
    journal: Option<JournalEnd>,
}

impl Listing {
    pub fn new(wanted: Wanted) -> Self {
        Self {
            page: Page {
                rows: Vec::new(),
                next: wanted.from,
                more: false,
            },
            wanted,
            looked_at: 0,
            rows_max: 0,
            looks: 0,
            journal: None,
        }
    }

    /// Takes in what came of the action before, and returns the next.
    pub fn step(&mut self, input: Input) -> Action {
        match input {
            Input::Begin => self.read(),
            Input::Rows(rows) => {
                let is_end = rows.len() < self.rows_max;
                let is_one_left = self.take(rows);
                if is_one_left || self.looked_at >= LOOKED_AT_MAX {
                    return self.answer(true);
                }
                match is_end {
                    true => self.reached_end(),
                    false => self.read(),
                }
            }
            Input::Reached(true) => Action::AskCatalog,
            Input::Reached(false) => self.unconfirmed(),
            Input::CatalogSaid { answer, held } => {
                let journal = answer.ok().map(JournalEnd::from);
                match Missing::of(self.page.next, held, journal, Rules::default()) {
                    Missing::DoesNotExist => self.answer(false),
                    Missing::Unknown => self.unconfirmed(),
                    Missing::InJournal { rows } => {
                        self.journal = journal;
                        Action::Pause { rows }
                    }
                }
            }
        }
    }

    fn read(&mut self) -> Action {
        // The one more tells whether there are more.
        let left = self.wanted.limit - self.page.rows.len() + 1;
        self.rows_max = match self.wanted.stock {
            None => left.min(CHUNK_ROWS),
            Some(_) => CHUNK_ROWS,
        };
        Action::Read {
            from: self.page.next,
            rows_max: self.rows_max,
        }
    }

    /// Takes orders onto the page, and says whether there are more than that has room for.
    fn take(&mut self, rows: Vec<Row>) -> bool {
        for row in rows {
            self.looked_at += 1;
            let Some(number) = row.order_number() else {
                continue;
            };
            let stock = self.wanted.stock.as_ref();
            if stock.is_none_or(|stock| stock == row.entry.name()) {
                if self.is_full() {
                    return true;
                }
                self.page.rows.push(row);
            }
            self.page.next = OrderNumber(number.0 + 1);
        }
        false
    }

    fn is_full(&self) -> bool {
        self.page.rows.len() == self.wanted.limit
    }

    /// Nobody says whether the journal ends where the ledger does. A full page needs no word: there may be more.
    fn unconfirmed(&mut self) -> Action {
        match self.is_full() {
            true => self.answer(true),
            false => Action::Answer(Err(Absent::Unconfirmed)),
        }
    }

    /// There is no more in the ledger's file.
    fn reached_end(&mut self) -> Action {
        match self.journal {
            _ if self.wanted.may_lag => self.answer(false),
            None => Action::AwaitCatalog,
            Some(journal) if self.page.next >= journal.end.orders() => self.answer(false),
            Some(_) if self.looks == LOOKS_MAX => self.unconfirmed(),
            Some(journal) => {
                self.looks += 1;
                Action::Pause {
                    rows: journal.end.rows,
                }
            }
        }
    }

    fn answer(&mut self, more: bool) -> Action {
        let nothing = Page {
            rows: Vec::new(),
            next: self.page.next,
            more,
        };
        let page = std::mem::replace(&mut self.page, nothing);
        Action::Answer(Ok(Page { more, ..page }))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use domain::{Identity, JournalId, ListingDigest};

    use super::*;
    use crate::tests::bench::{head, journal};

    fn wanted(from: u64, limit: usize) -> Wanted {
        Wanted {
            from: OrderNumber(from),
            limit,
            stock: None,
            may_lag: false,
        }
    }

    fn heard(rows: usize, healed: bool) -> Result<Heard, CallFailure> {
        Ok(Heard {
            identity: Identity {
                journal: JournalId::new([1; JournalId::BYTES]),
                listing: ListingDigest::new([0; ListingDigest::BYTES]),
                lease_horizon: Duration::from_secs(1),
            },
            head: head(4, 2, &journal(rows)),
            healed,
            run: None,
        })
    }

    /// Lists in a ledger's file of so many rows, until something else than a row is wanted.
    fn read(listing: &mut Listing, input: Input, file: &[Row]) -> Action {
        let mut action = listing.step(input);
        while let Action::Read { from, rows_max } = action {
            let rows = file.iter().skip(from.0 as usize).take(rows_max);
            action = listing.step(Input::Rows(rows.cloned().collect()));
        }
        action
    }

    fn page(rows: &[Row], next: u64, more: bool) -> Action {
        Action::Answer(Ok(Page {
            rows: rows.to_vec(),
            next: OrderNumber(next),
            more,
        }))
    }

    #[test]
    fn a_full_page_is_given_without_a_question() {
        let file = journal(5);
        for (from, limit) in [(0, 1), (0, 4), (3, 1)] {
            let mut listing = Listing::new(wanted(from, limit));
            let until = from as usize + limit;
            let expected = page(&file[from as usize..until], until as u64, true);
            assert_eq!(read(&mut listing, Input::Begin, &file), expected);
        }
        let mut listing = Listing::new(wanted(3, 2));
        let given = read(&mut listing, Input::Begin, &file);
        assert_eq!(given, Action::AwaitCatalog, "there may be none after it");
    }

    #[test]
    fn a_page_ends_where_the_catalog_says_that_the_journal_does() {
        let file = journal(3);
        let said = |answer, held| Input::CatalogSaid {
            answer,
            held: RowNumber(held),
        };
        let unconfirmed = Action::Answer(Err(Absent::Unconfirmed));
        let pause = Action::Pause { rows: RowNumber(5) };
        for (input, expected) in [
            (said(heard(3, true), 3), page(&file, 3, false)),
            (said(heard(5, true), 3), pause),
            (said(heard(3, false), 3), unconfirmed.clone()),
            (said(heard(3, true), 4), unconfirmed.clone()),
            (said(Err(CallFailure::Failed), 3), unconfirmed.clone()),
            (Input::Reached(false), unconfirmed),
        ] {
            let mut listing = Listing::new(wanted(0, 10));
            let asks = read(&mut listing, Input::Begin, &file);
            assert_eq!(asks, Action::AwaitCatalog);
            assert_eq!(listing.step(input), expected);
        }
    }

    #[test]
    fn what_the_journal_has_more_is_waited_for_but_not_for_ever() {
        let said = || Input::CatalogSaid {
            answer: heard(5, true),
            held: RowNumber(3),
        };
        let mut listing = Listing::new(wanted(1, 10));
        read(&mut listing, Input::Begin, &journal(3));
        let pause = Action::Pause { rows: RowNumber(5) };
        assert_eq!(listing.step(said()), pause);
        assert_eq!(read(&mut listing, Input::Begin, &journal(4)), pause);
        let all = journal(6);
        let given = read(&mut listing, Input::Begin, &all);
        assert_eq!(given, page(&all[1..], 6, false), "with what came since");

        let mut listing = Listing::new(wanted(1, 10));
        read(&mut listing, Input::Begin, &journal(3));
        listing.step(said());
        let mut looks = 0;
        while read(&mut listing, Input::Begin, &journal(4)) == pause {
            looks += 1;
        }
        assert_eq!(looks, LOOKS_MAX);
    }

    #[test]
    fn of_one_stock_there_are_more_only_where_one_of_its_orders_follows() {
        let mut file = journal(9);
        let name = |row: &mut Row, name: &str| match &mut row.entry {
            domain::Entry::Order(order) => order.name = StockName::new(name).unwrap(),
            domain::Entry::StockChange(_) => unreachable!("orders alone"),
        };
        for (number, row) in file.iter_mut().enumerate() {
            name(row, if number % 3 == 0 { "meta" } else { "nike" });
        }
        let of = |from, limit| {
            Listing::new(Wanted {
                stock: Some(StockName::new("meta").unwrap()),
                ..wanted(from, limit)
            })
        };
        let given = read(&mut of(0, 2), Input::Begin, &file);
        let both = [file[0].clone(), file[3].clone()];
        assert_eq!(given, page(&both, 6, true));
        // Behind the last one are two of another stock, and nobody knows yet whether that is all.
        let both = [file[3].clone(), file[6].clone()];
        for (said, expected) in [
            (heard(9, true), page(&both, 9, false)),
            (Err(CallFailure::Failed), page(&both, 9, true)),
        ] {
            let mut listing = of(1, 2);
            assert_eq!(
                read(&mut listing, Input::Begin, &file),
                Action::AwaitCatalog
            );
            let held = RowNumber(9);
            let said = Input::CatalogSaid { answer: said, held };
            assert_eq!(listing.step(said), expected);
        }
        let mut listing = of(1, 2);
        read(&mut listing, Input::Begin, &file);
        assert_eq!(listing.step(Input::Reached(false)), page(&both, 9, true));
    }

    #[test]
    fn who_may_lag_asks_nobody() {
        let may_lag = true;
        let mut listing = Listing::new(Wanted {
            may_lag,
            ..wanted(2, 10)
        });
        let file = journal(3);
        let given = read(&mut listing, Input::Begin, &file);
        assert_eq!(given, page(&file[2..], 3, false));
    }

    #[test]
    fn a_stock_that_nobody_trades_costs_no_more_than_the_bound() {
        let mut listing = Listing::new(Wanted {
            stock: Some(StockName::new("unheard of").unwrap()),
            ..wanted(0, 10)
        });
        let file = journal(LOOKED_AT_MAX + CHUNK_ROWS);
        let given = read(&mut listing, Input::Begin, &file);
        assert_eq!(given, page(&[], LOOKED_AT_MAX as u64, true));
    }
}
