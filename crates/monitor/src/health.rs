//! The same over gRPC: `grpc.health.v1`, as load balancers and `grpcurl` ask it.

use std::time::Duration;

use daemon::tasks;
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::{Monitor, Readiness};

/// How often whoever watches is looked after.
const WATCH_INTERVAL: Duration = Duration::from_millis(500);

/// Which gRPC services there are, and whether each does its part where the process is ready in a role.
pub type Serves = &'static [(&'static str, fn(&str) -> bool)];

/// Answers for the process as a whole, which has no name, and for each of its services.
pub fn health(monitor: Monitor, serves: Serves) -> HealthServer<impl Health> {
    HealthServer::new(Observed { monitor, serves })
}

#[derive(Debug, Clone)]
struct Observed {
    monitor: Monitor,
    serves: Serves,
}

impl Observed {
    /// `None` where there is no such service.
    fn status(&self, service: &str) -> Option<ServingStatus> {
        let does_its_part = match service {
            "" => |_: &str| true,
            named => self.serves.iter().find(|(name, _)| *name == named)?.1,
        };
        Some(match self.monitor.observe().readiness {
            Readiness::Ready(role) if does_its_part(role) => ServingStatus::Serving,
            _ => ServingStatus::NotServing,
        })
    }
}

fn answer(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse {
        status: status.into(),
    }
}

#[tonic::async_trait]
impl Health for Observed {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let status = self.status(&request.get_ref().service);
        let status = status.ok_or_else(|| Status::not_found("there is no such service"))?;
        Ok(Response::new(answer(status)))
    }

    type WatchStream = ReceiverStream<Result<HealthCheckResponse, Status>>;

    /// Each change, until the process stops.
    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let (changes, watched) = mpsc::channel(1);
        let (observed, service) = (self.clone(), request.into_inner().service);
        tasks::spawn_for_caller(async move {
            let mut told = None;
            loop {
                let status = observed.status(&service);
                let status = status.unwrap_or(ServingStatus::ServiceUnknown);
                if told.replace(status) != Some(status)
                    && changes.send(Ok(answer(status))).await.is_err()
                {
                    return;
                }
                if observed.monitor.has_stopped() {
                    return;
                }
                tokio::select! {
                    () = sleep(WATCH_INTERVAL) => {}
                    () = changes.closed() => return,
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(watched)))
    }
}

#[cfg(test)]
mod tests {
    use tokio_stream::StreamExt as _;

    use super::*;
    use crate::Observation;

    const SERVES: Serves = &[("catalog.v1.Catalog", |role| role == "active")];

    fn observed() -> Observed {
        Observed {
            monitor: Monitor::default(),
            serves: SERVES,
        }
    }

    fn is(role: &'static str) -> impl Fn() -> Observation {
        move || Observation {
            readiness: Readiness::Ready(role),
            figures: Vec::new(),
        }
    }

    #[test]
    fn a_process_that_stands_by_serves_and_its_service_does_not() {
        let observed = observed();
        let both = || ["", "catalog.v1.Catalog"].map(|service| observed.status(service).unwrap());
        use ServingStatus::{NotServing, Serving};
        assert_eq!(both(), [NotServing, NotServing]);
        observed.monitor.set(is("standby"));
        assert_eq!(both(), [Serving, NotServing]);
        observed.monitor.set(is("active"));
        assert_eq!(both(), [Serving, Serving]);
        assert_eq!(observed.status("another"), None);
    }

    #[tokio::test]
    async fn whoever_watches_hears_of_each_change_and_of_the_end() {
        let observed = observed();
        let request = HealthCheckRequest {
            service: "catalog.v1.Catalog".to_owned(),
        };
        let watched = observed.watch(Request::new(request)).await.unwrap();
        let mut changes = watched.into_inner();
        let mut heard = Vec::new();
        while let Some(change) = changes.next().await {
            heard.push(change.unwrap().status());
            match heard.len() {
                1 => observed.monitor.set(is("active")),
                2 => observed.monitor.stop(),
                _ => {}
            }
        }
        use ServingStatus::{NotServing, Serving};
        assert_eq!(heard, [NotServing, Serving, NotServing]);
    }
}
