//! What a service says of itself over HTTP, for load balancers, supervisors and Prometheus: whether it is alive and
//! ready, which anybody may ask, and its figures, which over TLS only those get who have a certificate of the cluster's.
//!
//! - `listener`: connections, of which there are few, each with one request;
//! - [`health`]: the same over gRPC;
//! - [`figures`]: its figures over gRPC, for consoles.

#![cfg_attr(
    not(test),
    warn(clippy::disallowed_methods, clippy::print_stdout, clippy::print_stderr)
)]

use std::borrow::Cow;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use daemon::work::Work;
use http::header::{ACCEPT, ALLOW, CONTENT_TYPE, VARY};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use metrics::metric::{LOG_RECORDS_DROPPED, READY};
use metrics::{Export, Families, Form, Metric, exposition, process};

mod listener;
pub mod health;
pub mod figures;

pub use listener::{PROTOCOLS, serve};

/// What a service is at the moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observation {
    pub readiness: Readiness,
    pub figures: Vec<Figure>,
}

/// Whether a service does its part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// In which role.
    Ready(&'static str),
    /// Why it does not.
    NotReady(Cow<'static, str>),
}

/// What whoever reaches the listener may ask.
const OPEN_PATHS: [&str; 2] = ["/healthz", "/readyz"];

/// Of a service that only comes to its end.
const STOPPING: Readiness = Readiness::NotReady(Cow::Borrowed("stopping"));

/// A number that can rise and fall.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Figure {
    /// A gauge without labels.
    pub metric: &'static Metric,
    pub value: u64,
}

/// Where a service says what it is, from its start to its end.
#[derive(Clone, Default)]
pub struct Monitor(Arc<Sources>);

#[derive(Default)]
struct Sources {
    observation: Mutex<Option<Source>>,
    exports: Mutex<Vec<Arc<dyn Export>>>,
    /// Of threads by their names, a few.
    works: Mutex<Vec<(&'static str, Work)>>,
}

type Source = Arc<dyn Fn() -> Observation + Send + Sync>;

impl fmt::Debug for Monitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Monitor").field(&self.observe()).finish()
    }
}

impl Monitor {
    /// From now on it is asked there.
    pub fn set(&self, source: impl Fn() -> Observation + Send + Sync + 'static) {
        let observation = self.0.observation.lock();
        *observation.unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(source));
    }

    /// From now on, and to its end, it exports these as well, whatever it is.
    pub fn export(&self, export: Arc<dyn Export>) {
        let mut exports = self
            .0
            .exports
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        exports.push(export);
    }

    /// From now on, and to its end, it needs that thread, which says what it is at.
    pub fn watch(&self, thread: &'static str, work: Work) {
        let works = self.0.works.lock();
        works
            .unwrap_or_else(PoisonError::into_inner)
            .push((thread, work));
    }

    /// The first thread that it needs and that has been at one piece of work for longer than that.
    pub fn stands_still(&self, time: Duration) -> Option<&'static str> {
        let works = self.0.works.lock();
        let works = works.unwrap_or_else(PoisonError::into_inner);
        let still = works.iter().find(|(_, work)| work.takes_longer_than(time));
        still.map(|(thread, _)| *thread)
    }

    /// From now on the service only comes to its end.
    pub fn stop(&self) {
        self.set(|| Observation {
            readiness: STOPPING,
            figures: Vec::new(),
        });
    }

    /// Whether it only comes to its end.
    pub fn has_stopped(&self) -> bool {
        self.observe().readiness == STOPPING
    }

    /// What the service is now.
    pub fn observe(&self) -> Observation {
        let source = self
            .0
            .observation
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        // Not under the lock: it takes locks of the service's.
        source.map_or_else(
            || Observation {
                readiness: Readiness::NotReady("starting".into()),
                figures: Vec::new(),
            },
            |source| source(),
        )
    }

    /// Its figures, in the form that is accepted.
    fn figures(&self, headers: &HeaderMap) -> Response<Full<Bytes>> {
        let form = Form::accepted(headers.get_all(ACCEPT));
        let (observation, exports) = (self.observe(), self.exports());
        let figures = exposition(form, move |families| {
            export(&observation, &exports, families)
        });
        let mut response = respond(StatusCode::OK, form.content_type(), figures);
        let varies = HeaderValue::from_static("accept");
        response.headers_mut().insert(VARY, varies);
        response
    }

    fn exports(&self) -> Vec<Arc<dyn Export>> {
        let exports = self.0.exports.lock();
        exports.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// `/healthz` says whether it is alive, `/readyz` its role, with 503 where it has none yet, and `/metrics` its
    /// figures. Who is not of the cluster gets the first two alone, as probes do, which have no certificates.
    fn answer<B>(
        &self,
        request: &Request<B>,
        is_of_cluster: impl FnOnce() -> bool,
    ) -> Response<Full<Bytes>> {
        let plain = |status, body: String| respond(status, "text/plain; charset=utf-8", body);
        if !OPEN_PATHS.contains(&request.uri().path()) && !is_of_cluster() {
            let advice = "show a certificate of the cluster's, a viewer's for one; without, there are /healthz and /readyz\n";
            return plain(StatusCode::FORBIDDEN, advice.into());
        }
        if ![Method::GET, Method::HEAD].contains(request.method()) {
            let mut refused = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n".into());
            let methods = HeaderValue::from_static("GET, HEAD");
            refused.headers_mut().insert(ALLOW, methods);
            return refused;
        }
        match request.uri().path() {
            "/healthz" => plain(StatusCode::OK, "ok\n".into()),
            "/readyz" => match self.observe().readiness {
                Readiness::Ready(role) => plain(StatusCode::OK, format!("{role}\n")),
                Readiness::NotReady(why) => {
                    plain(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n"))
                }
            },
            "/metrics" => self.figures(request.headers()),
            _ => plain(
                StatusCode::NOT_FOUND,
                "there are /healthz, /readyz and /metrics\n".into(),
            ),
        }
    }
}

fn export(
    observation: &Observation,
    exports: &[Arc<dyn Export>],
    families: &mut Families<'_>,
) -> fmt::Result {
    observation.export(families)?;
    for export in exports {
        export.export(families)?;
    }
    process::export(families)
}

impl Observation {
    fn export(&self, families: &mut Families<'_>) -> fmt::Result {
        let is_ready = matches!(self.readiness, Readiness::Ready(_));
        families.add_one(&READY, u64::from(is_ready))?;
        for Figure { metric, value } in &self.figures {
            families.add_one(metric, *value)?;
        }
        families.add_one(&LOG_RECORDS_DROPPED, daemon::log::dropped())
    }
}

fn respond(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let response = Response::builder()
        .status(status)
        .header(CONTENT_TYPE, content_type);
    let response = response.body(Full::new(body.into()));
    response.expect("its parts are right")
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    async fn ask(monitor: &Monitor, path: &str) -> (u16, String) {
        let answer = monitor.answer(&Request::get(path).body(()).unwrap(), || true);
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    const ROWS: Metric = Metric::gauge(
        "bazaar_catalog_journal_rows",
        "rows",
        &[],
        "Orders in the journal",
    );

    #[tokio::test]
    async fn it_is_alive_from_the_start_and_ready_in_its_role_until_it_stops() {
        let monitor = Monitor::default();
        assert_eq!(ask(&monitor, "/healthz").await, (200, "ok\n".into()));
        assert_eq!(ask(&monitor, "/readyz").await, (503, "starting\n".into()));
        monitor.set(|| Observation {
            readiness: Readiness::Ready("active"),
            figures: vec![Figure {
                metric: &ROWS,
                value: 7,
            }],
        });
        assert_eq!(ask(&monitor, "/readyz").await, (200, "active\n".into()));
        let (status, text) = ask(&monitor, "/metrics").await;
        assert_eq!(status, 200);
        for line in [
            "# HELP bazaar_catalog_journal_rows Orders in the journal.",
            "# TYPE bazaar_catalog_journal_rows gauge",
            "bazaar_catalog_journal_rows 7",
            "bazaar_ready 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{text}");
        }
        monitor.stop();
        assert_eq!(ask(&monitor, "/readyz").await, (503, "stopping\n".into()));
        assert_eq!(ask(&monitor, "/status").await.0, 404);
        let posted = monitor.answer(&Request::post("/readyz").body(()).unwrap(), || true);
        assert_eq!(posted.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(posted.headers()[ALLOW], "GET, HEAD");
    }

    #[test]
    fn who_is_not_of_the_cluster_may_ask_what_probes_ask_and_nothing_else() {
        let monitor = Monitor::default();
        for (path, status) in [
            ("/healthz", 200),
            ("/readyz", 503),
            ("/metrics", 403),
            ("/status", 403),
            ("/healthz/", 403),
            ("/readyz/../metrics", 403),
        ] {
            let answer = monitor.answer(&Request::get(path).body(()).unwrap(), || false);
            assert_eq!(answer.status().as_u16(), status, "{path}");
        }
    }

    #[test]
    fn figures_are_in_the_form_that_is_asked_for() {
        let monitor = Monitor::default();
        for (accept, form) in [
            ("*/*", Form::Text),
            (Form::Protobuf.content_type(), Form::Protobuf),
        ] {
            let asked = Request::get("/metrics").header(ACCEPT, accept);
            let answer = monitor.answer(&asked.body(()).unwrap(), || true);
            assert_eq!(answer.headers()[CONTENT_TYPE], form.content_type());
            assert_eq!(answer.headers()[VARY], "accept");
        }
    }

    #[tokio::test]
    async fn connections_that_say_nothing_keep_nobody_from_asking() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let _serving = daemon::tasks::spawn("monitor", serve((listener, None), Monitor::default()));
        let mut silent = Vec::new();
        for _ in 0..2 * listener::CONNECTIONS_MAX {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(answer.ends_with("ok\n"), "{answer}");
        // And the first of them were ended for it.
        let mut rest = [0; 1];
        assert!(matches!(silent[0].read(&mut rest).await, Ok(0) | Err(_)));
    }
}
