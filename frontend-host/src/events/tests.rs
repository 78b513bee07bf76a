//! A feed without a bazaar behind it.

use std::future::poll_fn;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use domain::{Quantity, Side, StockName};
use frontend_policy::{DEFAULT_POLICY, Reason, Share};
use tokio::time::{Instant, timeout};

use super::*;
use crate::alone;

fn orders(numbers: std::ops::Range<u64>) -> Vec<Order> {
    let order = |number| Order {
        number: OrderNumber(number),
        name: StockName::new("nvidia").unwrap(),
        side: Side::Buy,
        quantity: Quantity::new(1).unwrap(),
    };
    numbers.map(order).collect()
}

/// Events of which the first to come is the first of all.
fn events() -> Arc<Events> {
    let events = Arc::clone(&alone::gateway(DEFAULT_POLICY).events);
    *events.recent() = Some(Recent::beginning_at(OrderNumber(0)));
    events
}

fn take(events: &Events, orders: &[Order]) {
    events.recent().as_mut().unwrap().take(orders);
    events.progress.send_modify(|progress| progress.pages += 1);
}

/// Let in by what is active.
fn let_in(events: &Events) -> LetIn {
    let published = events.policy.current();
    LetIn {
        version: published.active.id,
        generation: published.generation,
    }
}

fn follow_as(events: &Arc<Events>, let_in: LetIn) -> EventStream {
    let place = StreamPlace::take(events, "192.0.2.1".parse().unwrap());
    EventStream::new(place.expect("there is a place"), OrderNumber(0), let_in)
}

fn follow(events: &Arc<Events>) -> EventStream {
    follow_as(events, let_in(events))
}

/// Another version.
fn older_default() -> Vec<u8> {
    let project = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    std::fs::read(format!("{project}/tests/policies/default-1.1.wasm")).unwrap()
}

fn poll(stream: &mut EventStream) -> Poll<Option<Bytes>> {
    stream.poll_next(&mut Context::from_waker(Waker::noop()))
}

fn given(stream: &mut EventStream) -> String {
    let Poll::Ready(Some(bytes)) = poll(stream) else {
        panic!("there is something")
    };
    String::from_utf8(bytes.into()).unwrap()
}

#[tokio::test]
async fn who_takes_less_than_is_placed_is_cut_off_and_nobody_else() {
    let events = events();
    let [mut fast, mut slow] = [follow(&events), follow(&events)];
    for stream in [&mut fast, &mut slow] {
        assert_eq!(given(stream), "retry: 2000\n\n");
        assert!(poll(stream).is_pending());
    }
    let step = recent::EVENTS_MAX as u64 / 2;
    for page in 0..3 {
        take(&events, &orders(page * step..(page + 1) * step));
        let mut last = String::new();
        while let Poll::Ready(bytes) = poll(&mut fast) {
            last = String::from_utf8(bytes.expect("it goes on").into()).unwrap();
        }
        let newest = format!("id: {}\n", (page + 1) * step - 1);
        assert!(last.contains(&newest), "{last}");
    }
    assert_eq!(poll(&mut slow), Poll::Ready(None));
}

#[tokio::test]
async fn a_stream_ends_with_the_gateway_and_no_other_begins() {
    let events = events();
    let mut stream = follow(&events);
    given(&mut stream);
    assert!(poll(&mut stream).is_pending());
    events.end();
    assert_eq!(poll(&mut stream), Poll::Ready(None));
    let client = "192.0.2.1".parse().unwrap();
    let refused = events.follow(None, let_in(&events), client).await;
    assert!(matches!(refused, Err(NotFollowed::Ending)));
}

#[tokio::test]
async fn one_client_has_some_streams_and_leaves_the_others_to_others() {
    let events = events();
    let place = |client: &str| StreamPlace::take(&events, client.parse().unwrap());
    let taken: Vec<_> = std::iter::from_fn(|| place("192.0.2.1")).collect();
    assert_eq!(taken.len(), STREAMS_PER_CLIENT_MAX);
    assert_eq!(events.figures(), (STREAMS_PER_CLIENT_MAX, 1));
    assert!(place("192.0.2.2").is_some());
    drop(taken);
    assert_eq!(events.figures(), (0, 1));
    assert!(place("192.0.2.1").is_some());
}

/// Without a catalog nobody knows where orders end.
#[tokio::test]
async fn who_cannot_follow_holds_no_place() {
    let events = Arc::clone(&alone::gateway(DEFAULT_POLICY).events);
    let client = "192.0.2.1".parse().unwrap();
    let refused = events.follow(None, let_in(&events), client).await;
    let why = refused.err();
    assert_eq!(
        why,
        Some(NotFollowed::Unavailable(Unavailability::NoCatalog))
    );
    assert_eq!(events.figures().0, 0);
}

/// The next look would be after five seconds.
#[tokio::test]
async fn a_swap_ends_the_streams_of_the_version_before_at_once() {
    let events = events();
    let _looking = daemon::tasks::spawn("events", Arc::clone(&events).keep_looking());
    let mut stream = follow(&events);
    given(&mut stream);
    let waits = poll_fn(|cx| stream.poll_next(cx));
    let waited = timeout(Duration::from_millis(200), waits).await;
    assert!(waited.is_err(), "nothing has changed: {waited:?}");
    let other = older_default();
    let swap = async {
        let activated = events.policy.activate(&other[..], &Reason::default());
        activated.unwrap();
        Instant::now()
    };
    let (end, swapped) = tokio::join!(poll_fn(|cx| stream.poll_next(cx)), swap);
    assert_eq!(end, None);
    let after = swapped.elapsed();
    assert!(after < Duration::from_secs(2), "{after:?}");
}

#[tokio::test]
async fn no_order_goes_out_once_the_version_that_let_its_client_in_is_out_of_service() {
    let events = events();
    let all = Share::new(1.0).unwrap();
    let other = older_default();
    let mut of_active = follow(&events);
    let try_out = |trial| {
        let reason = Reason::default();
        events.policy.try_out(&other[..], trial, &reason).unwrap()
    };
    let version = try_out(Trial::Canary(all)).id;
    let canary = LetIn {
        version,
        ..let_in(&events)
    };
    let mut of_canary = follow_as(&events, canary);
    // One that stood in for what decides, and is decided about anew at the next swap.
    let stood_in = LetIn {
        version: u64::MAX,
        ..canary
    };
    let mut of_other = follow_as(&events, stood_in);
    for stream in [&mut of_active, &mut of_canary, &mut of_other] {
        given(stream);
        assert!(poll(stream).is_pending());
    }
    try_out(Trial::Shadow(all));
    take(&events, &orders(0..1));
    assert!(given(&mut of_active).contains("id: 0\n"));
    for stream in [&mut of_canary, &mut of_other] {
        assert_eq!(poll(stream), Poll::Ready(None));
    }
}
