//! The services behind the gateway, asked for more than they take.

use std::net::SocketAddr;
use std::thread;

use domain::JournalId;
use rpc::connect::Security;
use rpc::listen::MESSAGE_BYTES_MAX;
use tonic::{Code, Response, Status, Streaming};
use wire::catalog::v1::catalog_client::CatalogClient;
use wire::catalog::v1::{JournalRow, Order, TradeRequest};
use wire::order::v1::AppendRequest;
use wire::order::v1::replication_client::ReplicationClient;

use super::{FLOOD_KIB_MAX, http2};
use crate::harness::{Bazaar, Order as Placed, Server};

fn order(key: String) -> Order {
    Order {
        idempotency_key: key,
        name: "nvidia".into(),
        side: 1,
        quantity: 1,
        ..Order::default()
    }
}

/// How a call that is past a limit is refused.
async fn past_a_limit<A>(answers: Result<Response<Streaming<A>>, Status>) -> Code {
    let refused = match answers {
        Ok(mut answers) => answers.get_mut().message().await.map(drop),
        Err(refused) => Err(refused),
    };
    refused.expect_err("it is past a limit").code()
}

#[tokio::test]
async fn messages_past_a_limit_get_an_error_and_change_nothing() {
    let bazaar = Bazaar::start_default();
    let url = |server| format!("http://{}", bazaar.server_address(server));
    let channel = |server| rpc::connect::lazy(&url(server), &Security::NONE).unwrap();
    let mut catalog = CatalogClient::new(channel(Server::Catalog));
    let status = bazaar.status();
    let epoch = status["epoch"].as_u64().unwrap();
    let journal: JournalId = status["journal"].as_str().unwrap().parse().unwrap();
    let journal = journal.as_bytes().to_vec();
    let mut trade = async |orders: Vec<Order>| {
        let request = TradeRequest {
            epoch,
            orders,
            journal: journal.clone(),
        };
        past_a_limit(catalog.trade_many(tokio_stream::iter([request])).await).await
    };
    let long = vec![order("k".repeat(MESSAGE_BYTES_MAX))];
    assert_eq!(trade(long).await, Code::OutOfRange);
    let many = (0..1025).map(|number| order(number.to_string())).collect();
    assert_eq!(trade(many).await, Code::InvalidArgument);
    assert_eq!(
        trade(vec![order("k".repeat(MESSAGE_BYTES_MAX / 2))]).await,
        Code::InvalidArgument
    );

    let replica = Server::Order(bazaar.leader());
    let mut replica = ReplicationClient::new(channel(replica));
    let row = JournalRow {
        idempotency_key: "k".repeat(MESSAGE_BYTES_MAX),
        ..JournalRow::default()
    };
    let append = AppendRequest {
        epoch,
        leader: 1,
        rows: vec![row],
        committed: 0,
        traced: Vec::new(),
        journal,
    };
    let answers = replica.append_many(tokio_stream::iter([append])).await;
    assert_eq!(past_a_limit(answers).await, Code::OutOfRange);

    assert_eq!(
        bazaar.trade(&Placed::sell(1, "meta")),
        0,
        "nothing was traded"
    );
    assert_eq!(bazaar.quantity("nvidia"), 1000);
}

#[test]
fn http2_floods_of_a_service_hold_no_trade_up() {
    let mut bazaar = Bazaar::start_default();
    bazaar.trade(&Placed::sell(1, "meta"));
    for server in [Server::Catalog, Server::Order(bazaar.leader())] {
        let before_kib = bazaar.server(server).resident_kib();
        let address: SocketAddr = bazaar.server_address(server);
        for (name, attack) in http2::ATTACKS {
            thread::scope(|scope| {
                let attacker = scope.spawn(move || attack(address));
                while !attacker.is_finished() {
                    bazaar.trade(&Placed::sell(1, "meta"));
                }
                let end = attacker.join().expect("attackers do not panic");
                // What is answered or refused at once may go on: it costs others nothing.
                println!("{name} on {server}: {end:?}");
            });
            let added_kib = bazaar
                .server(server)
                .resident_kib()
                .saturating_sub(before_kib);
            assert!(
                added_kib <= FLOOD_KIB_MAX,
                "{name} on {server}: {added_kib} KiB more"
            );
        }
    }
    bazaar.check_acknowledged();
    assert_eq!(bazaar.panics(), Vec::<String>::new());
}
