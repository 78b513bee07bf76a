//! A component for `wasmtime serve` that gives every request one answer: the 57 bytes that the
//! caches are compared on.

use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::types::{
    Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam,
};

const BODY: &[u8] = br#"{"data":{"name":"nvidia","price":240.63,"quantity":1000}}"#;

struct Hello;

wasip2::http::proxy::export!(Hello);

impl Guest for Hello {
    fn handle(_: IncomingRequest, answer: ResponseOutparam) {
        let headers = Fields::new();
        for (name, value) in [
            ("content-type", "application/json".to_owned()),
            ("content-length", BODY.len().to_string()),
        ] {
            let appended = headers.append(name, value.as_bytes());
            appended.expect("these may be set");
        }
        let response = OutgoingResponse::new(headers);
        let body = response.body().expect("it is asked for once");
        ResponseOutparam::set(answer, Ok(response));
        let stream = body.write().expect("it is asked for once");
        // Where the client has gone there is nobody to tell.
        let _ = stream.blocking_write_and_flush(BODY);
        drop(stream);
        let _ = OutgoingBody::finish(body, None);
    }
}
