//! What services say of themselves to load balancers, supervisors and Prometheus, at `--metrics`.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::time::Duration;

use rpc::connect::{Security, lazy};
use test_postgres::{Cluster, free_port};

use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use crate::harness::{Bazaar, Options, Order, Server, run, run_ok, try_request, wait_until};
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

/// Of a database that is an older copy, whose rows one replica that is away may have.
#[test]
fn a_catalog_that_waits_and_its_gateways_say_for_whom_and_how_long() {
    let mut bazaar = Bazaar::start(Options {
        lease_ms: 4000,
        ..Options::default()
    });
    bazaar.trade(&Order::sell(1, "meta"));
    assert!(bazaar.server(Server::Catalog).terminate().success());
    let copy = tempfile::tempdir().unwrap();
    let copy_all = |from: &Path, to: &Path| {
        for entry in fs::read_dir(from).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
            }
        }
    };
    let dir = bazaar.catalog_dir();
    copy_all(&dir, copy.path());
    bazaar.restart_catalog();
    bazaar.trade(&Order::sell(1, "meta"));
    let away = bazaar.follower();
    bazaar.kill(away);
    bazaar.kill_catalog();
    fs::remove_dir_all(&dir).unwrap();
    fs::create_dir(&dir).unwrap();
    copy_all(copy.path(), &dir);
    let catalog = monitor(&mut bazaar, Server::Catalog);
    let whom =
        format!("for the ledger of replica {away}, since its database may lack what is there");
    wait_until("both to say whom the catalog waits for", || {
        let own = ask(catalog, "/readyz");
        let of_gateway = bazaar.admin("GET", "/readyz", b"");
        own.is_some_and(|(status, why)| status == 503 && why.contains(&whom))
            && of_gateway.status == 503
            && of_gateway.error().1.starts_with("the catalog waits ")
            && of_gateway.error().1.contains(&whom)
    });
    bazaar.restart(away);
    wait_until("both to say how long the catalog waits for leases", || {
        let leases = " s more for leases of before its start";
        let own = ask(catalog, "/readyz");
        let of_gateway = bazaar.admin("GET", "/readyz", b"");
        own.is_some_and(|(_, why)| why.contains(leases))
            && of_gateway.status == 503
            && of_gateway.error().1.contains(leases)
    });
    wait_until_it_says(catalog, "active");
    bazaar.wait_until_ready();
    bazaar.trade(&Order::sell(1, "meta"));
    bazaar.check_acknowledged();
}

#[test]
fn every_service_says_of_which_release_it_is() {
    let release = rpc::release::RELEASE;
    let mut bazaar = Bazaar::start_default();
    let other = bazaar.start_beside(Server::Gateway(1), &[]);
    wait_until("the other gateway to have a session", || {
        other.log().contains("session with the catalog opened")
    });
    let admin = format!("http://{}", bazaar.admin_address());
    let shown = run_ok(["protocol", "show", "--admin", &admin]);
    let named: Vec<_> = shown
        .lines()
        .filter(|it| it.starts_with("gateway "))
        .collect();
    assert!(
        named.len() == 1 && named[0].contains(&format!(" {release} ")),
        "the other gateway, and not this one: {shown}"
    );
    let all = [Server::Catalog, Server::Gateway(0)].into_iter();
    for server in all.chain([1, 2, 3].map(Server::Order)) {
        let log = bazaar.server(server).log();
        let starting = log.lines().find(|line| line.contains("starting"));
        let said = format!("release=\"{release}\"");
        assert!(
            starting.is_some_and(|it| it.contains(&said)),
            "{server}: {log}"
        );
    }
    let build = format!("bazaar_build_info{{version=\"{release}\"}} 1");
    let catalog = monitor(&mut bazaar, Server::Catalog);
    wait_until("the catalog to say it", || {
        ask(catalog, "/metrics").is_some_and(|(_, text)| text.contains(&build))
    });
    assert!(bazaar.admin("GET", "/metrics", b"").body.contains(&build));
    wait_until("the status to say it of all", || {
        let status = bazaar.status();
        let replicas = status["replicas"].as_array().unwrap();
        let services = replicas
            .iter()
            .chain(status["catalogs"].as_array().unwrap());
        services.count() == 4
            && replicas.iter().all(|it| it["release"] == release)
            && status["catalogs"][0]["release"] == release
            && status["release"] == release
    });
}

#[test]
fn of_two_catalogs_one_says_that_it_is_active_and_the_other_that_it_stands_by() {
    let Some(cluster) = Cluster::replicated() else {
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
