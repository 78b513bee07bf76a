use std::time::{Duration, Instant};

use rpc::listen::Limits;
use rpc::retry::{RetryClass, RetryStatus as _};
use tonic::Code;
use wire::catalog::v1::session_request::Request;
use wire::catalog::v1::{self, Side};

use super::harness::{
    LONG_LEASE, Running, SHORT_LEASE, SOON, Session, disk, order, read_stock, row, until,
};
use crate::config::SESSIONS_PER_CLIENT_MAX;
use crate::config::lease_max;

/// How late a busy machine may be.
const SLACK: Duration = Duration::from_secs(2);

/// Far more than streams have room for.
const RENEWALS_MAX: u64 = 1_000_000;

#[tokio::test]
async fn a_trade_is_answered_after_every_holder_let_go() {
    let running = Running::start_on(&disk(), LONG_LEASE).await;
    let leader = running.elect_leader().await;
    let mut client = running.client();
    let mut first = Session::open(&running.client()).await;
    let mut second = Session::open(&running.client()).await;
    assert_ne!(first.id, second.id);
    assert_eq!(u128::from(first.lease_ms), LONG_LEASE.as_millis());
    assert_eq!(read_stock(&mut client, "acme", first.id).await, (100, true));
    assert_eq!(
        read_stock(&mut client, "acme", second.id).await,
        (100, true)
    );

    let buy = leader.start_buy("key", "acme");
    let invalidates = [first.invalidated().await, second.invalidated().await];
    let floor = &invalidates[0].floors[0];
    assert_eq!((floor.name.as_str(), floor.version), ("acme", 2));
    assert_eq!(
        read_stock(&mut client, "acme", first.id).await,
        (100, false)
    );
    first.acknowledge(invalidates[0].round).await;
    first.renewed(1).await; // so that the acknowledgement has counted
    assert_eq!(
        read_stock(&mut client, "acme", first.id).await,
        (100, false)
    );
    assert!(!buy.is_finished());
    second.acknowledge(invalidates[1].round).await;
    buy.await.unwrap().unwrap();
    assert_eq!(read_stock(&mut client, "acme", first.id).await, (99, true));
    running.stop().await;
}

#[tokio::test]
async fn caches_let_go_while_the_disk_syncs() {
    let disk = disk();
    let running = Running::start_on(&disk, LONG_LEASE).await;
    let leader = running.elect_leader().await;
    let mut client = running.client();
    let mut session = Session::open(&running.client()).await;
    assert_eq!(
        read_stock(&mut client, "acme", session.id).await,
        (100, true)
    );
    disk.set_held(true);
    let buy = leader.start_buy("key", "acme");
    let invalidate = session.invalidated().await;
    session.acknowledge(invalidate.round).await;
    session.renewed(1).await;
    assert_eq!(
        read_stock(&mut client, "acme", session.id).await,
        (100, false)
    );
    assert!(!buy.is_finished());
    disk.set_held(false);
    buy.await.unwrap().unwrap();
    assert_eq!(
        read_stock(&mut client, "acme", session.id).await,
        (99, true)
    );
    running.stop().await;
}

#[tokio::test]
async fn who_never_acknowledges_delays_a_trade_one_lease_at_most() {
    let running = Running::start_on(&disk(), SHORT_LEASE).await;
    let leader = running.elect_leader().await;
    let mut client = running.client();
    let mut session = Session::open(&running.client()).await;
    assert_eq!(
        read_stock(&mut client, "acme", session.id).await,
        (100, true)
    );
    let renewed = Instant::now();
    session.renewed(1).await;
    let asked = Instant::now();
    let buy = leader.start_buy("key", "acme");
    session.invalidated().await;
    // Renewing without acknowledging is of no use.
    for number in 0.. {
        if buy.is_finished() {
            break;
        }
        let (quantity, cacheable) = read_stock(&mut client, "acme", session.id).await;
        assert!(!cacheable && (quantity == 100 || renewed.elapsed() >= SHORT_LEASE));
        // Another stock is not held up.
        let other = order(&number.to_string(), "bolt", Side::Sell, 1);
        row(leader.trade(vec![other]).await.unwrap().remove(0));
        session.renew_many(); // in vain
    }
    buy.await.unwrap().unwrap();
    assert!(
        renewed.elapsed() >= SHORT_LEASE,
        "a holder that may be serving was not waited for"
    );
    assert!(
        asked.elapsed() < lease_max(SHORT_LEASE) + SLACK,
        "{:?}",
        asked.elapsed()
    );
    assert_eq!(read_stock(&mut client, "acme", 0).await.0, 99);
    let over = session.event().await.unwrap_err();
    assert_eq!(over.code(), Code::FailedPrecondition, "{over}");
    assert_eq!(
        read_stock(&mut client, "acme", session.id).await,
        (99, false)
    );
    running.stop().await;
}

#[tokio::test]
async fn a_broken_stream_holds_until_its_lease_is_over_and_a_release_lets_go_at_once() {
    for released in [false, true] {
        let running = Running::start_on(&disk(), SHORT_LEASE).await;
        let leader = running.elect_leader().await;
        let mut client = running.client();
        let opened = Instant::now();
        let session = Session::open(&running.client()).await;
        assert_eq!(
            read_stock(&mut client, "acme", session.id).await,
            (100, true)
        );
        if released {
            session.release().await;
        } else {
            drop(session);
        }
        let buy = leader.start_buy("key", "acme");
        if !released {
            // The trade waits: whatever is seen before the lease is over is the old value.
            let (quantity, _) = read_stock(&mut client, "acme", 0).await;
            assert!(quantity == 100 || opened.elapsed() >= SHORT_LEASE);
        }
        buy.await.unwrap().unwrap();
        if !released {
            assert!(
                opened.elapsed() >= SHORT_LEASE,
                "a holder that may be serving was not waited for"
            );
        }
        running.stop().await;
    }
}

#[tokio::test]
async fn a_repeated_trade_waits_as_the_first_one_does() {
    let running = Running::start_on(&disk(), LONG_LEASE).await;
    let leader = running.elect_leader().await;
    let mut client = running.client();
    let mut session = Session::open(&running.client()).await;
    assert_eq!(
        read_stock(&mut client, "acme", session.id).await,
        (100, true)
    );
    let first = leader.start_buy("key", "acme");
    let round = session.invalidated().await.round;
    let again = leader.start_buy("key", "acme");
    leader.buy("other", "bolt").await.unwrap(); // so that `again` has most likely come through
    assert!(!again.is_finished());
    session.acknowledge(round).await;
    assert_eq!(first.await.unwrap().unwrap(), again.await.unwrap().unwrap());
    running.stop().await;
}

#[tokio::test]
async fn a_full_disk_leaves_the_old_value_for_all() {
    let disk = disk();
    let running = Running::start_on(&disk, LONG_LEASE).await;
    let leader = running.elect_leader().await;
    let mut client = running.client();
    let mut session = Session::open(&running.client()).await;
    assert_eq!(
        read_stock(&mut client, "acme", session.id).await,
        (100, true)
    );
    disk.set_full(true);
    assert_eq!(
        leader.buy("key", "acme").await.unwrap_err().code(),
        Code::Unavailable
    );
    let invalidate = session.invalidated().await;
    assert_eq!(
        read_stock(&mut client, "acme", session.id).await,
        (100, false)
    );
    session.acknowledge(invalidate.round).await;
    session.renewed(1).await;
    assert_eq!(
        read_stock(&mut client, "acme", session.id).await,
        (100, true)
    );
    running.stop().await;
}

#[tokio::test]
async fn a_session_begins_with_an_open_and_has_no_other() {
    let running = Running::start_on(&disk(), LONG_LEASE).await;
    let mut session = Session::unopened(&running.client()).await;
    session.renew(1).await;
    assert_eq!(
        session.event().await.unwrap_err().code(),
        Code::InvalidArgument
    );
    let mut session = Session::open(&running.client()).await;
    session.send(Request::Open(Default::default())).await;
    assert_eq!(
        session.event().await.unwrap_err().code(),
        Code::InvalidArgument
    );
    running.stop().await;
}

#[tokio::test]
async fn a_session_that_takes_no_events_does_not_hold_up_the_writer() {
    let running = Running::start_on(&disk(), LONG_LEASE).await;
    let leader = running.elect_leader().await;
    let mut client = running.client();
    let session = Session::open(&running.narrow_client()).await;
    // Nobody takes events off the stream: it fills up and is cut.
    let mut renewals = 0;
    while read_stock(&mut client, "acme", session.id).await.1 {
        assert!(renewals < RENEWALS_MAX, "never cut");
        renewals += session.renew_many();
        let other = order(&renewals.to_string(), "bolt", Side::Sell, 1);
        leader.trade(vec![other]).await.unwrap();
    }
    running.stop().await;
}

#[tokio::test]
async fn one_client_cannot_open_all_sessions() {
    let running = Running::start_on(&disk(), LONG_LEASE).await;
    let client = running.client();
    let mut sessions = Vec::new();
    for _ in 0..SESSIONS_PER_CLIENT_MAX {
        sessions.push(Session::open(&client).await);
    }
    let refused = Session::try_open(&client)
        .await
        .err()
        .expect("one too many");
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    assert_eq!(RetryClass::of(&refused), RetryClass::Later, "{refused}");
    assert!(refused.message().contains("release"), "{refused}");
    Session::open(&running.client()).await; // on a connection of its own

    // One whose stream broke counts on: its gateway may be serving under it. One that was
    // released does not.
    drop(sessions.pop());
    assert!(Session::try_open(&client).await.is_err());
    sessions.pop().unwrap().release().await;
    until("there is room", async || {
        Session::try_open(&client).await.is_ok()
    })
    .await;
    running.stop().await;
}

#[tokio::test]
async fn sessions_that_broke_count_as_long_as_their_leases() {
    let running = Running::start_on(&disk(), SHORT_LEASE).await;
    let client = running.client();
    for _ in 0..2 * SESSIONS_PER_CLIENT_MAX {
        until("there is room", async || {
            Session::try_open(&client).await.is_ok()
        })
        .await;
    }
    running.stop().await;
}

/// Else whoever opens one after the other, and lets none end, is listed as all gateways that there may be.
#[tokio::test]
async fn who_lets_the_lease_run_out_is_not_listed_for_its_reports() {
    let running = Running::start_on(&disk(), SHORT_LEASE).await;
    let session = Session::open(&running.client()).await;
    let mut client = running.client();
    let mut listed = async || {
        let request = v1::ListGatewaysRequest::default();
        let said = client.list_gateways(request).await.unwrap();
        said.into_inner().gateways.len()
    };
    assert_eq!(listed().await, 1);
    until("it to be listed no more", async || {
        session.report();
        listed().await == 0
    })
    .await;
    running.stop().await;
}

#[tokio::test]
async fn a_session_may_be_quiet_for_its_lease_and_one_that_does_not_open_for_no_longer_than_idle() {
    let limits = Limits {
        idle_max: Duration::from_secs(1),
        ..Limits::default()
    };
    let running = Running::start_within(&disk(), LONG_LEASE, limits).await;
    let mut opened = Session::open(&running.client()).await;
    let begun = Instant::now();
    let mut unopened = Session::unopened(&running.client()).await;
    unopened.event().await.expect_err("it is cut off");
    assert!(begun.elapsed() < SOON);
    assert!(begun.elapsed() >= limits.idle_max);
    opened.renewed(1).await;
    running.stop().await;
}

/// A gateway dies now and then; one that lets every lease run out is wrong, or is hostile.
#[tokio::test]
async fn who_never_acknowledges_is_lent_nothing_after_a_few_times_and_others_are() {
    let running = Running::start_on(&disk(), SHORT_LEASE).await;
    let leader = running.elect_leader().await;
    let (hostile, mut reader) = (running.client(), running.client());
    let mut held = 0;
    for number in 0..10 {
        let session = Session::open(&hostile).await;
        held += u32::from(read_stock(&mut reader, "acme", session.id).await.1);
        // As long as it holds the stock, this waits for its lease.
        leader
            .start_buy(&format!("key-{number}"), "acme")
            .await
            .unwrap()
            .unwrap();
    }
    assert!((1..=5).contains(&held), "lent {held} times of 10");
    let other = Session::open(&running.client()).await;
    let (_, is_lent) = read_stock(&mut reader, "acme", other.id).await;
    assert!(is_lent, "another gateway is lent what it asks for");
    running.stop().await;
}

/// Its trades wait for no cache then, and whatever is read is as new as before.
#[tokio::test]
async fn a_stock_that_is_always_recalled_is_lent_to_nobody_until_its_trades_pause() {
    let running = Running::start_on(&disk(), LONG_LEASE).await;
    let leader = running.elect_leader().await;
    let mut client = running.client();
    let mut session = Session::open(&running.client()).await;
    let (mut left, mut trades_withheld) = (100, 0);
    while trades_withheld < 10 {
        let (quantity, is_lent) = read_stock(&mut client, "acme", session.id).await;
        assert_eq!(quantity, left);
        left -= 1;
        assert!(left > 0, "it is lent for ever");
        let buy = leader.start_buy(&format!("key-{left}"), "acme");
        if is_lent {
            let round = session.invalidated().await.round;
            session.acknowledge(round).await;
        } else {
            trades_withheld += 1;
        }
        buy.await.unwrap().unwrap();
    }
    let (_, is_lent) = read_stock(&mut client, "bolt", session.id).await;
    assert!(is_lent, "the other stock is lent");
    until("it to be lent again", async || {
        read_stock(&mut client, "acme", session.id).await == (left, true)
    })
    .await;
    running.stop().await;
}

#[tokio::test]
async fn a_raise_that_is_refused_names_the_gateway_of_before_and_where_it_is() {
    let running = Running::start_on(&disk(), LONG_LEASE).await;
    let leader = running.elect_leader().await;
    // As release 0.1.0 does, it says nothing of itself.
    let _session = Session::open(&running.narrow_client()).await;
    let raised = running
        .client()
        .raise_protocol(v1::RaiseProtocolRequest {
            protocol: 2,
            journal: leader.journal.clone(),
        })
        .await;
    let why = raised.unwrap_err().message().to_owned();
    let expected = "gateway test (127.0.0.1) cannot be of a bazaar at version 2: ";
    assert!(why.starts_with(expected), "{why}");
}
