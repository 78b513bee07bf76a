//! A service's figures over gRPC: `monitor.v1`, as consoles ask it.

use metrics::{Family, Sample, collected};
use tonic::{Request, Response, Status};
use wire::monitor::v1::monitor_server::{Monitor as Asked, MonitorServer};
use wire::monitor::v1::{self, Figures, GetFiguresRequest};

use crate::{Monitor, Readiness, export};

/// Answers for the process.
pub fn figures(monitor: Monitor) -> MonitorServer<impl Asked> {
    MonitorServer::new(Observed(monitor))
}

struct Observed(Monitor);

#[tonic::async_trait]
impl Asked for Observed {
    async fn get_figures(
        &self,
        _: Request<GetFiguresRequest>,
    ) -> Result<Response<Figures>, Status> {
        let (observation, exports) = (self.0.observe(), self.0.exports());
        let families = collected(|families| export(&observation, &exports, families));
        let families = families.map_err(|_| Status::internal("its figures cannot be had"))?;
        let (ready, says) = match observation.readiness {
            Readiness::Ready(role) => (true, role.to_owned()),
            Readiness::NotReady(why) => (false, why.into_owned()),
        };
        Ok(Response::new(Figures {
            ready,
            says,
            families: families.into_iter().map(family).collect(),
        }))
    }
}

fn family(Family { name, samples }: Family) -> v1::Family {
    let sample = |Sample {
                      labels,
                      value,
                      buckets,
                  }| v1::Sample {
        labels,
        value,
        buckets,
    };
    v1::Family {
        name,
        samples: samples.into_iter().map(sample).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Observation;

    #[tokio::test]
    async fn it_says_what_its_metrics_say() {
        let monitor = Monitor::default();
        monitor.set(|| Observation {
            readiness: Readiness::Ready("active"),
            figures: Vec::new(),
        });
        let observed = Observed(monitor);
        let asked = observed.get_figures(Request::new(GetFiguresRequest {}));
        let said = asked.await.unwrap().into_inner();
        assert_eq!((said.ready, said.says.as_str()), (true, "active"));
        let ready = said.families.iter().find(|it| it.name == "bazaar_ready");
        assert_eq!(ready.unwrap().samples[0].value, 1.0);
        let is_there = |name| said.families.iter().any(|family| family.name == name);
        assert!(is_there("process_cpu_seconds_total"));
        observed.0.stop();
        let asked = observed.get_figures(Request::new(GetFiguresRequest {}));
        assert!(!asked.await.unwrap().into_inner().ready);
    }
}
