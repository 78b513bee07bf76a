//! Collectors that vanish, are busy, or answer what they like.

use std::net::SocketAddr;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, sink};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::*;

/// Within which traces arrive again, on a busy machine: one export has to fail first, and there is a pause. By retransmission alone
/// a connection whose packets are lost takes 15 minutes.
const FOUND_AGAIN_MAX: Duration = Duration::from_secs(30);

/// HTTP/2: the server's SETTINGS, and a GOAWAY of no stream with ENHANCE_YOUR_CALM.
const CALM: &[u8] = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00\
    \x00\x00\x08\x07\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x0b";

/// A network between an exporter and a collector, in which connections can be lost without a word. Returns where it begins.
async fn network(to: SocketAddr) -> (SocketAddr, watch::Sender<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let from = listener.local_addr().unwrap();
    // Connections of this number and above get through.
    let (first, whole) = watch::channel(0);
    tokio::spawn(async move {
        for number in 0.. {
            let (mut near, _) = listener.accept().await.unwrap();
            let mut whole = whole.clone();
            tokio::spawn(async move {
                let mut far = TcpStream::connect(to).await.unwrap();
                let is_lost = tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut near, &mut far) => false,
                    _ = whole.wait_for(|first| *first > number) => true,
                };
                if is_lost {
                    // Both ends stay open, and what is sent is taken, as by a proxy whose other side is gone.
                    let lost = |from| async move { tokio::io::copy(from, &mut sink()).await };
                    let _ = tokio::join!(lost(&mut near), lost(&mut far));
                    std::future::pending::<()>().await;
                }
            });
        }
    });
    (from, first)
}

#[tokio::test]
async fn a_collector_that_vanished_without_a_word_is_found_again_soon_and_what_had_no_room_is_counted()
 {
    let (url, mut exports) = collector(Vec::new()).await;
    let address = url.trim_start_matches("http://").parse().unwrap();
    let (network, first) = network(address).await;
    let traces = start(&format!("http://{network}"));
    let parent = traces.sample(&HeaderMap::new()).unwrap();
    drop(parent.begin(Kind::Internal, "before"));
    assert!(exports.recv().await.is_some());
    counted(
        &traces,
        Counts {
            exported: 1,
            ..Counts::default()
        },
    )
    .await;

    first.send_replace(1);
    let began = Instant::now();
    // One export is under way, and the queue is full.
    let made = (QUEUE_SPANS_MAX + 2 * EXPORT_SPANS_MAX) as u64;
    for _ in 0..made {
        drop(parent.begin(Kind::Internal, "meanwhile"));
    }
    let dropped = counts(&traces).dropped;
    assert!(dropped >= EXPORT_SPANS_MAX as u64, "{dropped}");
    let exported = 1 + made - dropped;
    counted(
        &traces,
        Counts {
            exported,
            dropped,
            refused: 0,
        },
    )
    .await;
    assert!(began.elapsed() < FOUND_AGAIN_MAX, "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_connection_that_its_server_has_had_enough_of_costs_no_span() {
    let (url, mut exports) = collector(Vec::new()).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let traces = start(&format!("http://{}", listener.local_addr().unwrap()));
    drop(
        traces
            .sample(&HeaderMap::new())
            .unwrap()
            .begin(Kind::Internal, "span"),
    );
    let (mut near, _) = listener.accept().await.unwrap();
    near.write_all(CALM).await.unwrap();
    tokio::spawn(async move {
        let (mut next, _) = listener.accept().await.unwrap();
        let mut far = TcpStream::connect(url.trim_start_matches("http://"))
            .await
            .unwrap();
        tokio::io::copy_bidirectional(&mut next, &mut far).await
    });
    assert!(exports.recv().await.is_some());
    counted(
        &traces,
        Counts {
            exported: 1,
            ..Counts::default()
        },
    )
    .await;
}

#[tokio::test]
async fn a_busy_collector_is_left_alone_for_as_long_as_it_asks_and_a_full_one_for_good() {
    const ASKED: Duration = Duration::from_secs(3);
    let (url, mut exports) = collector(vec![Answer::Busy(ASKED), Answer::Full]).await;
    let traces = start(&url);
    let parent = traces.sample(&HeaderMap::new()).unwrap();
    let began = Instant::now();
    drop(parent.begin(Kind::Internal, "later"));
    // It is full the second time.
    counted(
        &traces,
        Counts {
            refused: 1,
            ..Counts::default()
        },
    )
    .await;
    assert!(began.elapsed() >= ASKED, "{:?}", began.elapsed());
    drop(parent.begin(Kind::Internal, "taken"));
    assert!(exports.recv().await.is_some());
}

/// What a collector answers over HTTP.
#[derive(Debug, Clone)]
struct Canned {
    head: &'static str,
    body: CannedBody,
}

#[derive(Debug, Clone, Copy)]
enum CannedBody {
    /// So many bytes.
    Bytes(usize),
    /// It goes on and on.
    Endless,
    /// It is never finished.
    Unfinished,
}

/// Answers one request like that, and others as one does that has taken them. Returns where, and when each request came.
async fn answering(canned: Canned) -> (String, mpsc::UnboundedReceiver<Instant>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1/traces", listener.local_addr().unwrap());
    let (came, requests) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut canned = Some(canned);
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = BufReader::new(stream);
            while let Some(()) = read_request(&mut stream).await {
                came.send(Instant::now()).unwrap();
                let answered = match canned.take() {
                    Some(canned) => answer(&mut stream, &canned).await,
                    None => {
                        stream
                            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                            .await
                    }
                };
                if answered.is_err() {
                    break;
                }
            }
        }
    });
    (url, requests)
}

async fn read_request(stream: &mut BufReader<TcpStream>) -> Option<()> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        let read = stream.read_line(&mut line).await.ok()?;
        let line = line.trim_end().to_ascii_lowercase();
        if let Some(bytes) = line.strip_prefix("content-length:") {
            length = bytes.trim().parse().unwrap();
        }
        match (read, line.is_empty()) {
            (0, _) => return None,
            (_, true) => break,
            (_, false) => {}
        }
    }
    stream.read_exact(&mut vec![0; length]).await.ok()?;
    Some(())
}

async fn answer(stream: &mut BufReader<TcpStream>, canned: &Canned) -> std::io::Result<()> {
    let head = match canned.body {
        CannedBody::Bytes(length) => format!("{}content-length: {length}\r\n\r\n", canned.head),
        CannedBody::Endless => format!("{}transfer-encoding: chunked\r\n\r\n", canned.head),
        CannedBody::Unfinished => format!("{}content-length: 9\r\n\r\n", canned.head),
    };
    stream.write_all(head.as_bytes()).await?;
    match canned.body {
        CannedBody::Bytes(length) => stream.write_all(&vec![0xff; length]).await,
        CannedBody::Endless => loop {
            stream.write_all(b"1\r\nx\r\n").await?;
            sleep(Duration::from_millis(10)).await;
        },
        CannedBody::Unfinished => {
            // Until it is given up.
            stream.read_u8().await?;
            Ok(())
        }
    }
}

/// What becomes of one span, and how many requests that takes.
async fn exported(canned: Canned) -> (Counts, usize) {
    let (url, mut requests) = answering(canned).await;
    let traces = start(&url);
    drop(
        traces
            .sample(&HeaderMap::new())
            .unwrap()
            .begin(Kind::Internal, "span"),
    );
    let began = Instant::now();
    while counts(&traces) == Counts::default() {
        assert!(began.elapsed() < PATIENCE, "nothing became of it");
        sleep(Duration::from_millis(10)).await;
    }
    let counts = counts(&traces);
    traces.flush().await;
    let came = std::iter::from_fn(|| requests.try_recv().ok());
    (counts, came.count())
}

/// Neither is anything exported twice, nor is it tried again what is not wanted.
#[tokio::test]
async fn what_a_collector_says_behind_a_status_changes_nothing_of_it() {
    use CannedBody::{Bytes, Endless, Unfinished};
    let taken = Counts {
        exported: 1,
        ..Counts::default()
    };
    let refused = Counts {
        refused: 1,
        ..Counts::default()
    };
    let mut cases = JoinSet::new();
    for (head, body, expected, requests) in [
        ("HTTP/1.1 200 OK\r\n", Bytes(5), taken, 1),
        ("HTTP/1.1 200 OK\r\n", Bytes(1 << 20), taken, 1),
        ("HTTP/1.1 200 OK\r\n", Endless, taken, 1),
        ("HTTP/1.1 200 OK\r\n", Unfinished, taken, 1),
        ("HTTP/1.1 202 Accepted\r\n", Bytes(0), taken, 1),
        ("HTTP/1.1 400 Bad Request\r\n", Bytes(1 << 20), refused, 1),
        ("HTTP/1.1 400 Bad Request\r\n", Endless, refused, 1),
        (
            "HTTP/1.1 500 Internal Server Error\r\n",
            Unfinished,
            refused,
            1,
        ),
        (
            "HTTP/1.1 301 Moved Permanently\r\nlocation: /elsewhere\r\n",
            Bytes(0),
            refused,
            1,
        ),
        ("HTTP/1.1 503 Service Unavailable\r\n", Endless, taken, 2),
    ] {
        cases.spawn(async move {
            let made = exported(Canned { head, body }).await;
            assert_eq!(made, (expected, requests), "{head} {body:?}");
        });
    }
    while let Some(case) = cases.join_next().await {
        case.unwrap();
    }
}

#[tokio::test]
async fn a_busy_collector_over_http_is_left_alone_for_as_long_as_it_asks() {
    const ASKED: Duration = Duration::from_secs(3);
    let head = "HTTP/1.1 429 Too Many Requests\r\nretry-after: 3\r\n";
    let body = CannedBody::Bytes(0);
    let (url, mut requests) = answering(Canned { head, body }).await;
    let traces = start(&url);
    drop(
        traces
            .sample(&HeaderMap::new())
            .unwrap()
            .begin(Kind::Internal, "span"),
    );
    let first = requests.recv().await.unwrap();
    let second = requests.recv().await.unwrap();
    assert!(second - first >= ASKED, "{:?}", second - first);
    counted(
        &traces,
        Counts {
            exported: 1,
            ..Counts::default()
        },
    )
    .await;
}
