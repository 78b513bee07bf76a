//! A database with a standby: what is committed, and what is on its way there.

use catalog_core::writer_lease::{
    Claim, Fence, Incarnation, StatementOutcome, WriterRow, WriterTable,
};

/// A trade's idempotency key. Its place in the journal is its order number.
pub type Key = u8;

/// What is committed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Committed {
    pub writer: WriterTable,
    pub journal: Vec<Key>,
}

/// A statement.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Statement {
    TakeOver(Claim),
    /// Rows after so many others; none in a beat of an idle catalog.
    Commit {
        fence: Fence,
        after: usize,
        rows: Vec<Key>,
    },
    Release(Fence),
}

/// The database. Its primary has everything that took effect, its standby what is replicated.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Store {
    pub primary: Committed,
    pub replicated: Committed,
    /// What an asynchronous standby has, or a snapshot.
    pub older: Committed,
    pub incarnation: Incarnation,
    /// One connection for each catalog.
    pub connections: Vec<Connection>,
    /// What was on its way on connections that are lost, and may take effect yet.
    pub strays: Vec<Statement>,
}

/// A catalog's connection, on which there is one statement at a time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Connection {
    pub sent: Option<Statement>,
    pub reply: Option<Reply>,
    /// The server at its other end is gone, which its catalog has not noticed.
    pub is_broken: bool,
}

/// What became of a statement, which its catalog is yet to hear.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Reply {
    pub outcome: StatementOutcome,
    /// It waits for the standby.
    pub is_waiting: bool,
}

impl Committed {
    /// Carries a statement out, if it may be. Numbers and keys are unique, as the schema says.
    fn carry_out(&mut self, statement: &Statement) -> StatementOutcome {
        let passes = match statement {
            Statement::TakeOver(claim) => self.writer.take_over(*claim),
            Statement::Release(fence) => self.writer.release(*fence),
            Statement::Commit { fence, after, rows } => {
                let before = self.writer;
                let passes = self.writer.beat(*fence);
                let is_unique = rows.iter().all(|key| !self.journal.contains(key));
                if passes && !rows.is_empty() && (*after != self.journal.len() || !is_unique) {
                    self.writer = before;
                    return StatementOutcome::Failed;
                }
                if passes {
                    self.journal.extend(rows);
                }
                passes
            }
        };
        if passes {
            StatementOutcome::Durable
        } else {
            StatementOutcome::Fenced
        }
    }
}

impl Store {
    /// A new database, which so many catalogs are connected with.
    pub fn new(catalogs: usize, writer: WriterTable) -> Self {
        let new = Committed {
            writer,
            journal: Vec::new(),
        };
        Self {
            primary: new.clone(),
            replicated: new.clone(),
            older: new,
            incarnation: Incarnation::default(),
            connections: vec![Connection::default(); catalogs],
            strays: Vec::new(),
        }
    }

    pub fn row(&self) -> WriterRow {
        self.primary.writer.row()
    }

    pub fn send(&mut self, catalog: usize, statement: Statement) {
        let connection = &mut self.connections[catalog];
        assert!(
            connection.sent.is_none() && connection.reply.is_none(),
            "one statement at a time"
        );
        connection.sent = Some(statement);
    }

    /// What a catalog sent takes effect.
    pub fn execute(&mut self, catalog: usize) {
        let statement = self.connections[catalog].sent.take();
        let outcome = self
            .primary
            .carry_out(&statement.expect("something was sent"));
        self.connections[catalog].reply = Some(Reply {
            outcome,
            is_waiting: outcome == StatementOutcome::Durable,
        });
    }

    /// What was sent on a connection that is lost takes effect.
    pub fn execute_stray(&mut self, stray: usize) {
        let statement = self.strays.remove(stray);
        self.primary.carry_out(&statement);
    }

    /// The standby has all that the primary has.
    pub fn replicate(&mut self) {
        self.replicated = self.primary.clone();
        for connection in &mut self.connections {
            if let Some(reply) = &mut connection.reply {
                reply.is_waiting = false;
            }
        }
    }

    /// What a catalog hears, which then is off the connection.
    pub fn deliver(&mut self, catalog: usize) -> StatementOutcome {
        let reply = self.connections[catalog].reply.take();
        reply.expect("there is a reply").outcome
    }

    /// A catalog is connected anew.
    pub fn reconnect(&mut self, catalog: usize) {
        let lost = std::mem::take(&mut self.connections[catalog]);
        self.strays.extend(lost.sent.filter(|_| !lost.is_broken));
    }

    /// Another server takes the primary's place, with what is replicated, or with what is older. Nothing of
    /// before takes effect any more.
    pub fn fail_over(&mut self, loses: bool) {
        if loses {
            self.replicated = self.older.clone();
        }
        self.primary = self.replicated.clone();
        self.incarnation.timeline += 1;
        self.strays.clear();
        self.connections.fill(Connection {
            is_broken: true,
            ..Connection::default()
        });
    }

    /// Strays that can have no effect any more are forgotten, so that fewer states differ.
    pub fn forget(&mut self) {
        let term = self.row().term;
        self.strays.retain(|stray| match stray {
            Statement::TakeOver(claim) => claim.term >= term,
            Statement::Commit { fence, .. } | Statement::Release(fence) => fence.term >= term,
        });
    }
}
