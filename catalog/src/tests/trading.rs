use std::collections::BTreeSet;
use std::time::Duration;

use domain::{IdempotencyKey, StockName};
use rpc::listen::MESSAGE_BYTES_MAX;
use rpc::release::BazaarProtocol;
use tokio::sync::watch;
use tokio_stream::StreamExt as _;
use tonic::{Code, Request, Status};
use wire::catalog::v1::catalog_server::Catalog as _;
use wire::catalog::v1::session_request::{Open, Request as SessionRequestKind};
use wire::catalog::v1::trade_result::Result as Traded;
use wire::catalog::v1::{self, Refusal, Side};

use super::harness::{
    Client, LONG_LEASE, Leader, Running, Session, disk, disk_of, journal, leadership, order, parts,
    read_stock, row, until,
};
use crate::server;
use crate::service::{ORDERS_MAX, TRADES_PER_CLIENT_MAX};
use crate::writer::group::GROUP_PROPOSED_MAX;

#[tokio::test]
async fn concurrent_trades_share_a_commit() {
    let disk = disk();
    let running = Running::start_on(&disk, LONG_LEASE).await;
    let leader = running.elect_leader().await;
    let (before, lookups) = (disk.commits(), disk.lookups());
    disk.set_held(true);
    let buys: Vec<_> = (0..50)
        .map(|number| leader.start_buy(&format!("key-{number}"), "acme"))
        .collect();
    until("a commit is under way", async || disk.is_waiting()).await;
    // Everything else queues behind that commit; a reader proves that the catalog lives.
    let mut client = running.client();
    assert_eq!(read_stock(&mut client, "acme", 0).await, (100, false));
    assert!(journal(&mut client, 0, 0).await.is_empty());
    disk.set_held(false);
    let mut numbers = BTreeSet::new();
    for buy in buys {
        numbers.insert(buy.await.unwrap().unwrap().number);
    }
    assert_eq!(numbers, (0..50).collect());
    assert_eq!(read_stock(&mut client, "acme", 0).await, (50, false));
    let commits = disk.commits() - before;
    assert!(commits < 25, "{commits} commits for 50 trades");
    let lookups = disk.lookups() - lookups;
    assert_eq!(lookups, commits, "one look-up of keys for each commit");
    running.stop().await;
}

#[tokio::test]
async fn a_key_trades_once_in_one_batch_and_across_batches() {
    let disk = disk();
    let running = Running::start_on(&disk, LONG_LEASE).await;
    let leader = running.elect_leader().await;
    let buy = || order("key", "acme", Side::Buy, 1);
    let results = leader.trade(vec![buy(), buy()]).await.unwrap();
    let rows: Vec<_> = results.into_iter().map(row).collect();
    assert_eq!(rows[0], rows[1]);
    assert_eq!(leader.buy("key", "acme").await.unwrap(), rows[0]);
    let twenty: Vec<_> = (0..20).map(|_| leader.start_buy("other", "acme")).collect();
    for buy in twenty {
        assert_eq!(buy.await.unwrap().unwrap().number, 1);
    }
    let other = leader
        .trade(vec![order("key", "acme", Side::Sell, 1)])
        .await
        .unwrap();
    assert_eq!(other, [Traded::Refusal(Refusal::KeyConflict.into())]);
    assert_eq!(disk.journal().len(), 2);
    assert_eq!(read_stock(&mut running.client(), "acme", 0).await.0, 98);
    running.stop().await;
}

#[tokio::test]
async fn each_order_of_a_batch_is_answered_in_its_place() {
    let disk = disk();
    let running = Running::start_on(&disk, LONG_LEASE).await;
    let leader = running.elect_leader().await;
    let orders = vec![
        order("1", "acme", Side::Buy, 101),
        order("2", "acme", Side::Sell, 1),
        order("3", "acme", Side::Buy, 101),
        order("4", "none", Side::Buy, 1),
        order("5", "acme", Side::Sell, i64::MAX as u64),
        order("6", "acme", Side::Sell, 7),
    ];
    let results = leader.trade(orders).await.unwrap();
    let refused = |refusal: Refusal| Traded::Refusal(refusal.into());
    assert_eq!(results[0], refused(Refusal::NotEnough));
    assert_eq!(row(results[1].clone()).number, 0);
    assert_eq!(row(results[2].clone()).number, 1);
    assert_eq!(results[3], refused(Refusal::StockNotFound));
    assert_eq!(row(results[4].clone()).number, 2);
    assert_eq!(results[5], refused(Refusal::TooMany));
    running.stop().await;
}

#[tokio::test]
async fn requests_with_wrong_fields_are_refused_whole() {
    let disk = disk();
    let running = Running::start_on(&disk, LONG_LEASE).await;
    let leader = running.elect_leader().await;
    let good = || order("good", "acme", Side::Buy, 1);
    for wrong in [
        order("", "acme", Side::Buy, 1),
        order("k", "", Side::Buy, 1),
        order("k", "acme", Side::Unspecified, 1),
        order("k", "acme", Side::Buy, 0),
        order("k", "acme", Side::Buy, u64::MAX),
    ] {
        let status = leader.trade(vec![good(), wrong.clone()]).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{wrong:?}: {status}");
    }
    let many = (0..1025)
        .map(|number| order(&number.to_string(), "acme", Side::Buy, 1))
        .collect();
    assert_eq!(
        leader.trade(many).await.unwrap_err().code(),
        Code::InvalidArgument
    );
    let mut client = running.client();
    let no_candidate = client
        .elect(v1::ElectRequest {
            expected_epoch: 1,
            candidate: 0,
            journal: leader.journal.clone(),
        })
        .await;
    assert_eq!(no_candidate.unwrap_err().code(), Code::InvalidArgument);
    assert!(disk.journal().is_empty());
    running.stop().await;
}

#[tokio::test]
async fn a_stale_leader_commits_nothing() {
    let disk = disk();
    let running = Running::start_on(&disk, LONG_LEASE).await;
    let mut client = running.client();
    let old = running.elect_leader().await;
    let new = running.elect_leader().await;
    assert_eq!((old.epoch, new.epoch), (1, 2));
    let status = old.buy("key", "acme").await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(
        status
            .message()
            .contains("epoch 1 is not the current one, 2"),
        "{status}"
    );
    let stale = old.set_in_sync(1, &[3]).await.unwrap_err();
    assert_eq!(stale.code(), Code::FailedPrecondition);
    let without = new.set_in_sync(1, &[1]).await.unwrap_err();
    assert_eq!(without.code(), Code::InvalidArgument);
    assert_eq!(new.set_in_sync(1, &[3, 1]).await.unwrap(), [1, 3]);
    assert!(disk.journal().is_empty());
    let bought = new.buy("key", "acme").await.unwrap();
    let leadership = client
        .get_leadership(v1::GetLeadershipRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        (leadership.epoch, leadership.leader, leadership.journal_rows),
        (2, 3, 1)
    );
    assert_eq!(leadership.chain_hash, bought.chain_hash);
    running.stop().await;
}

#[tokio::test]
async fn a_change_of_the_in_sync_set_that_comes_late_is_aborted() {
    let disk = disk();
    let running = Running::start_on(&disk, LONG_LEASE).await;
    let leader = running.elect_leader().await;
    assert_eq!(leader.set_in_sync(1, &[3]).await.unwrap(), [3]);
    // Change 2, which was to add replica 1, is still on its way.
    assert_eq!(leader.set_in_sync(3, &[3]).await.unwrap(), [3]);
    let late = leader.set_in_sync(2, &[3, 1]).await.unwrap_err();
    assert_eq!(late.code(), Code::Aborted, "no reason to step down: {late}");
    let again = leader.set_in_sync(3, &[3, 1]).await.unwrap_err();
    assert_eq!(again.code(), Code::Aborted);
    for number in [0, u64::MAX] {
        let wrong = leader.set_in_sync(number, &[3, 1]).await.unwrap_err();
        assert_eq!(wrong.code(), Code::InvalidArgument);
    }
    let request = v1::GetLeadershipRequest::default();
    let leadership = running.client().get_leadership(request).await.unwrap();
    assert_eq!(leadership.into_inner().in_sync, [3]);

    assert_eq!(leader.set_in_sync(4, &[3, 1]).await.unwrap(), [1, 3]);
    let next = running.elect_leader().await;
    let fenced = leader.set_in_sync(5, &[3]).await.unwrap_err();
    assert_eq!(fenced.code(), Code::FailedPrecondition);
    assert_eq!(next.set_in_sync(1, &[3]).await.unwrap(), [3]);
    running.stop().await;
}

#[tokio::test]
async fn of_concurrent_elections_one_wins_and_all_agree() {
    let disk = disk();
    let running = Running::start_on(&disk, LONG_LEASE).await;
    let elect = |candidate| {
        let mut client = running.client();
        tokio::spawn(async move {
            let request = v1::ElectRequest {
                expected_epoch: 0,
                candidate,
                journal: leadership(&mut client).await.journal,
            };
            client.elect(request).await.unwrap().into_inner()
        })
    };
    let mut answers = BTreeSet::new();
    for election in [1, 2, 3].map(elect) {
        let answer = election.await.unwrap();
        answers.insert((answer.epoch, answer.leader));
    }
    assert_eq!(answers.len(), 1);
    assert_eq!(answers.first().unwrap().0, 1);
    running.stop().await;
}

#[tokio::test]
async fn a_full_disk_changes_nothing_and_the_catalog_lives_on() {
    let disk = disk();
    let running = Running::start_on(&disk, LONG_LEASE).await;
    let leader = running.elect_leader().await;
    let mut client = running.client();
    disk.set_full(true);
    // So many that none is proposed: the epoch goes on.
    let count = GROUP_PROPOSED_MAX as u64 + 1;
    let buy = |number| order(&format!("key-{number}"), "acme", Side::Buy, 1);
    let buys = || (0..count).map(buy).collect();
    assert_eq!(
        leader.trade(buys()).await.unwrap_err().code(),
        Code::Unavailable
    );
    let elected = client
        .elect(v1::ElectRequest {
            expected_epoch: 1,
            candidate: 2,
            journal: leader.journal.clone(),
        })
        .await;
    assert_eq!(elected.unwrap_err().code(), Code::Unavailable);
    assert_eq!(read_stock(&mut client, "acme", 0).await, (100, false));
    disk.set_full(false);
    let bought = leader.trade(buys()).await.unwrap().into_iter().map(row);
    assert!(bought.map(|row| row.number).eq(0..count));
    assert_eq!(
        read_stock(&mut client, "acme", 0).await,
        (100 - count, false)
    );
    running.stop().await;
}

#[tokio::test]
async fn few_rows_are_proposed_before_the_disk_has_them() {
    let disk = disk();
    let running = Running::start_on(&disk, LONG_LEASE).await;
    let leader = running.elect_leader().await;
    for (count, proposes) in [(GROUP_PROPOSED_MAX, true), (GROUP_PROPOSED_MAX + 1, false)] {
        disk.set_held(true);
        let sell = |number| order(&format!("{count}-{number}"), "acme", Side::Sell, 1);
        let mut answers = leader
            .start_trade((0..count).map(sell).collect())
            .await
            .unwrap();
        let mut proposed = Vec::new();
        if proposes {
            proposed = answers.message().await.unwrap().unwrap().proposed;
        }
        until("a commit is under way", async || disk.is_waiting()).await;
        disk.set_held(false);
        let answer = answers.message().await.unwrap().unwrap();
        let rows: Vec<_> = answer
            .results
            .into_iter()
            .map(|it| row(it.result.unwrap()))
            .collect();
        assert_eq!((rows.len(), answer.proposed), (count, vec![]));
        assert_eq!(proposed, if proposes { rows } else { Vec::new() });
    }
    // What is known already is on its way nowhere.
    let again = leader.start_trade(vec![order("8-0", "acme", Side::Sell, 1)]);
    let answer = again.await.unwrap().message().await.unwrap().unwrap();
    assert_eq!((answer.results.len(), answer.proposed), (1, vec![]));
    running.stop().await;
}

#[tokio::test]
async fn an_epoch_in_which_rows_were_proposed_in_vain_is_over() {
    let disk = disk();
    let running = Running::start_on(&disk, LONG_LEASE).await;
    let leader = running.elect_leader().await;
    disk.set_held(true);
    disk.set_full(true);
    let mut answers = leader
        .start_trade(vec![order("lost", "acme", Side::Sell, 1)])
        .await
        .unwrap();
    let proposed = answers.message().await.unwrap().unwrap().proposed;
    assert_eq!(proposed.len(), 1);
    disk.set_held(false);
    assert_eq!(
        answers.message().await.unwrap_err().code(),
        Code::Unavailable
    );
    disk.set_full(false);
    let fenced = leader.buy("key", "acme").await.unwrap_err();
    assert_eq!(fenced.code(), Code::FailedPrecondition);
    let request = v1::GetLeadershipRequest::default();
    let leadership = running.client().get_leadership(request).await.unwrap();
    let leadership = leadership.into_inner();
    assert_eq!((leadership.epoch, leadership.leader), (leader.epoch + 1, 3));
    let leader = Leader {
        epoch: leadership.epoch,
        ..leader
    };
    let bought = leader.buy("key", "acme").await.unwrap();
    assert_eq!((bought.number, bought.epoch), (0, leader.epoch));
    running.stop().await;
}

#[tokio::test]
async fn the_journal_is_read_from_any_number_on() {
    let disk = disk();
    let running = Running::start_on(&disk, LONG_LEASE).await;
    let leader = running.elect_leader().await;
    // More than fit in one message.
    for batch in 0..2 {
        let orders =
            (0..1024).map(|number| order(&format!("{batch}-{number}"), "acme", Side::Sell, 1));
        leader.trade(orders.collect()).await.unwrap();
    }
    let mut client = running.client();
    let all = journal(&mut client, 0, 0).await;
    assert!(all.iter().map(|row| row.number).eq(0..2048));
    assert_eq!(journal(&mut client, 2046, 0).await, all[2046..]);
    assert_eq!(journal(&mut client, 5, 600).await, all[5..605]);
    assert!(journal(&mut client, 2048, 0).await.is_empty());
    assert!(journal(&mut client, 1 << 62, 0).await.is_empty());
    running.stop().await;
}

/// The names on a page, and whether there are more.
async fn page(client: &mut Client, after: &str, limit: u32) -> (Vec<String>, bool) {
    let after = after.to_owned();
    let request = v1::ListStocksRequest {
        after,
        limit,
        ..Default::default()
    };
    let page = client.list_stocks(request).await.unwrap().into_inner();
    let names = page.stocks.into_iter().map(|stock| stock.name);
    (names.collect(), page.more)
}

#[tokio::test]
async fn stocks_are_listed_by_name_and_others_not_found() {
    let running = Running::start_on(&disk(), LONG_LEASE).await;
    let mut client = running.client();
    let both = vec!["acme".to_owned(), "bolt".to_owned()];
    assert_eq!(page(&mut client, "", 0).await, (both, false));
    for name in ["none".to_owned(), String::new(), "x".repeat(1000)] {
        let status = client
            .get_stock(v1::GetStockRequest {
                name,
                ..Default::default()
            })
            .await
            .unwrap_err();
        assert_eq!(status.code(), Code::NotFound);
    }
    running.stop().await;
}

#[tokio::test]
async fn who_names_another_journal_gets_nothing() {
    let disk = disk();
    let running = Running::start_on(&disk, LONG_LEASE).await;
    let mut client = running.client();
    let leader = running.elect_leader().await;
    leader.buy("ours", "acme").await.unwrap();
    let other = Leader {
        journal: vec![9; 16],
        ..leader.clone()
    };
    let named = |journal: &[u8]| journal.to_vec();
    let mut session = Session::unopened(&client).await;
    session
        .send(SessionRequestKind::Open(Open {
            gateway: "another's".into(),
            journal: named(&other.journal),
        }))
        .await;
    let refusals = [
        other.buy("theirs", "acme").await.map(drop),
        other.set_in_sync(1, &[3]).await.map(drop),
        session.event().await.map(drop),
        client
            .elect(v1::ElectRequest {
                expected_epoch: leader.epoch,
                candidate: 1,
                journal: named(&other.journal),
            })
            .await
            .map(drop),
        client
            .get_stock(v1::GetStockRequest {
                name: "acme".into(),
                session: 0,
                journal: named(&other.journal),
            })
            .await
            .map(drop),
        client
            .list_stocks(v1::ListStocksRequest {
                journal: named(&other.journal),
                ..Default::default()
            })
            .await
            .map(drop),
        client
            .get_leadership(v1::GetLeadershipRequest {
                journal: named(&other.journal),
            })
            .await
            .map(drop),
        client
            .read_journal(v1::ReadJournalRequest {
                journal: named(&other.journal),
                ..Default::default()
            })
            .await
            .map(drop),
    ];
    for (number, refused) in refusals.into_iter().enumerate() {
        let refused = refused.unwrap_err();
        assert_eq!(
            refused.code(),
            Code::PermissionDenied,
            "{number}: {refused}"
        );
        assert!(refused.message().contains(&"09".repeat(16)), "{refused}");
    }
    assert_eq!(disk.journal().len(), 1);
    assert_eq!(leadership(&mut client).await.epoch, leader.epoch);
    running.stop().await;
}

#[tokio::test]
async fn a_ledger_is_compared_with_the_journal_where_it_claims_to_continue_it() {
    let running = Running::start_on(&disk(), LONG_LEASE).await;
    let mut client = running.client();
    let leader = running.elect_leader().await;
    let mut rows = Vec::new();
    for key in ["a", "b", "c"] {
        rows.push(leader.buy(key, "acme").await.unwrap());
    }
    let empty = vec![0; 32];
    let cases = [
        (0, &empty, Ok(3)),
        (2, &rows[1].chain_hash, Ok(1)),
        (3, &rows[2].chain_hash, Ok(0)),
        (0, &rows[0].chain_hash, Err(Code::Aborted)),
        (2, &rows[0].chain_hash, Err(Code::Aborted)),
        (3, &rows[1].chain_hash, Err(Code::Aborted)),
        (4, &rows[2].chain_hash, Err(Code::OutOfRange)),
    ];
    for (from, previous, expected) in cases {
        let request = v1::ReadJournalRequest {
            from,
            rows_max: 0,
            previous: previous.clone(),
            order: None,
            journal: leader.journal.clone(),
        };
        let read = async {
            let mut stream = client.read_journal(request).await?.into_inner();
            let mut count = 0;
            while let Some(message) = stream.message().await? {
                count += message.rows.len();
            }
            Ok::<_, Status>(count)
        };
        assert_eq!(
            read.await.map_err(|status| status.code()),
            expected,
            "{from}"
        );
    }
    running.stop().await;
}

#[tokio::test]
async fn stocks_are_listed_page_by_page() {
    let names: Vec<_> = (0..25_000).map(|number| format!("{number:05}")).collect();
    let disk = disk_of(names.iter().map(String::as_str));
    let running = Running::start_on(&disk, LONG_LEASE).await;
    let mut client = running.client();

    for limit in [1_000, 7_777, 10_000, 0] {
        let mut listed: Vec<String> = Vec::new();
        loop {
            let after = listed.last().cloned().unwrap_or_default();
            let (page, more) = page(&mut client, &after, limit).await;
            let limit = if limit == 0 { 10_000 } else { limit as usize };
            let left = names.len() - listed.len();
            assert_eq!((page.len(), more), (left.min(limit), left > limit));
            listed.extend(page);
            if !more {
                break;
            }
        }
        assert_eq!(listed, names);
    }

    // A name that no stock has is a place in the order, too.
    let two = vec!["00010".to_owned(), "00011".to_owned()];
    assert_eq!(page(&mut client, "00009a", 2).await, (two, true));
    assert_eq!(page(&mut client, "24999", 2).await, (Vec::new(), false));
    for (after, limit) in [(String::new(), 10_001), ("x".repeat(65), 1)] {
        let request = v1::ListStocksRequest {
            after,
            limit,
            ..Default::default()
        };
        let refused = client.list_stocks(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
    }
    running.stop().await;
}

/// Long enough to read ahead in.
const TIME_TO_READ: Duration = Duration::from_millis(20);

#[tokio::test]
async fn the_journal_is_read_as_it_is_taken() {
    let disk = disk();
    let running = Running::start_on(&disk, LONG_LEASE).await;
    let leader = running.elect_leader().await;
    for message in 0..4 {
        let keys = (0..512).map(|number| format!("{message}-{number}"));
        let orders = keys.map(|key| order(&key, "acme", Side::Sell, 1)).collect();
        leader.trade(orders).await.unwrap();
    }
    running.stop().await;

    let (_close, closing) = watch::channel(false);
    let (service, _ended) =
        server::start(parts(&disk, LONG_LEASE), closing, BazaarProtocol::default()).unwrap();
    let request = v1::ReadJournalRequest {
        journal: leader.journal,
        ..v1::ReadJournalRequest::default()
    };
    let messages = service.read_journal(Request::new(request)).await;
    let mut messages = messages.unwrap().into_inner();
    for taken in 1..=4 {
        assert_eq!(messages.next().await.unwrap().unwrap().rows.len(), 512);
        tokio::time::sleep(TIME_TO_READ).await;
        assert_eq!(disk.reads(), taken, "none ahead");
    }
    assert!(messages.next().await.is_none());
}

#[tokio::test]
async fn one_client_with_very_many_trades_leaves_room_for_those_of_others() {
    let disk = disk();
    let (_close, closing) = watch::channel(false);
    let (service, _ended) =
        server::start(parts(&disk, LONG_LEASE), closing, BazaarProtocol::default()).unwrap();
    let writer = service.writer.clone();
    let running = Running::serve(service).await;
    let leader = running.elect_leader().await;
    let other = Leader {
        client: running.client(),
        ..leader.clone()
    };
    disk.set_held(true);
    let sell = |leader: &Leader, key: &str| leader.start(order(key, "acme", Side::Sell, 1));
    let first = sell(&other, "first");
    until("it is on its way to the disk", async || disk.is_waiting()).await;
    let many = 0..2 * TRADES_PER_CLIENT_MAX;
    let many: Vec<_> = many
        .map(|number| sell(&leader, &number.to_string()))
        .collect();
    until("as many have queued as may", async || {
        writer.queued() >= TRADES_PER_CLIENT_MAX
    })
    .await;
    let last = sell(&other, "last");
    until("another client's has, too", async || {
        writer.queued() > TRADES_PER_CLIENT_MAX
    })
    .await;
    disk.set_held(false);
    first.await.unwrap().unwrap();
    let number = last.await.unwrap().unwrap().number;
    assert!(number <= 1 + TRADES_PER_CLIENT_MAX as u64, "{number}");
    for trade in many {
        trade.await.unwrap().unwrap();
    }
    running.stop().await;
}

#[tokio::test]
async fn the_largest_trades_that_there_are_fit_and_larger_messages_are_refused() {
    let running = Running::start_on(&disk(), LONG_LEASE).await;
    let leader = running.elect_leader().await;
    let name = "n".repeat(StockName::BYTES_MAX);
    let orders = (0..ORDERS_MAX).map(|number| {
        let key = format!("{number:0>width$}", width = IdempotencyKey::BYTES_MAX);
        order(&key, &name, Side::Sell, i64::MAX as u64)
    });
    let results = leader.trade(orders.collect()).await.unwrap();
    assert_eq!(results.len(), ORDERS_MAX);
    let key = "k".repeat(MESSAGE_BYTES_MAX);
    let refused = leader.buy(&key, "acme").await.unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange, "{refused}");
    running.stop().await;
}

#[tokio::test]
async fn commits_that_fail_are_told_of_and_tried_again_though_nobody_asks() {
    let disk = disk();
    let running = Running::start_on(&disk, LONG_LEASE).await;
    let leader = running.elect_leader().await;
    let fail = async || leadership(&mut running.client()).await.commits_fail;
    leader.buy("one", "acme").await.unwrap();
    assert!(!fail().await);
    disk.set_full(true);
    leader.buy("two", "acme").await.unwrap_err();
    assert!(fail().await);
    let before = disk.commits();
    disk.set_full(false);
    // Clients are sent elsewhere meanwhile: no trade would show it.
    until("a commit", async || !fail().await).await;
    assert!(disk.commits() > before);
    assert_eq!(read_stock(&mut running.client(), "acme", 0).await.0, 99);
    running.stop().await;
}

#[tokio::test]
async fn who_asks_for_them_is_told_of_the_gateways_that_have_a_session() {
    let running = Running::start_on(&disk(), LONG_LEASE).await;
    let session = Session::open(&running.client()).await;
    let named = async || {
        let request = v1::ListGatewaysRequest {
            names_alone: true,
            ..v1::ListGatewaysRequest::default()
        };
        let said = running.client().list_gateways(request).await;
        said.unwrap().into_inner().gateways
    };
    let gateways = named().await;
    assert_eq!(gateways.len(), 1);
    let gateway = &gateways[0];
    let named_so = (gateway.session, &*gateway.name);
    assert_eq!(named_so, (session.id, "test (127.0.0.1)"));
    session.release().await;
    until("nobody to be named", async || named().await.is_empty()).await;
    running.stop().await;
}
