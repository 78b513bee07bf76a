//! Every method of every service, called as it is by each role, and by nobody: with a message that says nothing, so that no
//! call does anything.

use std::time::Duration;

use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic_prost::ProstCodec;

use super::*;
use crate::access::EXPECTED;

/// For a call that is let in, and waits for more than it was sent. One that is refused is so at once.
const LET_IN: Duration = Duration::from_secs(5);

/// What becomes of a call, of whatever kind: over the network all are streams.
async fn call(channel: Channel, method: &'static str) -> Result<(), Status> {
    let mut grpc = Grpc::new(channel);
    let ready = grpc.ready().await;
    ready.map_err(|error| Status::unavailable(error.to_string()))?;
    let (path, codec) = (
        PathAndQuery::from_static(method),
        ProstCodec::<(), ()>::default(),
    );
    let answers = grpc.streaming(Request::new(once(())), path, codec).await?;
    answers.into_inner().message().await.map(drop)
}

/// Where it is served.
fn servers(method: &str, replica: u32) -> Vec<Server> {
    match method {
        method if method.starts_with("/catalog.") => vec![Server::Catalog],
        method if method.starts_with("/order.") => vec![Server::Order(replica)],
        _ => vec![Server::Catalog, Server::Order(replica)],
    }
}

fn expected(server: Server) -> Expected {
    match server {
        Server::Order(id) => replica(id),
        _ => Expected::Role(Role::Catalog),
    }
}

#[test]
fn each_method_is_for_the_roles_that_are_expected_and_for_nobody_else() {
    let bazaar = secured(1);
    bazaar.trade(&Order::sell(1, "meta"));
    let before = bazaar.status();
    let (certs, follower) = (bazaar.certs(), bazaar.follower());
    let other = tempfile::tempdir().unwrap();
    run_ok(["cert", "new", other.path().to_str().unwrap()]);
    runtime().block_on(async {
        for role in Role::ALL {
            let (name, is) = match role {
                Role::Order => ("order-1".to_owned(), replica(1)),
                role => (role.name().to_owned(), Expected::Role(role)),
            };
            let caller = Caller::new(&bazaar, &certs, &name, is);
            for (method, roles) in EXPECTED {
                for server in servers(method, follower) {
                    let called = call(caller.to(server, expected(server)), method);
                    let refused = match timeout(LET_IN, called).await {
                        Ok(Err(status)) if status.message().contains("may not call") => {
                            Some(status)
                        }
                        _ => None,
                    };
                    let what = format!("{role:?} calls {method} of {server}: {refused:?}");
                    assert_eq!(refused.is_none(), roles.contains(&role), "{what}");
                    let code = refused.map(|refused| refused.code());
                    assert!(
                        code.is_none_or(|code| code == Code::PermissionDenied),
                        "{what}"
                    );
                }
            }
        }
        // Of another authority, and without a certificate.
        let is = Expected::Role(Role::Gateway);
        let foreign = Caller::new(&bazaar, other.path(), "gateway", is);
        for (method, _) in EXPECTED {
            for server in servers(method, follower) {
                let url = format!("http://{}", bazaar.server_address(server));
                let plain = connect::lazy(&url, &Security::NONE).unwrap();
                for channel in [foreign.to(server, expected(server)), plain] {
                    let called = timeout(PATIENCE, call(channel, method)).await;
                    let refused = called.expect("it is refused at once").unwrap_err();
                    assert_ne!(
                        refused.code(),
                        Code::PermissionDenied,
                        "{method}: {refused}"
                    );
                    assert_ne!(refused.code(), Code::InvalidArgument, "{method}: {refused}");
                }
            }
        }
    });
    let now = bazaar.status();
    for unchanged in ["epoch", "leader", "protocol", "journal"] {
        assert_eq!(now[unchanged], before[unchanged], "{unchanged}");
    }
    assert_eq!(bazaar.quantity("meta"), 1001);
}
