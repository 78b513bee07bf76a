//! What somebody with a gateway's certificate can do to trades by sessions: hold what is traded in as many as it may have, and let
//! go of it in none.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use ::catalog::config::SESSIONS_PER_CLIENT_MAX;
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use wire::catalog::v1::session_event::Event;
use wire::catalog::v1::session_request::{Open, Renew, Request as Said};
use wire::catalog::v1::{GetStockRequest, SessionEvent, SessionRequest};

use super::*;
use crate::harness::{Spread, alone};

/// What clients trade, and who never lets go of it.
const STOCK: &str = "meta";
const GRASPING: &str = "gateway-grasping";

/// How often trades are measured, with and without, by turns; for how long each time, which is more than a lease; and with how
/// many clients.
const TURNS: usize = 5;
const MEASURED_FOR: Duration = Duration::from_millis(1500);
const CLIENTS: usize = 4;

/// How often a session is renewed, and asks for the stock: well within a lease.
const PAUSE: Duration = Duration::from_millis(300);

/// Of the trades that are made without such sessions, the least part that is made with them: in the median of the turns. Before
/// there were limits, three of them left 5 a second of 800.
const SHARE_MIN: f64 = 0.5;

/// A session with the catalog.
struct Session {
    id: u64,
    said: mpsc::Sender<SessionRequest>,
    events: Streaming<SessionEvent>,
}

impl Session {
    async fn open(catalog: &mut CatalogClient<Channel>) -> Option<Self> {
        let (said, stream) = mpsc::channel(8);
        let open = Said::Open(Open {
            gateway: "0.0.0.0:8080".to_owned(),
            journal: Vec::new(),
        });
        let request = Some(open);
        said.send(SessionRequest { request }).await.ok()?;
        let events = catalog.session(ReceiverStream::new(stream)).await.ok()?;
        let mut events = events.into_inner();
        let Event::Opened(opened) = events.message().await.ok()??.event? else {
            return None;
        };
        Some(Self {
            id: opened.session,
            said,
            events,
        })
    }

    /// Asks for the stock again and again, and acknowledges nothing, until it is over.
    async fn grasp(mut self, catalog: &mut CatalogClient<Channel>, seen: &Seen) {
        let mut is_lent = false;
        for nonce in 1.. {
            let asked = GetStockRequest {
                name: STOCK.to_owned(),
                session: self.id,
                journal: Vec::new(),
            };
            let answer = catalog.get_stock(asked).await;
            if !is_lent && answer.is_ok_and(|answer| answer.get_ref().cacheable) {
                is_lent = true;
                seen.lent.fetch_add(1, Ordering::Relaxed);
            }
            if nonce == 1 {
                seen.asked.fetch_add(1, Ordering::Relaxed);
            }
            let request = Some(Said::Renew(Renew { nonce }));
            if self.said.send(SessionRequest { request }).await.is_err() {
                return;
            }
            let over = async { while let Ok(Some(_)) = self.events.message().await {} };
            if timeout(PAUSE, over).await.is_ok() {
                return;
            }
        }
    }
}

/// How many sessions have asked for the stock, and how many were lent it.
#[derive(Debug, Default)]
struct Seen {
    asked: AtomicUsize,
    lent: AtomicUsize,
}

/// As many sessions as one may have, and others in their place once they are over; until it is dropped.
struct Grasping {
    seen: Arc<Seen>,
    _runtime: Runtime,
}

impl Grasping {
    /// Returns once each has asked for the stock.
    fn begin(bazaar: &Bazaar) -> Self {
        let (runtime, seen) = (runtime(), Arc::<Seen>::default());
        let certs = bazaar.certs();
        let catalog = runtime.block_on(async {
            let is = Expected::Role(Role::Gateway);
            Caller::new(bazaar, &certs, GRASPING, is).catalog()
        });
        for _ in 0..SESSIONS_PER_CLIENT_MAX {
            runtime.spawn(keep_one(catalog.clone(), Arc::clone(&seen)));
        }
        wait_until("all sessions to have asked for the stock", || {
            seen.asked.load(Ordering::Relaxed) >= SESSIONS_PER_CLIENT_MAX
        });
        Self {
            seen,
            _runtime: runtime,
        }
    }
}

/// Has a session, and another one once it is over.
async fn keep_one(mut catalog: CatalogClient<Channel>, seen: Arc<Seen>) {
    loop {
        if let Some(session) = Session::open(&mut catalog).await {
            session.grasp(&mut catalog, &seen).await;
        }
        sleep(PAUSE).await;
    }
}

/// How many trades clients of both gateways make in a second.
fn trades_per_second(bazaar: &Bazaar) -> f64 {
    let gateways = [0, 1].map(|gateway| bazaar.gateway_address(gateway));
    let began = Instant::now();
    let trades = Trades::of(&gateways, CLIENTS, || thread::sleep(MEASURED_FOR));
    let took = began.elapsed();
    assert!(trades.failed.is_empty(), "{:?}", trades.failed);
    println!("{}", trades.summary());
    trades.times.len() as f64 / took.as_secs_f64()
}

#[test]
fn who_has_as_many_sessions_as_it_may_and_lets_go_of_nothing_holds_trades_up_for_a_moment() {
    let _alone = alone();
    let mut bazaar = secured(2);
    let certs = bazaar.certs();
    let certs = certs.to_str().unwrap();
    run_ok(["cert", "new", certs, "--for=gateway/grasping"]);
    // It waits for the leases of before, so that what is measured does not.
    let settle = || bazaar.trade(&Order::sell(1, STOCK));
    let turns = (0..TURNS).map(|turn| {
        settle();
        let without = trades_per_second(&bazaar);
        settle();
        let grasping = Grasping::begin(&bazaar);
        let held = grasping.seen.lent.load(Ordering::Relaxed);
        let with = trades_per_second(&bazaar);
        let lent = grasping.seen.lent.load(Ordering::Relaxed);
        println!(
            "turn {turn}: {without:.0} trades/s, {with:.0} with sessions that let go of nothing: \
             {held} held the stock at first, {lent} in all"
        );
        // Otherwise nothing was measured.
        assert!(turn > 0 || held > SESSIONS_PER_CLIENT_MAX / 2, "{held}");
        with / without
    });
    let shares = Spread::of(turns);
    println!("{shares:.2} of the trades without them are made with them");
    assert!(shares.median >= SHARE_MIN, "{shares:.2}");
    let log = bazaar.server(Server::Catalog).log();
    let lines = log.lines();
    let mut noticed = lines.filter(|line| line.contains("keeps trades waiting"));
    let whose = "client=spiffe://bazaar/gateway/grasping at 127.0.0.1";
    assert!(noticed.any(|line| line.contains(whose)), "{log}");
}
