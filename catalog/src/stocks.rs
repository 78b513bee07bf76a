//! The stocks that a new catalog starts with: built in, or from a CSV file.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use csv::StringRecord;
use domain::{Invalid, ListingDigest, Price, Quantity, StockName};
use sha2::{Digest as _, Sha256};

/// Most stocks in a file.
pub const STOCKS_MAX: usize = domain::refusal::STOCKS_MAX;

/// The columns of a file, as its first line names them.
const HEADER: [&str; 3] = ["name", "price", "quantity"];

/// Name and price of each built-in stock; there are [`BUILT_IN_QUANTITY`] of each.
const BUILT_IN: [(&str, &str); 12] = [
    ("amazon", "102.24"),
    ("amc", "5.20"),
    ("apple", "151.03"),
    ("gamestop", "20.00"),
    ("google", "94.02"),
    ("intel", "27.84"),
    ("meta", "194.02"),
    ("microsoft", "258.06"),
    ("netflix", "315.18"),
    ("nike", "121.43"),
    ("nvidia", "240.63"),
    ("tesla", "192.58"),
];

const BUILT_IN_QUANTITY: u64 = 1000;

/// A stock as it is first listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// What it is called.
    pub name: StockName,
    pub price: Price,
    /// How many shares there are to buy: 0 to [`Quantity::MAX`].
    pub quantity: u64,
}

/// Why a file gives no stocks.
#[derive(Debug, thiserror::Error)]
pub enum StocksError {
    /// It cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        path: PathBuf,
        source: std::io::Error,
    },
    /// A line is wrong.
    #[error("{}, line {line}: {problem}", path.display())]
    Line {
        path: PathBuf,
        /// Counted from 1.
        line: u64,
        /// What is wrong with it.
        problem: String,
    },
}

pub fn built_in() -> Vec<Listing> {
    let listing = |(name, price): (&str, &str)| Listing {
        name: StockName::new(name).expect("built-in names are valid"),
        price: price.parse().expect("built-in prices are valid"),
        quantity: BUILT_IN_QUANTITY,
    };
    BUILT_IN.map(listing).into()
}

/// What tells these listings from others, in whatever order they are.
pub fn digest(listings: &[Listing]) -> ListingDigest {
    let mut sorted: Vec<&Listing> = listings.iter().collect();
    sorted.sort_by(|one, other| one.name.cmp(&other.name));
    let mut hasher = Sha256::new();
    hasher.update("bazaar: listing");
    for listing in sorted {
        let name = listing.name.as_str();
        hasher.update((name.len() as u64).to_be_bytes());
        hasher.update(name);
        hasher.update(listing.price.minor().to_be_bytes());
        hasher.update(listing.quantity.to_be_bytes());
    }
    ListingDigest::new(hasher.finalize().into())
}

/// Whose first stocks are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listings {
    /// A new journal's: none costs nothing, or has a name that is [none for a new stock](StockName::check_new).
    New,
    /// Of a journal from before that was refused, which is to be rebuilt.
    AsBefore,
}

/// Reads stocks off a CSV file with the header `name,price,quantity`.
pub fn load(path: &Path, of: Listings) -> Result<Vec<Listing>, StocksError> {
    let file = fs::read(path).map_err(|source| StocksError::Unreadable {
        path: path.to_owned(),
        source,
    })?;
    parse(&file, of).map_err(|(line, problem)| StocksError::Line {
        path: path.to_owned(),
        line,
        problem,
    })
}

/// A line number, and what is wrong there.
pub type Problem = (u64, String);

/// Reads stocks off the content of such a file.
///
/// # Errors
/// Says which line is wrong, and how.
pub fn parse(file: &[u8], of: Listings) -> Result<Vec<Listing>, Problem> {
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .trim(csv::Trim::All)
        .from_reader(file);
    let mut records = reader.records();
    let unreadable = |error: csv::Error| (line_at(file, error.position()), error.to_string());
    match records.next().transpose().map_err(unreadable)? {
        Some(header) if header == HEADER[..] => {}
        _ => return Err((1, format!("the header is not `{}`", HEADER.join(",")))),
    }
    let mut listings = Vec::new();
    let mut names = BTreeSet::new();
    for record in records {
        let record = record.map_err(unreadable)?;
        let line = line_at(file, record.position());
        let listing = listing(&record, of).map_err(|problem| (line, problem))?;
        if !names.insert(listing.name.clone()) {
            return Err((line, format!("`{}` is listed a second time", listing.name)));
        }
        if listings.len() == STOCKS_MAX {
            return Err((line, format!("more than {STOCKS_MAX} stocks")));
        }
        listings.push(listing);
    }
    if listings.is_empty() {
        Err((2, "no stocks".into()))
    } else {
        Ok(listings)
    }
}

/// The line that a position is in; the reader's positions are before any empty lines.
fn line_at(file: &[u8], position: Option<&csv::Position>) -> u64 {
    let Some(position) = position else {
        return 1;
    };
    let rest = usize::try_from(position.byte())
        .ok()
        .and_then(|start| file.get(start..));
    let line_ends = rest
        .unwrap_or_default()
        .iter()
        .take_while(|&byte| b"\r\n".contains(byte));
    position.line() + line_ends.filter(|&&byte| byte == b'\n').count() as u64
}

fn listing(record: &StringRecord, of: Listings) -> Result<Listing, String> {
    let mut fields = record.iter();
    let (Some(name), Some(price), Some(quantity), None) =
        (fields.next(), fields.next(), fields.next(), fields.next())
    else {
        return Err(format!("has {} fields, not {}", record.len(), HEADER.len()));
    };
    let wrong = |invalid: Invalid| invalid.to_string();
    let shares = quantity
        .parse()
        .ok()
        .filter(|&shares: &u64| shares <= Quantity::MAX);
    let cost: Price = price.parse().map_err(wrong)?;
    if cost.minor() == 0 && of == Listings::New {
        return Err(format!("price `{price}` is not above 0"));
    }
    let name = StockName::new(name).map_err(wrong)?;
    if of == Listings::New {
        name.check_new().map_err(wrong)?;
    }
    Ok(Listing {
        name,
        price: cost,
        quantity: shares.ok_or_else(|| {
            format!(
                "quantity `{quantity}` is not a number from 0 to {}",
                Quantity::MAX
            )
        })?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_stocks_are_those_promised() {
        let stocks = built_in();
        assert!(stocks.len() >= 10);
        for (name, price) in [
            ("nvidia", "240.63"),
            ("meta", "194.02"),
            ("gamestop", "20.0"),
        ] {
            let stock = stocks
                .iter()
                .find(|stock| stock.name.as_str() == name)
                .unwrap();
            assert_eq!(
                (stock.price.to_string(), stock.quantity),
                (price.into(), 1000)
            );
        }
        for name in ["amazon", "tesla", "amc", "intel", "nike"] {
            assert!(
                stocks.iter().any(|stock| stock.name.as_str() == name),
                "{name}"
            );
        }
    }

    #[test]
    fn other_stocks_have_another_digest_and_another_order_has_not() {
        let digest_of = |file: &str| digest(&parse(file.as_bytes(), Listings::New).unwrap());
        let first = digest_of("name,price,quantity\na,1,2\nb,3,4\n");
        assert_eq!(first, digest_of("name,price,quantity\nb,3,4\na,1,2\n"));
        for other in [
            "a,1,2\n",
            "a,1,2\nc,3,4\n",
            "a,1,2\nb,3,5\n",
            "a,1,2\nb,4,4\n",
        ] {
            assert_ne!(first, digest_of(&format!("name,price,quantity\n{other}")));
        }
    }

    #[test]
    fn a_file_gives_its_stocks() {
        let stocks = parse(
            "name, price ,quantity\nacme,1.5,10\n\n\"two, words\",0.01,0\n".as_bytes(),
            Listings::New,
        );
        let stocks = stocks.unwrap();
        assert_eq!(stocks.len(), 2);
        assert_eq!((stocks[0].price.minor(), stocks[0].quantity), (150, 10));
        assert_eq!(stocks[1].name.as_str(), "two, words");
    }

    #[test]
    fn a_journal_of_before_may_have_stocks_that_cost_nothing_and_names_that_new_ones_may_not() {
        let file = b"name,price,quantity\nacme,0.00,10\n..,1,1\n";
        let stocks = parse(file, Listings::AsBefore).unwrap();
        assert_eq!(stocks[0].price.minor(), 0);
        assert_eq!(stocks[1].name.as_str(), "..");
    }

    #[test]
    fn a_wrong_line_is_named_with_what_is_wrong() {
        for (file, line, problem) in [
            ("", 1, "the header is not `name,price,quantity`"),
            ("name,quantity,price\n", 1, "the header is not"),
            ("name,price,quantity\n", 2, "no stocks"),
            ("name,price,quantity\na,1,1\nb,1\n", 3, "has 2 fields"),
            ("name,price,quantity\na,1,1,\n", 2, "has 4 fields"),
            ("name,price,quantity\n\n,1,1\n", 3, "name has 0 bytes"),
            ("name,price,quantity\na,1.234,1\n", 2, "price `1.234`"),
            (
                "name,price,quantity\na,1,1\nb,0.00,1\n",
                3,
                "price `0.00` is not above 0",
            ),
            (
                "name,price,quantity\na,0,1\n",
                2,
                "price `0` is not above 0",
            ),
            ("name,price,quantity\n..,1,1\n", 2, "`..` is no name"),
            ("name,price,quantity\na/b,1,1\n", 2, "`a/b` is no name"),
            ("name,price,quantity\na,1,-1\n", 2, "quantity `-1`"),
            (
                "name,price,quantity\na,1,9223372036854775808\n",
                2,
                "quantity `9223372036854775808`",
            ),
            (
                "name,price,quantity\na,1,1\nb,1,1\na,2,2\n",
                4,
                "`a` is listed a second time",
            ),
        ] {
            let (at, message) = parse(file.as_bytes(), Listings::New).unwrap_err();
            assert!(
                at == line && message.contains(problem),
                "{file:?}: line {at}: {message}"
            );
        }
        let not_text = [
            b"name,price,quantity\n".as_slice(),
            &[0xff, b',', b'1', b',', b'1'],
        ]
        .concat();
        assert_eq!(parse(&not_text, Listings::New).unwrap_err().0, 2);
    }
}
