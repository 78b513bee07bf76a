//! What services say of themselves to load balancers, supervisors and Prometheus, at `--metrics`.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::Duration;

use rpc::connect::{Security, lazy};
use test_postgres::{Cluster, Options as Servers, free_port};

use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use crate::harness::{Bazaar, Order, Server, run, try_request, wait_until};
use crate::on_postgres::start;

const PATIENCE: Duration = Duration::from_secs(10);

/// The status and the body.
fn ask(at: SocketAddr, target: &str) -> Option<(u16, String)> {
    let answer = try_request(at, "GET", target, &[], b"", PATIENCE).ok()?;
    Some((answer.status, answer.body))
}

fn wait_until_it_says(at: SocketAddr, readiness: &str) {
    wait_until(&format!("it to say {readiness}"), || {
        ask(at, "/readyz") == Some((200, format!("{readiness}\n")))
    });
}

/// Starts a server again, and has it say what it is; returns where.
fn monitor(bazaar: &mut Bazaar, server: Server) -> SocketAddr {
    let at = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    bazaar.server(server).kill();
    bazaar.start_server_with(server, vec![format!("--metrics={at}")]);
    at
}

#[test]
fn a_catalog_and_replicas_say_in_which_role_they_are_ready_and_what_they_have() {
    let mut bazaar = Bazaar::start_default();
    let catalog = monitor(&mut bazaar, Server::Catalog);
    wait_until_it_says(catalog, "active");
    bazaar.wait_until_ready();
    let follower = bazaar.follower();
    let replica = monitor(&mut bazaar, Server::Order(follower));
    wait_until_it_says(replica, "follower");
    assert_eq!(ask(replica, "/healthz"), Some((200, "ok\n".to_owned())));
    for _ in 0..3 {
        bazaar.trade(&Order::sell(1, "meta"));
    }
    for (at, line) in [
        (catalog, "bazaar_catalog_journal_rows 3"),
        (catalog, "bazaar_catalog_sessions 1"),
        (replica, "bazaar_order_ledger_rows 3"),
        (replica, "bazaar_ready 1"),
    ] {
        wait_until(line, || {
            let said = ask(at, "/metrics");
            said.is_some_and(|(_, text)| text.lines().any(|found| found == line))
        });
    }
    // Without the catalog it takes no rows that it could not know of, and says so when it starts.
    bazaar.kill_catalog();
    let replica = monitor(&mut bazaar, Server::Order(follower));
    wait_until("it to say that it is not ready", || {
        ask(replica, "/readyz").is_some_and(|(status, _)| status == 503)
    });
}

#[test]
fn of_two_catalogs_one_says_that_it_is_active_and_the_other_that_it_stands_by() {
    let Some(cluster) = Cluster::start(&Servers {
        standby: true,
        ..Servers::default()
    }) else {
        return;
    };
    let mut bazaar = start(&cluster.database("bazaar"), 2);
    let other = monitor(&mut bazaar, Server::OtherCatalog);
    let first = monitor(&mut bazaar, Server::Catalog);
    let both = [first, other];
    let says = |at, role: &str| ask(at, "/readyz") == Some((200, format!("{role}\n")));
    wait_until("one to be active and the other to stand by", || {
        both.iter().any(|at| says(*at, "active")) && both.iter().any(|at| says(*at, "standby"))
    });
    let (active, standby) = match says(first, "active") {
        true => (Server::Catalog, other),
        false => (Server::OtherCatalog, first),
    };
    bazaar.server(active).kill();
    wait_until_it_says(standby, "active");
}

#[test]
fn an_address_that_is_taken_is_named_with_its_flag() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = taken.local_addr().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let refused = run([
        "catalog",
        "--new",
        "--listen=127.0.0.1:0",
        &format!("--data-dir={}", dir.path().display()),
        &format!("--metrics={at}"),
    ]);
    assert_eq!(refused.status.code(), Some(1));
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(
        said.contains(&at.to_string()) && said.contains("--metrics"),
        "{said}"
    );
}

#[test]
fn each_service_says_over_grpc_whether_it_serves_and_what_it_can_be_asked() {
    let bazaar = Bazaar::start_default();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    for (server, services) in [
        (Server::Catalog, &["catalog.v1.Catalog"][..]),
        (
            Server::Order(1),
            &["order.v1.Orders", "order.v1.Replication"],
        ),
    ] {
        let url = format!("http://{}", bazaar.server_address(server));
        runtime.block_on(async {
            let channel = lazy(&url, &Security::NONE).unwrap();
            let mut health = HealthClient::new(channel.clone());
            for service in [""].iter().chain(services) {
                let request = HealthCheckRequest {
                    service: (*service).to_owned(),
                };
                let answer = health.check(request).await.unwrap();
                let status = answer.get_ref().status();
                assert_eq!(status, ServingStatus::Serving, "{service} of {server}");
            }
            let unknown = HealthCheckRequest {
                service: "another".to_owned(),
            };
            let unknown = health.check(unknown).await.unwrap_err();
            assert_eq!(unknown.code(), tonic::Code::NotFound);
            let mut reflection = ServerReflectionClient::new(channel);
            let list = ServerReflectionRequest {
                host: String::new(),
                message_request: Some(MessageRequest::ListServices(String::new())),
            };
            let asked = reflection.server_reflection_info(tokio_stream::once(list));
            let answer = asked.await.unwrap().into_inner().message().await.unwrap();
            let Some(MessageResponse::ListServicesResponse(listed)) =
                answer.unwrap().message_response
            else {
                panic!("it lists no services");
            };
            let listed: Vec<_> = listed.service.iter().map(|it| it.name.as_str()).collect();
            for service in services {
                assert!(listed.contains(service), "{listed:?}");
            }
        });
    }
}
