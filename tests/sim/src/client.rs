//! Clients: they look at stocks, trade and find orders, one operation after the other, and the
//! oracle judges what they are told.

use std::time::Duration;

use domain::{
    Entry, IdempotencyKey, Note, Order, OrderNumber, Price, Quantity, Refusal, Side, StockChange,
    StockChangeKind, StockName,
};
use order_core::message::Placed;

use crate::gateway::placed;
use crate::messages::{Failure, Node, Operation, Purpose, Request, Response, Run, Told};
use crate::oracle::{Before, Oracle};
use crate::plan::Plan;
use crate::timeline::{Happening, Timeline};

/// How long a client waits for a gateway.
const PATIENCE: Duration = Duration::from_secs(10);

pub struct Client {
    index: usize,
    run: Run,
    plan: Plan,
    /// What is left to do once there are no more faults.
    left: Option<u32>,
    keys: u64,
    current: Option<Current>,
    asking: bool,
    pub answered: u64,
    pub failed: u64,
}

#[derive(Clone)]
struct Current {
    operation: Operation,
    before: Before,
    /// The order was known to exist when it was looked for.
    promised: bool,
    gateway: Option<usize>,
}

impl Client {
    pub fn new(line: &Timeline, plan: &Plan, index: usize) -> Self {
        Self {
            index,
            run: line.run(Node::Client(index)),
            plan: *plan,
            left: None,
            keys: 0,
            current: None,
            asking: false,
            answered: 0,
            failed: 0,
        }
    }

    pub fn is_done(&self) -> bool {
        self.left == Some(0) && self.current.is_none()
    }

    /// There are no more faults: so many more operations, each of which must end.
    pub fn finish(&mut self, operations: u32) {
        self.left = Some(operations);
    }

    /// Begins its next operation, or goes on with the one that failed.
    pub fn operate(&mut self, line: &mut Timeline, oracle: &Oracle) {
        if self.asking {
            return;
        }
        let current = match self.current.take() {
            Some(current) => current,
            None if self.left == Some(0) => return,
            None => {
                self.left = self.left.map(|left| left - 1);
                self.draw(line, oracle)
            }
        };
        let gateway = current.gateway;
        let gateway = gateway.unwrap_or_else(|| line.random.usize(..self.plan.gateways));
        let request = Request::Operate(current.operation.clone());
        self.current = Some(current);
        self.asking = true;
        let to = Node::Gateway(gateway);
        line.call(self.run, to, request, PATIENCE, Purpose::Operate);
    }

    /// Looks at a stock through a certain gateway.
    pub fn look(&mut self, line: &mut Timeline, oracle: &Oracle, name: StockName, gateway: usize) {
        self.current = Some(Current {
            before: oracle.before(&name),
            operation: Operation::Lookup(name),
            promised: false,
            gateway: Some(gateway),
        });
        self.operate(line, oracle);
    }

    fn draw(&mut self, line: &mut Timeline, oracle: &Oracle) -> Current {
        let names: Vec<StockName> = self.plan.names().collect();
        let name = line.random.choice(&names).expect("at least one").clone();
        let before = oracle.before(&name);
        if line.random.u32(..100) < self.plan.changes {
            self.keys += 1;
            let key = format!("operator-{}-{}", self.index, self.keys);
            let change = StockChange {
                key: IdempotencyKey::new(&key).expect("a key"),
                name,
                kind: drawn_change(line),
                note: Note::new("somebody", "because"),
            };
            return Current {
                operation: Operation::Trade(change.into()),
                before,
                promised: false,
                gateway: None,
            };
        }
        let (operation, promised) = match line.random.u32(..100) {
            0..55 => (Operation::Lookup(name), false),
            55..85 => {
                self.keys += 1;
                let key = format!("client-{}-{}", self.index, self.keys);
                let shares = line.random.choice([1, 2, 7, 30]).expect("one of them");
                let order = Order {
                    key: IdempotencyKey::new(&key).expect("a key"),
                    name,
                    side: *line.random.choice(&[Side::Buy, Side::Sell]).expect("one"),
                    quantity: Quantity::new(shares).expect("a quantity"),
                };
                (Operation::Trade(order.into()), false)
            }
            _ => {
                let beyond = oracle.end().orders().0 + line.random.u64(..3);
                let known = oracle.some_number(&mut line.random);
                let number = known
                    .filter(|_| line.random.u32(..4) > 0)
                    .unwrap_or(OrderNumber(beyond));
                (Operation::Find(number), oracle.is_promised(number))
            }
        };
        Current {
            operation,
            before,
            promised,
            gateway: None,
        }
    }

    /// A gateway has answered, or nobody has.
    pub fn answered(&mut self, line: &mut Timeline, oracle: &mut Oracle, told: Told) {
        let current = self.current.take().expect("it asked");
        self.asking = false;
        if self.judge(oracle, &current, told).is_ok() {
            self.answered += 1;
        } else {
            self.failed += 1;
            let is_trade = matches!(current.operation, Operation::Trade(_));
            // A trade of which nothing is known is mostly tried again, under its key.
            let again = self.left.is_some() || (is_trade && line.chance(800));
            self.current = again.then_some(current);
        }
        let pause = line.between(Duration::ZERO, self.plan.think);
        line.after(pause, Happening::Operate(self.index));
    }

    fn judge(&self, oracle: &mut Oracle, current: &Current, told: Told) -> Result<(), Failure> {
        let before = current.before;
        match &current.operation {
            Operation::Lookup(name) => match told? {
                Response::Stock { stock, .. } => oracle.looked(before, name, &stock),
                Response::NoSuchStock => oracle.looked_in_vain(before, name),
                other => unreachable!("a look is not answered with {other:?}"),
            },
            Operation::Trade(entry) => match placed(told)? {
                made @ (Placed::Number(_) | Placed::StockChanged(_)) => {
                    oracle.traded(before, entry, made);
                }
                Placed::Refused(refusal) => match (refusal, entry) {
                    (Refusal::NotEnough, Entry::Order(_))
                    | (Refusal::StockExists, Entry::StockChange(_))
                    | (Refusal::StockNotFound, _) => oracle.refused(before, entry, refusal),
                    _ => panic!("{entry:?} was refused: {refusal:?}"),
                },
            },
            Operation::Find(number) => match told? {
                Response::Row(row) => oracle.found(before, *number, Some(&row), current.promised),
                Response::NoSuchOrder => oracle.found(before, *number, None, current.promised),
                other => unreachable!("an order is not answered with {other:?}"),
            },
        }
        Ok(())
    }
}

/// Listed again more often than delisted, so that there is something to trade.
fn drawn_change(line: &mut Timeline) -> StockChangeKind {
    let minor = line.random.choice([1, 2000, 2001]).expect("one of them");
    let price = Price::from_minor(minor).expect("a price");
    let shares = line.random.choice([1, 7, 40]).expect("one of them");
    match line.random.u32(..10) {
        0..3 => StockChangeKind::Price { price },
        3..5 => StockChangeKind::Restock {
            quantity: Quantity::new(shares).expect("a quantity"),
        },
        5..7 => StockChangeKind::Delist,
        _ => StockChangeKind::Add {
            price,
            quantity: shares,
        },
    }
}
