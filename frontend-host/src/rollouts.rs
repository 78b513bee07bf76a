//! Has rollouts go on, asks their gates whether they may, and sees to the way back from the active policy.

use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use frontend_policy::Versions;
use frontend_policy::rollout::{GateAnswer, Question};

/// How often it is looked whether a step is over.
const LOOKED_EVERY: Duration = Duration::from_millis(500);

/// How often a gate is asked, how long it may take, and how much of what it says is read, in bytes.
const ASKED_EVERY: Duration = Duration::from_secs(10);
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);
const ANSWER_BYTES_MAX: usize = 4 << 10;

/// What is shown of a gate's words, in characters.
const SHOWN_MAX: usize = 200;

/// Goes on for as long as the gateway does.
pub(crate) async fn keep_going(policy: Arc<Versions>) {
    let gates = Client::builder(TokioExecutor::new()).build_http();
    let mut looks = interval(LOOKED_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut asked: Option<(Instant, Question, GateAnswer)> = None;
    // A gate may take its time; what is to be done meanwhile is done.
    let mut asking = Asking::None;
    loop {
        tokio::select! {
            answer = asking.answered() => {
                let (question, answer) = answer;
                let is_news = asked.as_ref().is_none_or(|(_, last, said)| !last.is_as(&question) || *said != answer);
                if is_news {
                    let gate = question.gate.host();
                    tracing::info!(gate, %answer, "asked whether the rollout may go on");
                }
                let (policy, about, said) = (Arc::clone(&policy), question.clone(), answer.clone());
                let noted = tokio::task::spawn_blocking(move || policy.gate_answered(&about, said));
                let _ = noted.await;
                asked = Some((Instant::now(), question, answer));
            }
            _ = looks.tick() => {
                let looking = Arc::clone(&policy);
                // It may wait for a disk, and for a policy to be loaded.
                let question = tokio::task::spawn_blocking(move || {
                    looking.tend();
                    looking.go_on()
                });
                let question = question.await;
                let Ok(Some(question)) = question else {
                    continue;
                };
                let is_asked = asked.as_ref().is_some_and(|(at, last, _)| {
                    at.elapsed() < ASKED_EVERY && last.is_as(&question)
                });
                if matches!(asking, Asking::None) && !is_asked {
                    let gates = gates.clone();
                    asking = Asking::Some(Box::pin(async move {
                        let answer = ask(&gates, &question).await;
                        (question, answer)
                    }));
                }
            }
        }
    }
}

/// An answer that is waited for, where one is.
enum Asking {
    None,
    Some(Pin<Box<dyn Future<Output = (Question, GateAnswer)> + Send>>),
}

impl Asking {
    /// Never, where none is waited for. Can be dropped and called again.
    async fn answered(&mut self) -> (Question, GateAnswer) {
        match self {
            Self::None => pending().await,
            Self::Some(future) => {
                let answer = future.await;
                *self = Self::None;
                answer
            }
        }
    }
}

async fn ask(gates: &Client<HttpConnector, Full<Bytes>>, question: &Question) -> GateAnswer {
    let request = Request::post(question.gate.clone())
        .header(CONTENT_TYPE, "application/json")
        .body(Full::from(question.body.clone()));
    let request = match request {
        Ok(request) => request,
        Err(error) => return GateAnswer::Closed(error.to_string()),
    };
    let exchange = async {
        let response = gates
            .request(request)
            .await
            .map_err(|error| format!("it cannot be reached: {error}"))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX);
        let body = body.collect().await.map(|body| body.to_bytes());
        Ok::<_, String>((status, body.unwrap_or_default()))
    };
    let (status, body) = match timeout(ANSWER_TIME_MAX, exchange).await {
        Ok(Ok(answered)) => answered,
        Ok(Err(problem)) => return GateAnswer::NotYet(problem),
        Err(_) => return GateAnswer::NotYet("it does not answer".to_owned()),
    };
    let said: String = String::from_utf8_lossy(&body)
        .chars()
        .take(SHOWN_MAX)
        .collect();
    let said = format!("{status}: {}", said.trim());
    match status {
        _ if status.is_success() => GateAnswer::Open,
        StatusCode::FORBIDDEN => GateAnswer::Closed(said),
        _ => GateAnswer::NotYet(said),
    }
}
