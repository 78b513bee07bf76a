//! A CSV file of stocks.

use std::collections::BTreeSet;

use catalog::stocks::{Listings, parse};

/// A file is refused, naming a line that it has, or it lists stocks of different names.
pub fn check(file: &[u8]) {
    match parse(file, Listings::New) {
        Ok(listings) => {
            let names: BTreeSet<_> = listings.iter().map(|listing| &listing.name).collect();
            assert!(!listings.is_empty());
            assert!(listings.iter().all(|listing| listing.price.minor() > 0));
            assert_eq!(names.len(), listings.len(), "every stock is listed once");
        }
        Err((line, problem)) => {
            let lines = file.iter().filter(|byte| **byte == b'\n').count() as u64;
            assert!((1..=lines + 2).contains(&line), "line {line}: {problem}");
            assert!(!problem.is_empty());
        }
    }
}
