use std::io::{BufRead as _, BufReader};
use std::sync::mpsc::{Receiver, Sender, channel};

use super::*;

/// An output that does what it is told, write by write.
struct Scripted {
    script: Receiver<Then>,
    written: Sender<Vec<u8>>,
}

/// What becomes of a write.
enum Then {
    Takes(usize),
    Fails(ErrorKind),
}

impl Write for Scripted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.script.recv() {
            Ok(Then::Takes(most)) => {
                let taken = &bytes[..most.min(bytes.len())];
                self.written
                    .send(taken.to_vec())
                    .map_err(io::Error::other)?;
                Ok(taken.len())
            }
            Ok(Then::Fails(kind)) => Err(kind.into()),
            Err(_) => Err(io::Error::other("no more writes were expected")),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

const ALL: Then = Then::Takes(usize::MAX);

/// What comes out when records are logged one after another, with this script; also how many were
/// dropped.
fn logged(script: Vec<Then>, records: &[&str]) -> (String, u64) {
    let (step, steps) = channel();
    let (written, pieces) = channel();
    let log = Log::to(Scripted {
        script: steps,
        written,
    });
    script.into_iter().for_each(|then| step.send(then).unwrap());
    drop(step);
    for record in records {
        log.record(record.as_bytes());
        log.flush();
    }
    let pieces: Vec<u8> = pieces.try_iter().flatten().collect();
    (String::from_utf8(pieces).unwrap(), log.dropped())
}

#[test]
fn what_could_not_be_written_is_counted_and_told_of_when_writing_works_again() {
    let full = || Then::Fails(ErrorKind::StorageFull);
    for (script, expected, dropped) in [
        (vec![ALL, ALL, ALL], "a\nb\nc\n".to_owned(), 0),
        // The notice is tried before the next record.
        (
            vec![full(), full(), full(), ALL, ALL],
            format!("{}c\n", notice(2)),
            2,
        ),
        (
            vec![ALL, Then::Fails(ErrorKind::BrokenPipe), ALL, ALL],
            format!("a\n{}c\n", notice(1)),
            1,
        ),
        (
            vec![
                Then::Fails(ErrorKind::WouldBlock),
                Then::Fails(ErrorKind::Interrupted),
                ALL,
                ALL,
                ALL,
            ],
            "a\nb\nc\n".to_owned(),
            0,
        ),
        // Torn apart: what follows begins a line.
        (
            vec![Then::Takes(1), full(), ALL, ALL, ALL, ALL],
            format!("a\n{}b\nc\n", notice(1)),
            1,
        ),
    ] {
        assert_eq!(logged(script, &["a\n", "b\n", "c\n"]), (expected, dropped));
    }
}

#[test]
fn an_output_that_stands_still_keeps_nobody_waiting_and_nothing_without_bound() {
    let (reader, writer) = io::pipe().unwrap();
    let log = Log::to(writer);
    let mut record = vec![b'x'; 1024];
    record.push(b'\n');
    for _ in 0..4 * QUEUE_BYTES_MAX / record.len() {
        log.record(&record); // would never end if it waited for the output
    }
    log.flush(); // neither would this
    assert!(log.0.queue().bytes <= QUEUE_BYTES_MAX);
    let dropped = log.dropped();
    assert!(dropped > 0);

    // More than one line tells of them where some were dropped before the first was written.
    let mut told = 0;
    for line in BufReader::new(reader).lines() {
        let line = line.unwrap();
        if let Some((dropped, _)) = line.split_once(" records of this log were dropped") {
            told += dropped.parse::<u64>().unwrap();
        }
        if told == dropped {
            return;
        }
        assert!(told < dropped, "{told} of {dropped}");
    }
    panic!("the log ended");
}
