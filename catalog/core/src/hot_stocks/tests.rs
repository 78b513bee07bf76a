use super::*;

fn at(millis: u64) -> BootTime {
    BootTime::from_millis(100_000 + millis)
}

fn id(id: u64) -> SessionId {
    SessionId::new(id).unwrap()
}

fn name(name: &str) -> StockName {
    StockName::new(name).unwrap()
}

/// A run of trades at even pauses, between which sessions read at even pauses too: what they are lent they read from
/// their caches until the next trade.
struct Run {
    hot: HotStocks,
    holders: BTreeSet<SessionId>,
    now: u64,
    /// Since [`Run::clear`].
    lookups: u64,
    recalls: u64,
    reads: u64,
}

impl Run {
    fn new() -> Self {
        Self {
            hot: HotStocks::default(),
            holders: BTreeSet::new(),
            now: 0,
            lookups: 0,
            recalls: 0,
            reads: 0,
        }
    }

    fn clear(&mut self) {
        (self.lookups, self.recalls, self.reads) = (0, 0, 0);
    }

    fn trade(&mut self) {
        let stock = name("acme");
        if !self.holders.is_empty() {
            self.hot.recalled(&stock);
            self.recalls += self.holders.len() as u64;
        }
        self.holders.clear();
        self.hot.traded([&stock], at(self.now));
    }

    fn read(&mut self, session: u64) {
        self.reads += 1;
        if self.holders.contains(&id(session)) {
            return;
        }
        self.lookups += 1;
        let now = at(self.now);
        if self.hot.may_lend(&name("acme"), id(session), now) {
            self.holders.insert(id(session));
        }
    }

    /// So many trades, before each of which each session reads so often.
    fn go_on(&mut self, trades: u64, pause: u64, sessions: u64, reads: u64) {
        for _ in 0..trades {
            for _ in 0..reads {
                for session in 1..=sessions {
                    self.read(session);
                }
            }
            self.now += pause;
            self.trade();
        }
    }
}

#[test]
fn a_stock_that_is_always_recalled_is_lent_no_more_and_trades_wait_for_nobody() {
    for sessions in [1, 8, 256] {
        for reads in 1..=LOOKUPS_PER_RECALL {
            let mut run = Run::new();
            run.go_on(100, 10, sessions, reads);
            assert_eq!(run.hot.withheld(at(run.now)), 1);
            run.clear();
            run.go_on(200, 10, sessions, reads);
            assert_eq!(run.recalls, 0, "{sessions} sessions, {reads} reads");
            assert_eq!(run.lookups, 200 * sessions * reads);
        }
    }
}

#[test]
fn a_stock_that_is_read_much_more_than_traded_is_lent() {
    for (sessions, reads) in [(1, 8), (1, 100), (8, 8), (8, 32), (64, 8)] {
        let mut run = Run::new();
        run.go_on(200, 10, sessions, reads);
        run.clear();
        // More than ten seconds, after which it is looked at again.
        run.go_on(2_000, 10, sessions, reads);
        // All reads but the first after each trade are answered by leases, but for the time that it takes to see that.
        let by_leases = run.reads - run.lookups;
        let share = by_leases as f64 / (2_000 * sessions * (reads - 1)) as f64;
        assert!(
            share > 0.9,
            "{sessions} sessions, {reads} reads: {share:.2}"
        );
    }
}

#[test]
fn what_it_costs_to_see_that_leases_pay_is_bounded() {
    for sessions in [1, 8, 256] {
        let mut run = Run::new();
        // The first trade begins the period.
        run.go_on(u64::from(RECALLS_HOT) + 1, 10, sessions, 1);
        assert_eq!(run.hot.withheld(at(run.now)), 1);
        run.clear();
        // Nobody trades any more.
        let bound = LOOKUPS_JUDGED.max(LOOKUPS_PER_RECALL * sessions) + 2 * sessions;
        while run.hot.withheld(at(run.now)) > 0 {
            (1..=sessions).for_each(|session| run.read(session));
            assert!(run.lookups <= bound, "{sessions} sessions: {}", run.lookups);
        }
    }
}

#[test]
fn a_stock_is_withheld_for_a_second_after_its_last_trade_at_most() {
    let mut run = Run::new();
    run.go_on(60, 10, 8, 1);
    let stock = name("acme");
    let last = WITHHELD_MAX - Duration::from_millis(1);
    assert!(!run.hot.may_lend(&stock, id(1), at(run.now) + last));
    assert_eq!(run.hot.withheld(at(run.now) + last), 1);
    assert_eq!(run.hot.withheld(at(run.now) + WITHHELD_MAX), 0);
    assert!(run.hot.may_lend(&stock, id(1), at(run.now) + WITHHELD_MAX));
}

#[test]
fn a_stock_that_is_traded_a_few_times_a_second_is_always_lent() {
    for sessions in [1, 256] {
        let mut run = Run::new();
        run.go_on(1_000, 150, sessions, 1);
        assert_eq!(run.lookups, 1_000 * sessions);
        assert_eq!(run.recalls, run.lookups, "each was lent, and recalled");
    }
}

#[test]
fn other_stocks_are_lent_whatever_is_withheld() {
    let mut run = Run::new();
    run.go_on(100, 10, 8, 1);
    assert!(!run.hot.may_lend(&name("acme"), id(1), at(run.now)));
    assert!(run.hot.may_lend(&name("bolt"), id(1), at(run.now)));
}

/// The hot one is found among however many others, and nothing grows with them.
#[test]
fn a_stock_that_is_recalled_often_is_found_among_ten_thousand_others() {
    let mut hot = HotStocks::default();
    let others: Vec<StockName> = (0..10_000).map(|n| name(&format!("stock-{n}"))).collect();
    let acme = name("acme");
    for round in 0..1_000_u64 {
        let now = at(round * 10);
        let others = others.iter().cycle().skip(round as usize * 16).take(16);
        for other in others.clone() {
            hot.recalled(other);
        }
        hot.recalled(&acme);
        hot.traded(others.chain([&acme]), now);
        assert!(hot.recalls.len() <= COUNTED_MAX && hot.tried.len() <= TRIED_MAX);
    }
    assert!(matches!(hot.tried.get(&acme), Some(Tried::Withheld(_))));
    assert_eq!(hot.tried.len(), 1);
}

#[test]
fn more_hot_stocks_than_there_is_room_for_are_lent() {
    let mut hot = HotStocks::default();
    let numbers = 0..=TRIED_MAX;
    let stocks: Vec<StockName> = numbers.map(|n| name(&format!("stock-{n}"))).collect();
    // One after the other, within a second after the first.
    for (number, stock) in stocks.iter().enumerate() {
        let now = at(number as u64);
        hot.traded([], now);
        for _ in 0..RECALLS_HOT {
            hot.recalled(stock);
        }
        hot.traded([stock], now);
    }
    let now = at(stocks.len() as u64);
    assert_eq!(hot.withheld(now), TRIED_MAX);
    assert!(hot.may_lend(&stocks[TRIED_MAX], id(1), now));
}
