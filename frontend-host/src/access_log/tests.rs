use std::fs::{self, File};
use std::path::Path;

use http::{Method, Request, Response};
use serde_json::Value;

use super::*;

fn config(format: Format, file: &Path) -> Config {
    Config {
        format,
        file: Some(file.to_owned()),
        sample: 1.0,
    }
}

fn head(target: &str, agent: &str) -> Parts {
    let request = Request::get(target).header(USER_AGENT, agent);
    request.body(()).unwrap().into_parts().0
}

fn log(log: &AccessLog, head: &Parts) -> Option<Pending> {
    let id = RequestId::of(&head.headers);
    log.begin(head, [192, 0, 2, 7].into(), (&id, None))
}

fn answer() -> response::Parts {
    let mut answer = Response::new(()).into_parts().0;
    let hit = HeaderValue::from_static("bazaar; hit; ttl=57");
    answer.headers.insert(CACHE_STATUS, hit);
    answer.extensions.insert(Decided {
        policy: Digest::of(b"policy"),
        route: Route::Stock,
        cached: Cached::Hit,
    });
    answer
}

#[tokio::test]
async fn a_request_is_a_line_of_either_form() {
    let dir = tempfile::tempdir().unwrap();
    let mut head = head("/stocks/nvidia?key=s3cret", "agent \"of\" a client");
    let id = HeaderValue::from_static("of-the-client.7");
    head.headers.insert("x-request-id", id);
    let policy = Digest::of(b"policy").to_string();
    for format in [Format::Text, Format::Json] {
        let file = dir.path().join(format!("{format:?}"));
        let access = AccessLog::start(&config(format, &file)).unwrap();
        log(&access, &head).unwrap().answered(&answer(), 57);
        drop(log(&access, &head)); // its client has left
        access.flush().await;
        let written = fs::read_to_string(&file).unwrap();
        let lines: Vec<&str> = written.lines().collect();
        let [answered, left] = lines[..] else {
            panic!("{written}");
        };
        assert_eq!(access.dropped(), 0);
        if format == Format::Text {
            let begin = "192.0.2.7 - - [";
            let request = "] \"GET /stocks/nvidia?key=* HTTP/1.1\" 200 57 \"-\" \"agent \\\"of\\\" a client\" ";
            assert!(
                answered.starts_with(begin) && answered.contains(request),
                "{answered}"
            );
            let end = format!(" hit {} of-the-client.7", &policy[..12]);
            assert!(answered.ends_with(&end), "{answered}");
            assert!(
                left.contains("\" 499 0 ") && left.ends_with(" - - of-the-client.7"),
                "{left}"
            );
            continue;
        }
        let answered: Value = serde_json::from_str(answered).unwrap();
        let timestamp = answered["timestamp"].as_str().unwrap();
        assert!(timestamp.parse::<jiff::Timestamp>().is_ok(), "{timestamp}");
        assert!(answered["duration_us"].is_u64());
        for (member, value) in [
            ("client", Value::from("192.0.2.7")),
            ("method", "GET".into()),
            ("target", "/stocks/nvidia?key=*".into()),
            ("protocol", "HTTP/1.1".into()),
            ("status", 200.into()),
            ("bytes", 57.into()),
            ("cache", "hit".into()),
            ("policy", policy.as_str().into()),
            ("request_id", "of-the-client.7".into()),
            ("user_agent", "agent \"of\" a client".into()),
        ] {
            assert_eq!(answered[member], value, "{member}");
        }
        let left: Value = serde_json::from_str(left).unwrap();
        assert_eq!(
            (&left["status"], &left["cache"]),
            (&499.into(), &Value::Null)
        );
    }
}

#[tokio::test]
async fn what_a_client_sends_is_kept_within_bounds() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("log");
    let access = AccessLog::start(&config(Format::Json, &file)).unwrap();
    let mut head = head(&format!("/{}", "x".repeat(20_000)), &"y".repeat(20_000));
    head.method = Method::from_bytes("M".repeat(5_000).as_bytes()).unwrap();
    drop(log(&access, &head));
    access.flush().await;
    let line = fs::read_to_string(&file).unwrap();
    assert!(line.len() < 2_048, "{} bytes", line.len());
}

#[tokio::test]
async fn only_a_sample_is_logged_where_that_is_wanted() {
    let dir = tempfile::tempdir().unwrap();
    let logged = |sample: f64| {
        let file = dir.path().join("log");
        let config = Config {
            sample,
            ..config(Format::Text, &file)
        };
        let access = AccessLog::start(&config).unwrap();
        let head = head("/", "");
        (0..10_000).filter_map(|_| log(&access, &head)).count()
    };
    assert_eq!((logged(0.0), logged(1.0)), (0, 10_000));
    // Ten standard deviations.
    assert!((700..1_300).contains(&logged(0.1)));
}

/// Entries that wait are bounded, and a pipe that nobody reads holds nobody up.
#[tokio::test]
async fn an_output_that_stands_still_keeps_nobody_waiting_and_what_is_dropped_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pipe");
    let made = rustix::fs::mknodat(
        rustix::fs::CWD,
        &file,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RWXU,
        0,
    );
    made.unwrap();
    let refused = AccessLog::start(&config(Format::Json, &file));
    assert!(refused.is_err(), "nobody is at its other end");
    let _reader = File::options().read(true).write(true).open(&file).unwrap();
    let access = AccessLog::start(&config(Format::Json, &file)).unwrap();
    let head = head("/stocks/nvidia", "agent");
    let logged = 4 * QUEUE_MAX as u64;
    for _ in 0..logged {
        drop(log(&access, &head)); // would never end if it waited for the pipe
    }
    access.flush().await;
    let dropped = access.dropped();
    assert!(0 < dropped && dropped < logged, "{dropped}");
}

#[tokio::test]
async fn a_file_that_is_rotated_is_opened_anew() {
    let dir = tempfile::tempdir().unwrap();
    let [file, before] = ["log", "log.1"].map(|name| dir.path().join(name));
    let access = AccessLog::start(&config(Format::Json, &file)).unwrap();
    let head = head("/", "");
    drop(log(&access, &head));
    access.flush().await;
    fs::rename(&file, &before).unwrap();
    let lines = |file: &Path| fs::read_to_string(file).unwrap_or_default().lines().count();
    let mut logged = 1;
    while lines(&file) == 0 {
        drop(log(&access, &head));
        logged += 1;
        access.flush().await;
        sleep(FLUSH_PAUSE).await;
        assert!(logged < 10_000, "it goes on in the file of before");
    }
    assert_eq!(lines(&before) + lines(&file), logged, "none is lost");
}
