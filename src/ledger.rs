//! `bazaar ledger`: what the data directories of replicas hold, be they running or not.

use std::fmt;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use domain::{ChainHash, OrderNumber, Row};
use order::inspect::Ledger;
use storage::StorageError;

use crate::answer;
use crate::cli;
use crate::output::{self, reader_may_go};

/// Why ledgers could not be read, or are not equal.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The directory holds no ledger that can be read.
    #[error("{}: {source}", dir.display())]
    Read { dir: PathBuf, source: StorageError },
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
        cli::Ledger::Show { dir } => show(&dir)?,
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

fn show(dir: &Path) -> Result<(), LedgerError> {
    let ledger = Opened::open(dir)?;
    let mut out = BufWriter::new(io::stdout().lock());
    match write_orders(&mut out, ledger.rows()) {
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
    for row in rows {
        let Row { number, order, .. } = row?;
        let separator = if number == OrderNumber(0) { "" } else { ",\n " };
        let order = answer::Order {
            name: order.name.to_string(),
            side: order.side,
            quantity: order.quantity.get(),
        };
        let order = serde_json::to_string(&order).map_err(io::Error::from)?;
        write!(out, "{separator}\"{number}\":{order}")?;
    }
    out.write_all(b"}\n")?;
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
            Comparison::Equal { rows, chain } => {
                text += &format!(
                    "{other_name} is equal to {first_name}: {rows} orders, chain hash {chain}\n"
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
    Equal { rows: OrderNumber, chain: ChainHash },
    Row(Box<(Row, Row)>),
    FirstEnds(OrderNumber),
    OtherEnds(OrderNumber),
}

impl Comparison {
    fn tell(&self, first: &dyn fmt::Display, other: &dyn fmt::Display) -> String {
        match self {
            Self::Equal { .. } => String::new(),
            Self::FirstEnds(number) => {
                format!("{first} ends before order {number}, {other} goes on\n")
            }
            Self::OtherEnds(number) => {
                format!("{other} ends before order {number}, {first} goes on\n")
            }
            Self::Row(rows) => {
                let (ours, theirs) = rows.as_ref();
                format!(
                    "order {} differs:\n  {first}: {}\n  {other}: {}\n",
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
        epoch,
        order,
        price,
        chain,
    }: &Row,
) -> String {
    let domain::Order {
        key,
        name,
        side,
        quantity,
    } = order;
    format!(
        "number {number}: {side} of {quantity} {name} at {price}, key {key}, epoch {epoch}, chain hash {chain}"
    )
}

fn compare(
    mut first: impl Iterator<Item = Result<Row, LedgerError>>,
    mut other: impl Iterator<Item = Result<Row, LedgerError>>,
) -> Result<Comparison, LedgerError> {
    let (mut rows, mut chain) = (OrderNumber(0), ChainHash::EMPTY);
    loop {
        match (first.next().transpose()?, other.next().transpose()?) {
            (None, None) => return Ok(Comparison::Equal { rows, chain }),
            (Some(_), None) => return Ok(Comparison::OtherEnds(rows)),
            (None, Some(_)) => return Ok(Comparison::FirstEnds(rows)),
            (Some(ours), Some(theirs)) if ours == theirs => {
                (rows, chain) = (rows.next(), ours.chain)
            }
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
            let previous = rows.last().map_or(ChainHash::EMPTY, |row| row.chain);
            let order = domain::Order {
                key: IdempotencyKey::new(&format!("key-{number}")).unwrap(),
                name: StockName::new("meta").unwrap(),
                side: Side::Sell,
                quantity: Quantity::new(*quantity).unwrap(),
            };
            rows.push(Row::following(
                &previous,
                OrderNumber(number),
                Epoch(1),
                order,
                Price::from_minor(19402).unwrap(),
            ));
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
        let chain = ledger(&[1, 2]).pop().unwrap().chain;
        assert_eq!(
            found(&[1, 2], &[1, 2]),
            Comparison::Equal {
                rows: OrderNumber(2),
                chain
            }
        );
        assert_eq!(found(&[1, 2], &[1]), Comparison::OtherEnds(OrderNumber(1)));
        assert_eq!(found(&[], &[1]), Comparison::FirstEnds(OrderNumber(0)));
        let difference = found(&[1, 2, 3], &[1, 5, 3]);
        let text = difference.tell(&"one", &"two");
        assert!(
            text.starts_with("order 1 differs:\n  one: number 1: sell of 2 meta"),
            "{text}"
        );
    }
}
