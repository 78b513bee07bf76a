//! What two gateways say to each other: lines of text, one of which brings file descriptors.
//!
//! Every line is `bazaar-handover VERSION WORD WORDS…`. What stays the same in every version: that, the first word
//! of the one who begins, and `refused` with the reason in words.

use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, Shutdown, recvmsg, sendmsg, shutdown,
};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::{REFUSED, SPEAK_TIME_MAX};

/// What is spoken here.
pub(super) const VERSION: u32 = 1;

/// What every line begins with.
const NAME: &str = "bazaar-handover";

/// Longest line, in bytes.
const LINE_BYTES_MAX: usize = 4 << 10;

/// What is read at a time, in bytes.
const CHUNK_BYTES: usize = 1 << 10;

/// File descriptors that go with an offer.
pub(super) const DESCRIPTORS: usize = 5;

/// A line that was heard.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub version: u32,
    pub word: String,
    pub words: String,
}

impl Line {
    /// Whether it is of this version, and that word.
    pub(super) fn is(&self, word: &str) -> bool {
        self.version == VERSION && self.word == word
    }

    fn parse(line: &str) -> Option<Self> {
        let mut parts = line.splitn(4, ' ');
        if parts.next() != Some(NAME) {
            return None;
        }
        Some(Self {
            version: parts.next()?.parse().ok()?,
            word: parts.next()?.to_owned(),
            words: parts.next().unwrap_or_default().to_owned(),
        })
    }
}

/// One with another process.
#[derive(Debug)]
pub(super) struct Conversation {
    stream: UnixStream,
    received: Vec<u8>,
    descriptors: Vec<OwnedFd>,
}

impl Conversation {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            received: Vec::new(),
            descriptors: Vec::new(),
        }
    }

    /// The user and the process at the other end, as the system knows them.
    pub(super) fn peer(&self) -> io::Result<tokio::net::unix::UCred> {
        self.stream.peer_cred()
    }

    /// Says something, which the other one has then, whatever becomes of this process.
    pub(super) async fn say(&self, word: &str, words: &str) -> io::Result<()> {
        self.say_with(word, words, &[]).await
    }

    /// The same with file descriptors: [`DESCRIPTORS`] at most.
    pub(super) async fn say_with(
        &self,
        word: &str,
        words: &str,
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        // Words of others may have line ends in them.
        let line = format!("{NAME} {VERSION} {word} {}", words.replace('\n', " "));
        let line = format!("{}\n", line.trim_end()).into_bytes();
        let mut sent = 0;
        let sending = async {
            while sent < line.len() {
                let with = if sent == 0 { descriptors } else { &[] };
                let send = || send(&self.stream, &line[sent..], with);
                sent += self.stream.async_io(Interest::WRITABLE, send).await?;
            }
            Ok(())
        };
        timeout(SPEAK_TIME_MAX, sending).await?
    }

    /// Says why not, if the other one listens.
    pub(super) async fn refuse(&self, why: &str) {
        if let Err(error) = self.say(REFUSED, why).await {
            tracing::debug!(%error, "a refusal was not heard");
        }
    }

    /// What the other one says next. Can be dropped and called again.
    ///
    /// # Errors
    /// At its end: see [`is_end`]. Where it is no line.
    pub(super) async fn hear(&mut self) -> io::Result<Line> {
        loop {
            if let Some(end) = self.received.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.received.drain(..=end).collect();
                let line = str::from_utf8(&line[..end]).ok().and_then(Line::parse);
                return line.ok_or_else(|| ErrorKind::InvalidData.into());
            }
            if self.received.len() > LINE_BYTES_MAX {
                return Err(ErrorKind::InvalidData.into());
            }
            let receive = || receive(&self.stream);
            let (bytes, descriptors) = self.stream.async_io(Interest::READABLE, receive).await?;
            if bytes.is_empty() {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            self.received.extend(bytes);
            self.descriptors.extend(descriptors);
            // Nobody has more to hand over.
            self.descriptors.truncate(DESCRIPTORS);
        }
    }

    /// The same of what was said until now: from now on the other one cannot say anything more, and knows it.
    pub(super) async fn hear_last(&mut self) -> io::Result<Line> {
        shutdown(&self.stream, Shutdown::Read)?;
        timeout(SPEAK_TIME_MAX, self.hear()).await?
    }

    /// The file descriptors that came with what was heard.
    pub(super) fn take_descriptors(&mut self) -> Vec<OwnedFd> {
        std::mem::take(&mut self.descriptors)
    }
}

/// Whether nobody is at the other end any more.
pub(super) fn is_end(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
    )
}

fn send(stream: &UnixStream, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(ErrorKind::InvalidInput.into());
    }
    let bytes = [IoSlice::new(bytes)];
    Ok(sendmsg(stream, &bytes, &mut control, SendFlags::NOSIGNAL)?)
}

fn receive(stream: &UnixStream) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut bytes = vec![0; CHUNK_BYTES];
    // Children of this process do not get them.
    let flags = RecvFlags::CMSG_CLOEXEC;
    let received = recvmsg(
        stream,
        &mut [IoSliceMut::new(&mut bytes)],
        &mut control,
        flags,
    )?;
    bytes.truncate(received.bytes);
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(handed) = message {
            descriptors.extend(handed);
        }
    }
    Ok((bytes, descriptors))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd as _;
    use tokio::io::AsyncWriteExt as _;

    fn pair() -> (Conversation, Conversation) {
        let (one, other) = UnixStream::pair().unwrap();
        (Conversation::new(one), Conversation::new(other))
    }

    #[tokio::test]
    async fn lines_come_one_by_one_with_what_was_handed_over() {
        let (one, mut other) = pair();
        let file = tempfile::tempfile().unwrap();
        let handed = [file.as_fd(); DESCRIPTORS];
        one.say_with("offer", "{\"a\": 1}\nb", &handed)
            .await
            .unwrap();
        one.say("ready", "").await.unwrap();
        let offer = other.hear().await.unwrap();
        assert!(offer.is("offer"), "{offer:?}");
        assert_eq!(offer.words, "{\"a\": 1} b");
        assert_eq!(other.take_descriptors().len(), DESCRIPTORS);
        assert!(other.hear().await.unwrap().is("ready"));
        drop(one);
        assert!(is_end(&other.hear().await.unwrap_err()));
    }

    #[tokio::test]
    async fn what_is_no_line_is_an_error_and_another_version_is_seen_as_one() {
        for (sent, expected) in [
            (&b"bazaar-handover 7 offer\n"[..], Some(7)),
            (b"GET / HTTP/1.1\n", None),
            (b"bazaar-handover x offer\n", None),
            (b"bazaar-handover 1\n", None),
            (b"bazaar-handover 1 \xff\n", None),
            (&[b'x'; 3 * LINE_BYTES_MAX], None),
        ] {
            let (mut one, mut other) = pair();
            one.stream.write_all(sent).await.unwrap();
            let heard = other.hear().await;
            assert_eq!(heard.ok().map(|line| line.version), expected);
        }
    }

    #[tokio::test]
    async fn after_the_last_word_nothing_can_be_said() {
        let (one, mut other) = pair();
        one.say("serving", "").await.unwrap();
        assert!(other.hear_last().await.unwrap().is("serving"));
        let (one, mut other) = pair();
        assert!(is_end(&other.hear_last().await.unwrap_err()));
        assert!(is_end(&one.say("serving", "").await.unwrap_err()));
    }
}
