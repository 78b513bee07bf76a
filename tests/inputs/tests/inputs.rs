//! Runs every entry point over random bytes and over the corpus that fuzzing left.

use std::fs;
use std::path::Path;

use inputs::TARGETS;
use proptest::prelude::*;

/// `fuzz/corpus` has a directory for each.
#[test]
fn the_kept_corpus_passes() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    for target in TARGETS {
        let dir = corpus.join(target.name);
        let mut count = 0;
        for entry in fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", target.name)) {
            let path = entry.unwrap().path();
            println!("{}", path.display());
            (target.check)(&fs::read(path).unwrap());
            count += 1;
        }
        assert!(count > 0, "{} has no corpus", target.name);
    }
}

/// Pieces that get further than random bytes do.
fn http() -> impl Strategy<Value = Vec<u8>> {
    let words = [
        "GET ",
        "POST ",
        "BREW ",
        "/stocks/",
        "/stocks",
        "/orders",
        "/orders/",
        "nvidia",
        "%00",
        "%",
        "18446744073709551616",
        "0",
        "-1",
        "?a=b",
        "?limit=",
        "&after=",
        " HTTP/1.1\r\n",
        "host: x\r\n",
        "idempotency-key: \"k\"\r\n",
        "idempotency-key: ",
        "content-length: 52\r\n",
        "content-length: ",
        "transfer-encoding: chunked\r\n",
        "\r\n",
        "5\r\nhello\r\n",
        "0\r\n\r\n",
        "{\"name\":\"nvidia\",\"type\":\"buy\",\"quantity\":10}",
        "{\"name\":",
        "\"quantity\":1e400",
        "[[[[",
        "}",
        "\"",
        "\u{feff}",
    ];
    let word = prop::sample::select(words.map(|word| word.as_bytes().to_vec()).to_vec());
    let bytes = prop::collection::vec(any::<u8>(), 0..12);
    prop::collection::vec(prop_oneof![9 => word, 1 => bytes], 1..24)
        .prop_map(|words| words.concat())
}

fn csv() -> impl Strategy<Value = Vec<u8>> {
    let words = [
        "name,price,quantity\n",
        "nvidia,240.63,1000\n",
        "meta",
        ",",
        "\n",
        "\r\n",
        "\"",
        " ",
        "0.001",
        "-1",
        "9223372036854775808",
        "1e3",
        "NaN",
        "\u{feff}",
    ];
    let word = prop::sample::select(words.map(|word| word.as_bytes().to_vec()).to_vec());
    let bytes = prop::collection::vec(any::<u8>(), 0..8);
    prop::collection::vec(prop_oneof![9 => word, 1 => bytes], 0..16)
        .prop_map(|words| words.concat())
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(cases)
    }
}

proptest! {
    #![proptest_config(config(2000))]

    #[test]
    fn any_request_is_answered(sent in http()) {
        inputs::http::check(&sent);
    }

    #[test]
    fn any_file_is_refused_or_lists_stocks(file in csv()) {
        inputs::stocks::check(&file);
    }
}

mod messages {
    use super::*;
    use prost::Message;
    use wire::catalog::v1;
    use wire::order::v1 as order;

    fn number() -> impl Strategy<Value = u64> {
        let edges = [
            0,
            1,
            2,
            3,
            i64::MAX as u64 - 1,
            i64::MAX as u64,
            u64::MAX - 1,
            u64::MAX,
        ];
        prop_oneof![6 => 0..5u64, 1 => prop::sample::select(edges.to_vec()), 1 => any::<u64>()]
    }

    fn text() -> impl Strategy<Value = String> {
        let texts = ["nvidia", "meta", "nike", "", "\0", "k", "l", "m", "\u{e9}"];
        prop::sample::select(texts.map(str::to_owned).to_vec())
    }

    fn an_order() -> impl Strategy<Value = v1::Order> {
        let order = (text(), text(), -1..4i32, number(), a_stock_change());
        order.prop_map(|(idempotency_key, name, side, quantity, stock_change)| {
            let is_change = stock_change.is_some();
            v1::Order {
                idempotency_key,
                name,
                // Mostly none of either where it is a change.
                side: if is_change && quantity < 4 { 0 } else { side },
                quantity: if is_change && quantity < 4 {
                    0
                } else {
                    quantity
                },
                stock_change,
                ..v1::Order::default()
            }
        })
    }

    fn a_stock_change() -> impl Strategy<Value = Option<v1::StockChange>> {
        use v1::stock_change::{Add, Delist, Kind};
        let add = (number(), number()).prop_map(|(price_minor, quantity)| {
            Kind::Add(Add {
                price_minor,
                quantity,
            })
        });
        let kind = prop_oneof![
            add,
            number().prop_map(Kind::PriceMinor),
            number().prop_map(Kind::Restock),
            Just(Kind::Delist(Delist {})),
        ];
        let change = (prop::option::weighted(0.9, kind), text(), text());
        let change = change.prop_map(|(kind, who, why)| v1::StockChange { kind, who, why });
        prop::option::weighted(0.3, change)
    }

    fn row() -> impl Strategy<Value = v1::JournalRow> {
        let hash = prop_oneof![Just(32usize), 0..40usize];
        (number(), number(), an_order(), number(), hash, number()).prop_map(
            |(number, epoch, order, price_minor, hash, stock_changes)| v1::JournalRow {
                stock_changes,
                stock_change: order.stock_change,
                number,
                epoch,
                idempotency_key: order.idempotency_key,
                name: order.name,
                side: order.side,
                quantity: order.quantity,
                price_minor,
                chain_hash: vec![0; hash],
            },
        )
    }

    fn a_take() -> impl Strategy<Value = v1::take_request::Take> {
        let id = || prop_oneof![9 => (0..3u8).prop_map(|id| vec![id; 16]), 1 => Just(vec![0; 15])];
        let token_ns = prop_oneof![9 => 1_000..99_000_000_000_000u64, 1 => number()];
        (id(), id(), token_ns, 0..9u32, 0..5u32).prop_map(|(bucket, key, token_ns, burst, cost)| {
            v1::take_request::Take {
                tag: 1,
                bucket,
                key,
                token_ns,
                burst,
                cost,
            }
        })
    }

    fn to_catalog() -> impl Strategy<Value = (u8, Vec<u8>)> {
        let orders = prop::collection::vec(an_order(), 0..4);
        let ids = || prop::collection::vec(0..4u32, 0..4);
        prop_oneof![
            4 => (number(), orders).prop_map(|(epoch, orders)| {
                (0, v1::TradeRequest { epoch, orders, ..Default::default() }.encode_to_vec())
            }),
            2 => (number(), 0..4u32).prop_map(|(expected_epoch, candidate)| {
                (1, v1::ElectRequest { expected_epoch, candidate, ..Default::default() }.encode_to_vec())
            }),
            1 => (number(), number(), ids()).prop_map(|(epoch, change, in_sync)| {
                (2, v1::SetInSyncRequest { epoch, change, in_sync, ..Default::default() }.encode_to_vec())
            }),
            2 => prop::collection::vec(a_take(), 0..9).prop_map(|takes| {
                (3, v1::TakeRequest { takes, ..Default::default() }.encode_to_vec())
            }),
            3 => (ids(), a_journal(), 0..9usize, number(), number()).prop_map(
                |(peers, mut rows, beside, epoch, last_epoch)| {
                    let beside = rows.split_off(beside.min(rows.len()));
                    let end = rows.last();
                    let report = v1::ReportLedgerRequest {
                        replica: peers.len() as u32,
                        rows: rows.len() as u64,
                        chain_hash: end.map_or_else(|| vec![0; 32], |row| row.chain_hash.clone()),
                        beside,
                        epoch,
                        leader: 1,
                        peers,
                        last_epoch,
                        ..Default::default()
                    };
                    (4, report.encode_to_vec())
                }
            ),
            3 => (a_journal(), 0..9usize).prop_map(|(mut rows, from)| {
                let rows = rows.split_off(from.min(rows.len()));
                (5, v1::PutBackRequest { rows, ..Default::default() }.encode_to_vec())
            }),
        ]
    }

    /// The rows of a journal that these stocks allow, of which there are few.
    fn a_journal() -> impl Strategy<Value = Vec<v1::JournalRow>> {
        let trades = prop::collection::vec((0..2usize, 1..4u64, 1..3u64), 0..9);
        trades.prop_map(|trades| {
            let stocks = catalog::stocks::built_in();
            let mut rows: Vec<domain::Row> = Vec::new();
            for (stock, quantity, epoch) in trades {
                let last = rows.last().map(domain::LedgerEnd::of).unwrap_or_default();
                let order = domain::Order {
                    key: domain::IdempotencyKey::new(&format!("key-{}", last.rows)).unwrap(),
                    name: stocks[stock].name.clone(),
                    side: domain::Side::Buy,
                    quantity: domain::Quantity::new(quantity).unwrap(),
                };
                let epoch = domain::Epoch(epoch);
                let price = stocks[stock].price;
                let row = domain::Row::following(&last, epoch, order, price);
                rows.push(row);
            }
            rows.iter().map(Into::into).collect()
        })
    }

    fn to_order() -> impl Strategy<Value = (u8, Vec<u8>)> {
        let rows = || prop::collection::vec(row(), 0..4);
        prop_oneof![
            an_order().prop_map(|order| {
                (
                    0,
                    order::place_many_request::Placement {
                        order: Some(order),
                        ..Default::default()
                    }
                    .encode_to_vec(),
                )
            }),
            (number(), 0..4u32).prop_map(|(epoch, leader)| {
                (
                    1,
                    order::AnnounceRequest {
                        epoch,
                        leader,
                        ..Default::default()
                    }
                    .encode_to_vec(),
                )
            }),
            (number(), 0..4u32, rows(), number()).prop_map(|(epoch, leader, rows, committed)| {
                (
                    2,
                    order::AppendRequest {
                        epoch,
                        leader,
                        rows,
                        committed,
                        ..Default::default()
                    }
                    .encode_to_vec(),
                )
            }),
            (number(), 0..4u32, number()).prop_map(|(epoch, leader, journal_rows)| {
                let chain_hash = vec![0; 32];
                let in_sync = Vec::new();
                (
                    3,
                    v1::Leadership {
                        epoch,
                        leader,
                        in_sync,
                        journal_rows,
                        chain_hash,
                        ..Default::default()
                    }
                    .encode_to_vec(),
                )
            }),
            number().prop_map(|run| {
                let starts = v1::Leadership {
                    run,
                    ..Default::default()
                };
                (4, starts.encode_to_vec())
            }),
            rows().prop_map(|rows| (5, v1::ReadJournalResponse { rows }.encode_to_vec())),
        ]
    }

    proptest! {
        #![proptest_config(config(1000))]

        #[test]
        fn any_messages_to_the_catalog_leave_its_state_sound(
            messages in prop::collection::vec(to_catalog(), 1..20)
        ) {
            inputs::services::check_catalog(&inputs::services::join(&messages));
        }

        #[test]
        fn any_messages_to_a_replica_leave_its_ledger_a_chain(
            messages in prop::collection::vec(to_order(), 1..20)
        ) {
            inputs::services::check_order(&inputs::services::join(&messages));
        }
    }
}

proptest! {
    #![proptest_config(config(60))]

    #[test]
    fn a_damaged_ledger_is_refused_or_right(damages in prop::collection::vec(any::<u8>(), 4..200)) {
        inputs::database::check_ledger(&damages);
    }

    #[test]
    fn a_damaged_catalog_is_refused_or_right(damages in prop::collection::vec(any::<u8>(), 4..200)) {
        inputs::database::check_catalog(&damages);
    }
}
