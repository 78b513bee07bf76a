//! What a caller may not do whose certificate is for another role, or another name.

use wire::catalog::v1 as catalog;
use wire::order::v1 as order;

use super::*;

/// What each may, and nothing else: the calls that would do most harm.
#[test]
fn nobody_may_call_what_is_not_theirs() {
    let mut bazaar = secured(1);
    bazaar.trade(&Order::sell(1, "meta"));
    let status = bazaar.status();
    let journal = hex(status["journal"].as_str().unwrap());
    let epoch = status["epoch"].as_u64().unwrap();
    let leader = bazaar.leader();
    let follower = bazaar.follower();
    let third = 6 - leader - follower;
    let certs = bazaar.certs();
    runtime().block_on(async {
        let is = |name: &str, expected| Caller::new(&bazaar, &certs, name, expected);
        let of = |id: u32| is(&format!("order-{id}"), replica(id));
        let gateway = is("gateway", Expected::Role(Role::Gateway));
        let operator = is("operator", Expected::Role(Role::Operator));
        let viewer = is("viewer", Expected::Role(Role::Viewer));
        let catalogs = is("catalog", Expected::Role(Role::Catalog));
        let trade = |key: &str| catalog::TradeRequest {
            epoch,
            orders: vec![catalog::Order {
                idempotency_key: key.to_owned(),
                name: "meta".to_owned(),
                side: catalog::Side::Sell.into(),
                quantity: 1,
                ..catalog::Order::default()
            }],
            journal: journal.clone(),
        };
        let in_sync = || catalog::SetInSyncRequest {
            epoch,
            in_sync: vec![follower, leader],
            change: 1 << 40,
            journal: journal.clone(),
        };
        let elect = || catalog::ElectRequest {
            expected_epoch: epoch,
            candidate: follower,
            journal: journal.clone(),
        };
        let append = |leader| order::AppendRequest {
            epoch: epoch + 7,
            leader,
            rows: Vec::new(),
            committed: 0,
            traced: Vec::new(),
            journal: journal.clone(),
        };
        let announce = || order::AnnounceRequest {
            epoch: epoch + 7,
            leader: follower,
            journal: journal.clone(),
        };
        let report = |replica| catalog::ReportLedgerRequest {
            replica,
            run: 1,
            chain_hash: vec![0; 32],
            journal: journal.clone(),
            ..Default::default()
        };
        let missing = |replica| catalog::ReportMissingRequest {
            replica,
            row: None,
            journal: journal.clone(),
        };

        for (who, caller) in [
            ("a gateway", &gateway),
            ("an operator", &operator),
            ("another catalog", &catalogs),
        ] {
            let traded = first(caller.catalog().trade_many(once(trade("forged")))).await;
            denied(&format!("{who} trades"), traded, "may not call");
            let set = caller.catalog().set_in_sync(in_sync()).await;
            denied(&format!("{who} says who is in sync"), set, "may not call");
            let reported = caller.catalog().report_ledger(report(leader)).await;
            denied(&format!("{who} reports a ledger"), reported, "may not call");
            let appended = first(
                caller
                    .replication(follower)
                    .append_many(once(append(leader))),
            )
            .await;
            denied(&format!("{who} appends"), appended, "may not call");
            let mut replication = caller.replication(follower);
            let fetched = replication.fetch(order::FetchRequest {
                journal: journal.clone(),
                ..Default::default()
            });
            denied(
                &format!("{who} fetches"),
                first(fetched).await,
                "may not call",
            );
        }
        for (who, caller) in [
            ("an operator", &operator),
            ("a viewer", &viewer),
            ("a replica", &of(leader)),
        ] {
            let elected = caller.catalog().elect(elect()).await;
            denied(&format!("{who} elects"), elected, "may not call");
            let announced = caller.orders(follower).announce(announce()).await;
            denied(&format!("{who} announces"), announced, "may not call");
            let placed = first(
                caller
                    .orders(leader)
                    .place_many(once(order::PlaceManyRequest::default())),
            )
            .await;
            denied(&format!("{who} places orders"), placed, "may not call");
            let session = first(
                caller
                    .catalog()
                    .session(once(catalog::SessionRequest { request: None })),
            )
            .await;
            denied(&format!("{who} opens a session"), session, "may not call");
            let taken = first(
                caller
                    .catalog()
                    .take_many(once(catalog::TakeRequest::default())),
            )
            .await;
            denied(&format!("{who} takes tokens"), taken, "may not call");
            let gateways = catalog::ListGatewaysRequest::default();
            let listed = caller.catalog().list_gateways(gateways).await;
            denied(&format!("{who} lists gateways"), listed, "may not call");
        }

        let traded = first(of(follower).catalog().trade_many(once(trade("forged")))).await;
        denied("a follower trades", traded, "does not lead");
        let set = of(follower).catalog().set_in_sync(in_sync()).await;
        denied("a follower says who is in sync", set, "does not lead");
        let appended = first(
            of(third)
                .replication(follower)
                .append_many(once(append(leader))),
        )
        .await;
        denied(
            "a replica appends as the leader",
            appended,
            "appends as replica",
        );
        for (what, answer) in [
            (
                "reports",
                of(third)
                    .catalog()
                    .report_ledger(report(leader))
                    .await
                    .map(drop),
            ),
            (
                "says what is missing",
                of(third)
                    .catalog()
                    .report_missing(missing(leader))
                    .await
                    .map(drop),
            ),
            (
                "puts back",
                of(third)
                    .catalog()
                    .put_back(catalog::PutBackRequest {
                        replica: leader,
                        journal: journal.clone(),
                        ..Default::default()
                    })
                    .await
                    .map(drop),
            ),
        ] {
            denied(
                &format!("a replica {what} for another"),
                answer,
                "speaks for replica",
            );
        }

        // And what they may is done: it is the caller that was refused, not the call.
        let traded = first(of(leader).catalog().trade_many(once(trade("the leader's")))).await;
        traded.expect("the leader trades");
        let said = operator
            .catalog()
            .get_leadership(catalog::GetLeadershipRequest::default())
            .await;
        assert_eq!(said.unwrap().get_ref().epoch, epoch);
        let said = viewer
            .orders(follower)
            .status(Request::new(order::StatusRequest {}))
            .await;
        assert_eq!(said.unwrap().get_ref().epoch, epoch, "nobody was announced");
    });
    assert_eq!(bazaar.status()["epoch"], epoch);
    assert_eq!(
        bazaar.quantity("meta"),
        1002,
        "the leader's, and no forged trade"
    );
    // Each of them is named.
    let log = bazaar.server(Server::Catalog).log();
    let whose = "client=spiffe://bazaar/viewer/viewer at 127.0.0.1";
    let refused = log
        .lines()
        .filter(|line| line.contains("a call was refused"));
    let mut refused = { refused }.filter(|line| line.contains(whose));
    assert!(refused.next().is_some(), "{log}");
}

fn hex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks(2);
    let byte = |digits: &[u8]| u8::from_str_radix(str::from_utf8(digits).unwrap(), 16).unwrap();
    digits.map(byte).collect()
}
