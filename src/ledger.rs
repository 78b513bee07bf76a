//! `bazaar ledger`: what the data directories of replicas hold, be they running or not.

use std::fmt;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use domain::{Entry, LedgerEnd, Order, Row, StockChange, StockChangeKind};
use order::inspect::Ledger;
use serde::Serialize;
use storage::StorageError;

use crate::answer;
use crate::cli::{self, REPLICAS_MAX};
use crate::output::{self, reader_may_go};
use crate::up::ORDER_PREFIX;

/// Why ledgers could not be read, or are not equal.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The directory holds no ledger that can be read.
    #[error("{}: {source}", dir.display())]
    Read { dir: PathBuf, source: StorageError },
    /// It is the directory of something else.
    #[error("{} holds no replica's ledger: {is}", dir.display())]
    None { dir: PathBuf, is: String },
    /// What was printed says where.
    #[error("the ledgers differ")]
    Differ,
    /// Standard output does not take the result.
    #[error("cannot write the result: {0}")]
    Output(#[from] io::Error),
}

/// Does what the command says.
pub fn run(command: cli::Ledger) -> Result<(), LedgerError> {
    match command {
        cli::Ledger::Show { dir, changes } => show(&dir, changes)?,
        cli::Ledger::Diff { dirs } => diff(&dirs)?,
    }
    Ok(())
}

/// A ledger, and where it is.
struct Opened<'a> {
    dir: &'a Path,
    ledger: Ledger,
}

impl<'a> Opened<'a> {
    fn open(dir: &'a Path) -> Result<Self, LedgerError> {
        if let Some(is) = what_else(dir) {
            let dir = dir.to_owned();
            return Err(LedgerError::None { dir, is });
        }
        let ledger = Ledger::open(dir).map_err(|source| LedgerError::Read {
            dir: dir.to_owned(),
            source,
        })?;
        Ok(Self { dir, ledger })
    }

    fn rows(&self) -> impl Iterator<Item = Result<Row, LedgerError>> {
        self.ledger.held().map(|row| {
            row.map_err(|source| LedgerError::Read {
                dir: self.dir.to_owned(),
                source,
            })
        })
    }
}

/// What a directory is that has no ledger, and what to do.
fn what_else(dir: &Path) -> Option<String> {
    let ledger = order::store::KIND.file;
    // Its log alone is damage, which has words of its own.
    let is_ledger = |dir: &Path| {
        ["", "-wal"]
            .iter()
            .any(|end| dir.join(format!("{ledger}{end}")).exists())
    };
    if is_ledger(dir) {
        return None;
    }
    if dir.join(catalog::store::sqlite::FILE).exists() {
        return Some(
            "it is a catalog's. Name the data directory of an order replica, which has every order of the journal (`bazaar up` \
             keeps them in DATA/order-1 and so on); `bazaar backup take` reads a catalog's"
                .to_owned(),
        );
    }
    let mut replicas = (1..=REPLICAS_MAX).map(|id| dir.join(format!("{ORDER_PREFIX}{id}")));
    Some(match replicas.find(|replica| is_ledger(replica)) {
        Some(replica) => format!(
            "it has the directories of a whole bazaar. Name a replica's, such as {}",
            replica.display()
        ),
        None if !dir.is_dir() => "there is no such directory".to_owned(),
        None => "name the --data-dir of an order replica".to_owned(),
    })
}

fn show(dir: &Path, changes: bool) -> Result<(), LedgerError> {
    let ledger = Opened::open(dir)?;
    let mut out = BufWriter::new(io::stdout().lock());
    let written = match changes {
        false => write_orders(&mut out, ledger.rows()),
        true => write_changes(&mut out, ledger.rows()),
    };
    match written {
        Err(LedgerError::Output(error)) => Ok(reader_may_go(Err(error))?),
        written => written,
    }
}

/// An object with a member for each order, a line each: a ledger of any length is written as
/// it is read.
fn write_orders(
    out: &mut impl Write,
    rows: impl Iterator<Item = Result<Row, LedgerError>>,
) -> Result<(), LedgerError> {
    out.write_all(b"{")?;
    let mut separator = "";
    for row in rows {
        let row = row?;
        let (Some(number), Some(order)) = (row.order_number(), row.order()) else {
            continue;
        };
        let order = answer::Order {
            name: order.name.to_string(),
            side: order.side,
            quantity: order.quantity.get(),
        };
        let order = serde_json::to_string(&order).map_err(io::Error::from)?;
        write!(out, "{separator}\"{number}\":{order}")?;
        separator = ",\n ";
    }
    out.write_all(b"}\n")?;
    Ok(out.flush()?)
}

/// A change of a stock, as it is printed.
#[derive(Serialize)]
struct Changed<'a> {
    row: u64,
    /// How many orders are before it.
    after_orders: u64,
    name: &'a str,
    change: &'static str,
    /// What a share costs from then on; where it is delisted, what it cost last.
    price: String,
    quantity: Option<u64>,
    who: &'a str,
    why: &'a str,
}

/// An array with a member for each change of a stock, a line each.
fn write_changes(
    out: &mut impl Write,
    rows: impl Iterator<Item = Result<Row, LedgerError>>,
) -> Result<(), LedgerError> {
    out.write_all(b"[")?;
    let mut separator = "";
    for row in rows {
        let row = row?;
        let Entry::StockChange(change) = &row.entry else {
            continue;
        };
        let changed = Changed {
            row: row.number.0,
            after_orders: row.number.0.saturating_sub(row.stock_changes),
            name: change.name.as_str(),
            change: change.kind.name(),
            price: row.price.to_string(),
            quantity: match change.kind {
                StockChangeKind::Add { quantity, .. } => Some(quantity),
                StockChangeKind::Restock { quantity } => Some(quantity.get()),
                StockChangeKind::Price { .. } | StockChangeKind::Delist => None,
            },
            who: change.note.who(),
            why: change.note.why(),
        };
        let changed = serde_json::to_string(&changed).map_err(io::Error::from)?;
        write!(out, "{separator}{changed}")?;
        separator = ",\n ";
    }
    out.write_all(b"]\n")?;
    Ok(out.flush()?)
}

/// Compares each ledger with the first.
fn diff(dirs: &[PathBuf]) -> Result<(), LedgerError> {
    let [first, others @ ..] = dirs else {
        return Ok(());
    };
    let first_ledger = Opened::open(first)?;
    let mut text = String::new();
    let mut equal = true;
    for other in others {
        let (first_name, other_name) = (first.display(), other.display());
        match compare(first_ledger.rows(), Opened::open(other)?.rows())? {
            Comparison::Equal(end) => {
                let (orders, chain) = (end.orders(), end.chain);
                text += &format!(
                    "{other_name} is equal to {first_name}: {orders} orders, chain hash {chain}\n"
                );
            }
            difference => {
                equal = false;
                text += &difference.tell(&first_name, &other_name);
            }
        }
    }
    output::print(&text)?;
    if equal {
        Ok(())
    } else {
        Err(LedgerError::Differ)
    }
}

/// How one ledger compares with another. After the first difference all chain hashes differ.
#[derive(Debug, PartialEq, Eq)]
enum Comparison {
    Equal(LedgerEnd),
    Row(Box<(Row, Row)>),
    /// There.
    FirstEnds(LedgerEnd),
    OtherEnds(LedgerEnd),
}

impl Comparison {
    fn tell(&self, first: &dyn fmt::Display, other: &dyn fmt::Display) -> String {
        match self {
            Self::Equal(_) => String::new(),
            Self::FirstEnds(end) => {
                format!("{first} ends before row {}, {other} goes on\n", end.rows)
            }
            Self::OtherEnds(end) => {
                format!("{other} ends before row {}, {first} goes on\n", end.rows)
            }
            Self::Row(rows) => {
                let (ours, theirs) = rows.as_ref();
                format!(
                    "row {} differs:\n  {first}: {}\n  {other}: {}\n",
                    ours.number,
                    describe(ours),
                    describe(theirs)
                )
            }
        }
    }
}

fn describe(
    Row {
        number,
        stock_changes,
        epoch,
        entry,
        price,
        chain,
    }: &Row,
) -> String {
    let (key, name) = (entry.key(), entry.name());
    let what = match entry {
        Entry::Order(Order { side, quantity, .. }) => {
            format!("{side} of {quantity} {name} at {price}")
        }
        Entry::StockChange(StockChange { kind, note, .. }) => {
            format!("{name}: {kind}, by {}, because {}", note.who(), note.why())
        }
    };
    format!(
        "row {number}, behind {stock_changes} changes of stocks: {what}, key {key}, epoch {epoch}, chain hash {chain}"
    )
}

fn compare(
    mut first: impl Iterator<Item = Result<Row, LedgerError>>,
    mut other: impl Iterator<Item = Result<Row, LedgerError>>,
) -> Result<Comparison, LedgerError> {
    let mut end = LedgerEnd::default();
    loop {
        match (first.next().transpose()?, other.next().transpose()?) {
            (None, None) => return Ok(Comparison::Equal(end)),
            (Some(_), None) => return Ok(Comparison::OtherEnds(end)),
            (None, Some(_)) => return Ok(Comparison::FirstEnds(end)),
            (Some(ours), Some(theirs)) if ours == theirs => end = LedgerEnd::of(&ours),
            (Some(ours), Some(theirs)) => return Ok(Comparison::Row(Box::new((ours, theirs)))),
        }
    }
}

#[cfg(test)]
mod tests {
    use domain::{Epoch, IdempotencyKey, Price, Quantity, Side, StockName};

    use super::*;

    fn ledger(quantities: &[u64]) -> Vec<Row> {
        let mut rows: Vec<Row> = Vec::new();
        for (number, quantity) in (0..).zip(quantities) {
            let end = rows.last().map(LedgerEnd::of).unwrap_or_default();
            let order = Order {
                key: IdempotencyKey::new(&format!("key-{number}")).unwrap(),
                name: StockName::new("meta").unwrap(),
                side: Side::Sell,
                quantity: Quantity::new(*quantity).unwrap(),
            };
            let price = Price::from_minor(19402).unwrap();
            rows.push(Row::following(&end, Epoch(1), order, price));
        }
        rows
    }

    fn rows(quantities: &[u64]) -> impl Iterator<Item = Result<Row, LedgerError>> {
        ledger(quantities).into_iter().map(Ok)
    }

    #[test]
    fn orders_are_written_as_one_object_in_number_order() {
        let mut out = Vec::new();
        write_orders(&mut out, rows(&[69, 2])).unwrap();
        let expected = r#"{"0":{"name":"meta","type":"sell","quantity":69},
 "1":{"name":"meta","type":"sell","quantity":2}}
"#;
        assert_eq!(String::from_utf8(out).unwrap(), expected);
        let mut out = Vec::new();
        write_orders(&mut out, rows(&[])).unwrap();
        assert_eq!(out, b"{}\n");
    }

    #[test]
    fn the_first_difference_is_found() {
        let found = |first: &[u64], other: &[u64]| compare(rows(first), rows(other)).unwrap();
        let rows_of_both = ledger(&[1, 2]);
        let [first, second] = [0, 1].map(|row| LedgerEnd::of(&rows_of_both[row]));
        assert_eq!(found(&[1, 2], &[1, 2]), Comparison::Equal(second));
        assert_eq!(found(&[1, 2], &[1]), Comparison::OtherEnds(first));
        let none = LedgerEnd::default();
        assert_eq!(found(&[], &[1]), Comparison::FirstEnds(none));
        let difference = found(&[1, 2, 3], &[1, 5, 3]);
        let text = difference.tell(&"one", &"two");
        assert!(
            text.starts_with(
                "row 1 differs:\n  one: row 1, behind 0 changes of stocks: sell of 2 meta"
            ),
            "{text}"
        );
    }
}
