//! PostgreSQL's protocol, as far as catalogs speak it: version 3 of messages, without TLS, every value in binary.

use std::collections::VecDeque;

/// What a client sends and then waits for.
#[derive(Debug, Clone)]
pub enum Unit {
    Startup,
    /// A simple query.
    Simple(String),
    /// Messages up to a `Sync`.
    Extended(Vec<Message>),
    Terminate,
}

#[derive(Debug, Clone)]
pub enum Message {
    Parse { name: String, sql: String },
    Bind { name: String, values: Vec<Value> },
    Describe,
    Execute,
    Close(String),
}

/// As it is on the wire; `None` for a null.
pub type Value = Option<Vec<u8>>;

/// What came of a client's bytes so far.
#[derive(Debug, Default)]
pub struct Incoming {
    bytes: VecDeque<u8>,
    has_begun: bool,
    messages: Vec<Message>,
}

impl Incoming {
    /// Takes more of them; returns what is complete.
    pub fn take(&mut self, bytes: &[u8]) -> Vec<Unit> {
        self.bytes.extend(bytes);
        let mut units = Vec::new();
        while let Some((tag, body)) = self.next() {
            let mut body = Body(&body);
            let message = match tag {
                None => {
                    units.push(Unit::Startup);
                    continue;
                }
                Some(b'Q') => {
                    units.push(Unit::Simple(body.text()));
                    continue;
                }
                Some(b'S') => {
                    units.push(Unit::Extended(std::mem::take(&mut self.messages)));
                    continue;
                }
                Some(b'X') => {
                    units.push(Unit::Terminate);
                    continue;
                }
                Some(b'P') => {
                    let name = body.text();
                    let sql = body.text();
                    Message::Parse { name, sql }
                }
                Some(b'B') => {
                    let (_portal, name) = (body.text(), body.text());
                    let formats = body.int16();
                    (0..formats).for_each(|_| assert_eq!(body.int16(), 1, "all is binary"));
                    let values = (0..body.int16()).map(|_| body.value()).collect();
                    Message::Bind { name, values }
                }
                Some(b'D') => Message::Describe,
                Some(b'E') => Message::Execute,
                Some(b'C') => {
                    assert_eq!(body.byte(), b'S', "a statement is closed");
                    Message::Close(body.text())
                }
                Some(other) => unreachable!("a catalog sends no {}", char::from(other)),
            };
            self.messages.push(message);
        }
        units
    }

    /// The next message, once it is here as a whole. The first one has no tag.
    fn next(&mut self) -> Option<(Option<u8>, Vec<u8>)> {
        let tag = usize::from(self.has_begun);
        let length = self.bytes.iter().skip(tag).take(4);
        let length: [u8; 4] = length.copied().collect::<Vec<u8>>().try_into().ok()?;
        let length = u32::from_be_bytes(length) as usize;
        if self.bytes.len() < tag + length {
            return None;
        }
        let message: Vec<u8> = self.bytes.drain(..tag + length).collect();
        let tag_sent = self.has_begun.then(|| message[0]);
        self.has_begun = true;
        Some((tag_sent, message[tag + 4..].to_vec()))
    }
}

/// A message's body, from which is read.
struct Body<'a>(&'a [u8]);

impl Body<'_> {
    fn bytes(&mut self, count: usize) -> &[u8] {
        let (bytes, rest) = self.0.split_at(count);
        self.0 = rest;
        bytes
    }

    fn byte(&mut self) -> u8 {
        self.bytes(1)[0]
    }

    fn int16(&mut self) -> i16 {
        i16::from_be_bytes(self.bytes(2).try_into().expect("two"))
    }

    fn value(&mut self) -> Value {
        let length = i32::from_be_bytes(self.bytes(4).try_into().expect("four"));
        let length = usize::try_from(length).ok()?;
        Some(self.bytes(length).to_vec())
    }

    fn text(&mut self) -> String {
        let end = self.0.iter().position(|&byte| byte == 0).expect("it ends");
        let text = String::from_utf8(self.bytes(end).to_vec()).expect("UTF-8");
        self.bytes(1);
        text
    }
}

/// A type, by its object id.
pub type Oid = u32;
pub const BOOL: Oid = 16;
pub const BYTEA: Oid = 17;
pub const INT8: Oid = 20;
pub const INT4: Oid = 23;
pub const TEXT: Oid = 25;
pub const INT8S: Oid = 1016;
pub const TEXTS: Oid = 1009;
pub const BYTEAS: Oid = 1001;

/// An error, as the server reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    pub severity: &'static str,
    /// SQLSTATE.
    pub code: &'static str,
    pub message: &'static str,
}

/// What the server answers.
#[derive(Debug, Clone, Default)]
pub struct Answer(pub Vec<u8>);

impl Answer {
    fn message(&mut self, tag: u8, body: impl FnOnce(&mut Vec<u8>)) {
        self.0.push(tag);
        let start = self.0.len();
        self.0.extend([0; 4]);
        body(&mut self.0);
        let length = u32::try_from(self.0.len() - start).expect("messages are short");
        self.0[start..start + 4].copy_from_slice(&length.to_be_bytes());
    }

    /// The connection is made.
    pub fn welcome(mut self) -> Self {
        self.message(b'R', |body| body.extend([0; 4]));
        self.message(b'S', |body| body.extend(b"server_version\x0015.4\0"));
        self.message(b'K', |body| body.extend([0; 8]));
        self.ready(false)
    }

    pub fn parsed(&mut self) {
        self.message(b'1', |_| {});
    }

    pub fn bound(&mut self) {
        self.message(b'2', |_| {});
    }

    pub fn closed(&mut self) {
        self.message(b'3', |_| {});
    }

    /// What a statement takes and gives.
    pub fn described(&mut self, parameters: &[Oid], columns: &[Oid]) {
        self.message(b't', |body| {
            body.extend(count(parameters.len()));
            let oids = parameters.iter().flat_map(|oid| oid.to_be_bytes());
            body.extend(oids);
        });
        if columns.is_empty() {
            return self.message(b'n', |_| {});
        }
        self.message(b'T', |body| {
            body.extend(count(columns.len()));
            for oid in columns {
                body.extend(b"c\0");
                body.extend([0; 6]); // of no table
                body.extend(oid.to_be_bytes());
                body.extend((-1_i16).to_be_bytes());
                body.extend((-1_i32).to_be_bytes());
                body.extend(1_i16.to_be_bytes());
            }
        });
    }

    pub fn row(&mut self, values: &[Value]) {
        self.message(b'D', |body| {
            body.extend(count(values.len()));
            for value in values {
                match value {
                    None => body.extend((-1_i32).to_be_bytes()),
                    Some(value) => {
                        let length = u32::try_from(value.len()).expect("values are short");
                        body.extend(length.to_be_bytes());
                        body.extend(value);
                    }
                }
            }
        });
    }

    /// A statement is done, to so many rows.
    pub fn complete(&mut self, rows: usize) {
        self.message(b'C', |body| body.extend(format!("DONE {rows}\0").bytes()));
    }

    pub fn warn(&mut self, message: &str) {
        self.message(b'N', |body| say(body, "WARNING", "01000", message));
    }

    pub fn refuse(&mut self, refusal: Refusal) {
        let Refusal {
            severity,
            code,
            message,
        } = refusal;
        self.message(b'E', |body| say(body, severity, code, message));
    }

    /// What comes next is awaited.
    pub fn ready(mut self, in_transaction: bool) -> Self {
        let status = if in_transaction { b'T' } else { b'I' };
        self.message(b'Z', |body| body.push(status));
        self
    }
}

fn count(entries: usize) -> [u8; 2] {
    u16::try_from(entries).expect("they are few").to_be_bytes()
}

fn say(body: &mut Vec<u8>, severity: &str, code: &str, message: &str) {
    for (field, value) in [
        ('S', severity),
        ('V', severity),
        ('C', code),
        ('M', message),
    ] {
        body.extend(format!("{field}{value}\0").bytes());
    }
    body.push(0);
}
