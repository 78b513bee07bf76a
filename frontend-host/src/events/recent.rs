//! The last events, rendered.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use domain::{OrderNumber, Side};
use frontend_policy::decision::Order;

/// Events that are kept: a stream that is further behind has to begin anew. With the longest names some 1.5 MiB.
pub(super) const EVENTS_MAX: usize = 4_096;

/// What a stream is given at a time, in bytes, at most.
pub(super) const CHUNK_BYTES_MAX: usize = 16 << 10;

/// Events in a row.
#[derive(Debug)]
pub(super) struct Recent {
    /// The number of the first that is kept.
    first: OrderNumber,
    events: VecDeque<Bytes>,
}

/// What there is for a stream.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Given {
    /// Some events, and the number behind the last of them.
    Events(Bytes, OrderNumber),
    /// No more for now.
    UpToDate,
    /// What comes next is no longer kept.
    Gone,
}

impl Recent {
    /// None, and the first to come has this number.
    pub(super) fn beginning_at(first: OrderNumber) -> Self {
        Self {
            first,
            events: VecDeque::new(),
        }
    }

    /// The number behind the last.
    pub(super) fn next(&self) -> OrderNumber {
        OrderNumber(self.first.0 + self.events.len() as u64)
    }

    /// Takes orders in. Those that continue it, and no others: each event comes once, in the order of the numbers.
    pub(super) fn take(&mut self, orders: &[Order]) {
        for order in orders {
            if order.number != self.next() {
                continue;
            }
            if self.events.len() == EVENTS_MAX {
                self.events.pop_front();
                self.first = OrderNumber(self.first.0 + 1);
            }
            self.events.push_back(event(order).into());
        }
    }

    /// Events from this number on.
    pub(super) fn from(&self, number: OrderNumber) -> Given {
        let Some(skipped) = number.0.checked_sub(self.first.0) else {
            return Given::Gone;
        };
        let skipped = usize::try_from(skipped).unwrap_or(usize::MAX);
        if skipped >= self.events.len() {
            return Given::UpToDate;
        }
        let mut chunk = BytesMut::new();
        let mut next = number;
        for event in self.events.range(skipped..) {
            if !chunk.is_empty() && chunk.len() + event.len() > CHUNK_BYTES_MAX {
                break;
            }
            chunk.extend_from_slice(event);
            next = OrderNumber(next.0 + 1);
        }
        Given::Events(chunk.freeze(), next)
    }
}

/// As the HTML standard has events, section 9.2.6. JSON has no line breaks.
pub(super) fn event(order: &Order) -> String {
    let Order {
        number,
        name,
        side,
        quantity,
    } = order;
    let side = match side {
        Side::Buy => "buy",
        Side::Sell => "sell",
    };
    let data = serde_json::json!({
        "number": number, "name": name, "type": side, "quantity": quantity,
    });
    format!("id: {number}\nevent: order\ndata: {data}\n\n")
}

#[cfg(test)]
mod tests {
    use domain::{Quantity, StockName};

    use super::*;

    fn orders(numbers: std::ops::Range<u64>) -> Vec<Order> {
        let order = |number| Order {
            number: OrderNumber(number),
            name: StockName::new("L'Oréal \"&\"").unwrap(),
            side: Side::Sell,
            quantity: Quantity::new(7).unwrap(),
        };
        numbers.map(order).collect()
    }

    #[test]
    fn an_event_is_an_order_as_clients_know_it() {
        let event = event(&orders(3..4)[0]);
        let data = event.strip_prefix("id: 3\nevent: order\ndata: ").unwrap();
        let data = data.strip_suffix("\n\n").unwrap();
        let data: serde_json::Value = serde_json::from_str(data).unwrap();
        let expected = serde_json::json!({ "number": 3, "name": "L'Oréal \"&\"", "type": "sell", "quantity": 7 });
        assert_eq!(data, expected);
    }

    #[test]
    fn events_come_once_and_in_order_whatever_is_taken_in() {
        let mut recent = Recent::beginning_at(OrderNumber(5));
        assert_eq!(recent.from(OrderNumber(4)), Given::Gone);
        assert_eq!(recent.from(OrderNumber(5)), Given::UpToDate);
        recent.take(&orders(7..9));
        assert_eq!(recent.next(), OrderNumber(5), "there is a gap before them");
        recent.take(&orders(3..7));
        recent.take(&orders(6..8));
        let Given::Events(chunk, next) = recent.from(OrderNumber(5)) else {
            panic!("there are some")
        };
        let expected: String = orders(5..8).iter().map(event).collect();
        assert_eq!((chunk, next), (expected.into(), OrderNumber(8)));
        assert_eq!(recent.from(OrderNumber(8)), Given::UpToDate);
        assert_eq!(
            recent.from(OrderNumber(80)),
            Given::UpToDate,
            "it will come"
        );
    }

    #[test]
    fn what_is_kept_and_given_at_a_time_is_bounded() {
        let mut recent = Recent::beginning_at(OrderNumber(0));
        let many = EVENTS_MAX as u64 + 10;
        recent.take(&orders(0..many));
        assert_eq!(recent.from(OrderNumber(9)), Given::Gone);
        let (mut next, mut given) = (OrderNumber(10), 0);
        while let Given::Events(chunk, behind) = recent.from(next) {
            assert!(chunk.len() <= CHUNK_BYTES_MAX);
            given += behind.0 - next.0;
            next = behind;
        }
        assert_eq!((next.0, given), (many, EVENTS_MAX as u64));
    }
}
