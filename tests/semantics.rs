//! What HTTP itself promises: RFC 9110, 9112 and 9113 as tables of requests and their answers, and
//! RFC 9111 for caches in front.

mod caches;
mod http1;
mod http2;
mod metrics;
