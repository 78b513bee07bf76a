//! One client's connection, with nothing between it and the requests that are measured.
//!
//! hyper-util's client, which the other commands have, keeps connections in a pool that all requests share; with it
//! a load of lookups was a third lower. The connector is the same, so TLS is no other matter here.

use std::future::poll_fn;

use bytes::Bytes;
use daemon::tasks;
use http::header::HOST;
use http::{Request, Response};
use http_body_util::Full;
use hyper::client::conn::http1::{self, SendRequest};
use tokio::time::timeout;
use tower_service::Service as _;

use super::PATIENCE;
use crate::client::{ClientError, Server, whole};

/// A connection that is made when it is first used, and again when the one before has ended.
#[derive(Debug)]
pub struct Connection {
    server: Server,
    sender: Option<SendRequest<Full<Bytes>>>,
}

impl Connection {
    /// To a server that is not called yet.
    pub fn to(server: Server) -> Self {
        Self {
            server,
            sender: None,
        }
    }

    /// Sends a request for a path and reads the whole answer. A connection over which that failed is
    /// not used again.
    pub async fn send(
        &mut self,
        mut request: Request<Bytes>,
    ) -> Result<Response<Bytes>, ClientError> {
        request
            .headers_mut()
            .insert(HOST, self.server.origin.host());
        let after = PATIENCE;
        let late = |_| Err(ClientError::TimedOut { after });
        let exchange = self.exchange(request.map(Full::new));
        timeout(after, exchange).await.unwrap_or_else(late)
    }

    async fn exchange(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Bytes>, ClientError> {
        let mut sender = self.connected().await?;
        let answer = sender.send_request(request).await.map_err(failed)?;
        let (head, body) = answer.into_parts();
        let body = whole(body).await?;
        self.sender = Some(sender);
        Ok(Response::from_parts(head, body))
    }

    /// Takes the connection, so that one on which a request fails or is given up is dropped.
    async fn connected(&mut self) -> Result<SendRequest<Full<Bytes>>, ClientError> {
        if let Some(mut sender) = self.sender.take()
            && sender.ready().await.is_ok()
        {
            return Ok(sender);
        }
        let target = self.server.origin.target(None)?;
        let connected = async {
            let connector = &mut self.server.connector;
            poll_fn(|context| connector.poll_ready(context)).await?;
            connector.call(target).await
        };
        let stream = connected
            .await
            .map_err(|error| ClientError::connecting(&self.server.origin, error))?;
        let (sender, connection) = http1::handshake(stream).await.map_err(failed)?;
        // Its failures come back through the request that they hit.
        tasks::spawn_for_caller(connection);
        Ok(sender)
    }
}

fn failed(error: hyper::Error) -> ClientError {
    ClientError::Exchange(error.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::tests::serve;

    #[tokio::test]
    async fn a_connection_is_kept_and_made_anew_when_it_has_ended() {
        let (origin, serving) = serve(2, 2, ("200 OK", b"ok".to_vec()));
        let server = Server::pinned(origin.clone(), None).unwrap();
        let mut connection = Connection::to(server);
        for _ in 0..4 {
            let request = Request::get("/stocks").body(Bytes::new()).unwrap();
            let answered = connection.send(request).await.unwrap();
            assert_eq!(answered.body(), "ok");
        }
        let heads = serving.join().unwrap();
        let expected = format!(
            "GET /stocks HTTP/1.1\r\nhost: {}\r\n\r\n",
            &origin.to_string()[7..]
        );
        assert_eq!(heads, vec![expected; 4]);
    }
}
