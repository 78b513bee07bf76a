//! A feed without a bazaar behind it.

use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use domain::{Quantity, Side, StockName};
use frontend_policy::DEFAULT_POLICY;

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

fn follow(events: &Arc<Events>) -> EventStream {
    let place = StreamPlace::take(events, "192.0.2.1".parse().unwrap());
    let policy = events.policy.current().active.id;
    EventStream::new(place.expect("there is a place"), OrderNumber(0), policy)
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
    let refused = events.follow(None, 0, client).await;
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
    let refused = events.follow(None, 0, "192.0.2.1".parse().unwrap()).await;
    let why = refused.err();
    assert_eq!(
        why,
        Some(NotFollowed::Unavailable(Unavailability::NoCatalog))
    );
    assert_eq!(events.figures().0, 0);
}
