//! What a client can do to the gateway over HTTP/2, and what it may not; without a backend, and with
//! bounds that a test can wait for.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use frontend_host::config::Bounds;
use frontend_host::config::{BODY_BYTES_MAX, HEADERS_MAX, STREAMS_MAX};
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::client::{Client, PATIENCE, PAUSE};
use crate::frames::{
    DATA, END_STREAM, HEADERS, RST_STREAM, request, request_with, stream, window_update,
};
use crate::served::{gateway, until};

/// The frame that says which requests were taken, at the end of a connection.
const GOAWAY: u8 = 7;

/// A deadline that a test waits for.
const SHORT: Duration = Duration::from_secs(2);

/// Time for what should happen at once, on a busy machine; less than a body may take to come.
const AT_ONCE: Duration = Duration::from_secs(5);

/// What the default policy answers without asking a backend.
const PATH: &str = "/nothing";

/// Asks for what gets 404.
async fn ask(client: &mut Client, number: usize) {
    let request = request(stream(number), "GET", PATH, true);
    client.send(&request).await;
}

/// The codes in the bodies of so many answers, in the order of their ends.
async fn codes(client: &mut Client, answers: usize) -> Vec<u64> {
    let mut bodies: BTreeMap<u32, Vec<u8>> = BTreeMap::new();
    let mut codes = Vec::new();
    while codes.len() < answers {
        let data = client.until(|frame| frame.kind == DATA).await;
        let body = bodies.entry(data.stream).or_default();
        body.extend(data.payload);
        if data.flags & END_STREAM != 0 {
            let error: Value = serde_json::from_slice(body).expect("errors are JSON");
            codes.push(error["error"]["code"].as_u64().expect("a number"));
        }
    }
    codes
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_asks_for_nothing_ends_at_its_deadline_and_pings_do_not_help() {
    let (gateway, _) = gateway(Bounds {
        idle_time_max: SHORT,
        ..Bounds::default()
    })
    .await;
    let mut silent = Client::open(gateway, None).await;
    let mut pings = Client::open(gateway, None).await;
    for client in [&mut silent, &mut pings] {
        ask(client, 0).await;
        assert_eq!(codes(client, 1).await, [404]);
    }
    let to_the_end = async {
        let mut frames = Vec::new();
        while let Some(frame) = silent.next().await {
            frames.push(frame);
        }
        frames
    };
    let (silent, pings) = tokio::join!(
        timeout(PATIENCE, to_the_end),
        timeout(PATIENCE, pings.ping_to_the_end())
    );
    for frames in [silent, pings] {
        let frames = frames.expect("it ends");
        let said = frames.iter().any(|frame| frame.kind == GOAWAY);
        assert!(said, "which requests were taken is said: {frames:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_do_not_end_are_held_within_a_budget_and_let_go_of_in_time() {
    const CONNECTIONS: usize = 8;
    let bounds = Bounds {
        send_time_max: SHORT,
        received_bytes_max: 8 << 20,
        ..Bounds::default()
    };
    // All of these are one client.
    let client_max = bounds.received_bytes_max / 4;
    let (gateway, clients) = gateway(bounds).await;
    let streams = STREAMS_MAX as usize;
    let mut attackers = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut attacker = Client::open(gateway, None).await;
        for number in 0..streams {
            attacker
                .send(&request(stream(number), "POST", "/orders", false))
                .await;
        }
        attackers.push(attacker);
    }
    // As far as windows allow.
    for attacker in &mut attackers {
        for number in 0..streams {
            if !attacker.send_piece(number, PAUSE).await {
                break;
            }
            assert!(clients.figures().received.bytes <= client_max);
        }
    }
    until(&clients, "some are refused", |figures| {
        figures.received.refusals > 0
    })
    .await;
    let mut answers = Vec::new();
    for attacker in &mut attackers {
        answers.extend(codes(attacker, streams).await);
        assert!(clients.figures().received.bytes <= client_max);
    }
    let count = |code| answers.iter().filter(|found| **found == code).count();
    assert!(count(408) > 0 && count(503) > 0, "{answers:?}");
    assert_eq!(
        count(408) + count(503),
        CONNECTIONS * streams,
        "{answers:?}"
    );
    until(&clients, "all is let go of", |figures| {
        figures.received.bytes == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_whose_answer_is_not_taken_is_reset_and_others_go_on() {
    let (gateway, clients) = gateway(Bounds {
        receive_time_max: SHORT,
        ..Bounds::default()
    })
    .await;
    let mut client = Client::open(gateway, Some(0)).await;
    ask(&mut client, 0).await;
    client
        .until(|frame| (frame.kind, frame.stream) == (HEADERS, 1))
        .await;
    until(&clients, "it is unsent", |figures| figures.unsent.bytes > 0).await;
    let begun = Instant::now();
    let mut asked = 0;
    let reset = loop {
        assert!(begun.elapsed() < PATIENCE, "it is not reset");
        // Others are asked for and taken meanwhile.
        asked += 1;
        ask(&mut client, asked).await;
        client.send(&window_update(stream(asked), 1 << 20)).await;
        let end = client.until(|frame| {
            frame.kind == RST_STREAM || frame.kind == DATA && frame.flags & END_STREAM != 0
        });
        let end = end.await;
        if end.kind == RST_STREAM {
            break end;
        }
        assert_eq!(end.stream, stream(asked));
        sleep(PAUSE).await;
    };
    assert_eq!(reset.stream, stream(0));
    ask(&mut client, asked + 1).await;
    client
        .send(&window_update(stream(asked + 1), 1 << 20))
        .await;
    client
        .until(|frame| (frame.kind, frame.stream) == (DATA, stream(asked + 1)))
        .await;
    until(&clients, "all is let go of", |figures| {
        figures.unsent.bytes == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_none_of_whose_answers_is_taken_to_the_end_is_ended() {
    let (gateway, clients) = gateway(Bounds {
        receive_time_max: SHORT,
        ..Bounds::default()
    })
    .await;
    // All but a byte is with h2 by then, which alone knows the stream.
    let mut client = Client::open(gateway, Some(1)).await;
    for number in 0..10 {
        ask(&mut client, number).await;
    }
    let ended = timeout(PATIENCE, client.ping_to_the_end()).await;
    assert!(ended.is_ok(), "{:?}", clients.figures());
    until(&clients, "all is let go of", |figures| {
        (figures.unsent.bytes, figures.connections) == (0, 0)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ends_of_answers_that_are_not_taken_end_a_connection_that_is_used_and_no_other() {
    /// Of which a byte is taken now and then; the others are taken at once.
    const HELD: usize = 20;
    let (gateway, clients) = gateway(Bounds {
        receive_time_max: SHORT,
        ..Bounds::default()
    })
    .await;
    let (stop, stopped) = watch::channel(false);
    let other = tokio::spawn(ask_until(gateway, stopped));
    // A byte of each is taken, and all the rest is with h2.
    let mut client = Client::open(gateway, Some(1)).await;
    for number in 0..HELD {
        ask(&mut client, number).await;
    }
    for _ in 0..HELD {
        client.until(|frame| frame.kind == DATA).await;
    }
    let held = clients.figures().unsent.bytes;
    assert!(held > 0, "the rest of each");
    let begun = Instant::now();
    for asked in HELD.. {
        assert!(begun.elapsed() < PATIENCE, "{:?}", clients.figures());
        let [own, other] = [asked, asked % HELD].map(stream);
        let frames = [
            request(own, "GET", PATH, true),
            window_update(own, 1 << 20),
            window_update(other, 1),
        ];
        if !client.can_send(&frames.concat()).await {
            break;
        }
        // As long as it lasts they are answered.
        let answered = async {
            while let Some(frame) = client.next().await {
                if frame.stream == own && frame.flags & END_STREAM != 0 {
                    return true;
                }
            }
            false
        };
        if timeout(PAUSE, answered).await == Ok(false) {
            break;
        }
        sleep(PAUSE).await;
    }
    println!("{held} bytes were held for {:?}", begun.elapsed());
    until(&clients, "all is let go of", |figures| {
        (figures.unsent.bytes, figures.connections) == (0, 1)
    })
    .await;
    stop.send(true).unwrap();
    assert!(other.await.unwrap() > 0, "it was answered all the time");
}

/// Asks again and again over one connection until it is told to stop; returns how often it was
/// answered, which is always.
async fn ask_until(gateway: SocketAddr, stopped: watch::Receiver<bool>) -> usize {
    let mut client = Client::open(gateway, None).await;
    for asked in 0.. {
        if *stopped.borrow() {
            return asked;
        }
        ask(&mut client, asked).await;
        assert_eq!(codes(&mut client, 1).await, [404]);
        sleep(PAUSE).await;
    }
    unreachable!("it is told at some time")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_is_refused_is_so_before_its_body_has_come() {
    let (gateway, clients) = gateway(Bounds::default()).await;
    let many: Vec<_> = (0..=HEADERS_MAX).map(|n| format!("x-{n}")).collect();
    let many: Vec<_> = many.iter().map(|name| (name.as_str(), "y")).collect();
    let length = (BODY_BYTES_MAX + 1).to_string();
    let cases: [(&[(&str, &str)], u64); 5] = [
        (&many, 431),
        (&[("host", "y")], 400),
        (&[("origin", "http://y")], 415),
        (
            &[("content-encoding", "gzip"), ("content-length", "7")],
            415,
        ),
        (&[("content-length", &length)], 413),
    ];
    let mut client = Client::open(gateway, None).await;
    for (number, (headers, code)) in cases.into_iter().enumerate() {
        let number = stream(number);
        let head = request_with(number, "POST", "/orders", headers, false);
        client.send(&head).await;
        let answer = timeout(AT_ONCE, codes(&mut client, 1)).await;
        assert_eq!(answer, Ok(vec![code]), "{headers:?}");
        // Nothing more of it is awaited.
        client
            .until(|frame| (frame.kind, frame.stream) == (RST_STREAM, number))
            .await;
        until(&clients, "nothing is held of it", |figures| {
            figures.received.bytes == 0
        })
        .await;
    }
    ask(&mut client, cases.len()).await;
    assert_eq!(codes(&mut client, 1).await, [404]);
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_are_not_taken_are_held_within_a_budget() {
    const ASKED: usize = 50;
    let bounds = Bounds {
        unsent_bytes_max: 16 << 10,
        ..Bounds::default()
    };
    let connection_max = bounds.unsent_bytes_max / 16;
    let (gateway, clients) = gateway(bounds).await;
    let mut client = Client::open(gateway, Some(0)).await;
    for number in 0..ASKED {
        ask(&mut client, number).await;
    }
    for _ in 0..ASKED {
        client.until(|frame| frame.kind == HEADERS).await;
        assert!(clients.figures().unsent.bytes <= connection_max);
    }
    assert!(clients.figures().unsent.refusals > 0);
    for number in 0..ASKED {
        client.send(&window_update(stream(number), 1 << 20)).await;
    }
    let answers = codes(&mut client, ASKED).await;
    let count = |code| answers.iter().filter(|found| **found == code).count();
    assert!(count(404) > 0 && count(503) > 0, "{answers:?}");
    until(&clients, "all is let go of", |figures| {
        figures.unsent.bytes == 0
    })
    .await;
}
