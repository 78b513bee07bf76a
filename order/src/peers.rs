//! The calls to the catalog and the peers, each with a deadline.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use domain::LedgerEnd;
use domain::{
    CatalogRun, ChainHash, Entry, Epoch, Invalid, JournalId, OrderNumber, ReplicaId, Row,
    RowNumber, Term,
};
use rpc::call_streams::Calls;
use rpc::connect::Security;
use rpc::failover::{AskIfActive, Endpoints};
use rpc::release::BazaarProtocol;
use tls::{Cluster, Expected, Role};
use tonic::transport::Channel;
use tonic::{Status, Streaming};
use wire::Malformed;
use wire::catalog::v1 as catalog;
use wire::catalog::v1::catalog_client::CatalogClient;
use wire::identity;
use wire::order::v1 as order;
use wire::order::v1::replication_client::ReplicationClient;
use wire::row_number;

use crate::config::{Config, ConfigError};
use crate::failed_call::{Call, CallError};
use crate::traced::Spans;
use domain::ChangeNumber;
use domain::JournalHead;
use order_core::message::{Heard, Outcome};
use order_core::timing::{
    APPEND_TIMEOUT, FETCH_TIMEOUT, HEAD_TIMEOUT, JOURNAL_TIMEOUT, SET_IN_SYNC_TIMEOUT,
    TRADE_TIMEOUT,
};
use wire::leadership::{end, head};

#[derive(Debug, Clone)]
pub(crate) struct Catalog {
    client: CatalogClient<Channel>,
    trades: Arc<Calls<catalog::TradeRequest, catalog::TradeResponse>>,
    /// `None` until the catalog has said which it keeps.
    journal: Option<JournalId>,
    /// The replica's own, from when on no other catalog is followed.
    adopted: Arc<OnceLock<JournalId>>,
    /// As the catalog says.
    protocol: BazaarProtocol,
}

impl Catalog {
    pub(crate) fn new(urls: &[String], cluster: Option<&Cluster>) -> Result<Self, ConfigError> {
        let security = Security::of(cluster, Expected::Role(Role::Catalog));
        let adopted = Arc::new(OnceLock::new());
        let known = Arc::clone(&adopted);
        let ask: AskIfActive = Arc::new(move |catalog| {
            let journal = identity::to_wire(known.get().copied());
            Box::pin(wire::leadership::ask_if_active(catalog, journal))
        });
        let catalogs = Endpoints::several(urls, &security, ask);
        let catalogs = catalogs.map_err(|(url, source)| ConfigError::Url {
            url: url.to_owned(),
            source,
        })?;
        Ok(Self {
            client: CatalogClient::new(catalogs.channel()),
            trades: Arc::default(),
            journal: None,
            adopted,
            protocol: BazaarProtocol::default(),
        })
    }

    /// The same catalog as long as it keeps this journal.
    pub(crate) fn of(self, journal: JournalId) -> Self {
        Self {
            journal: Some(journal),
            ..self
        }
    }

    /// The replica's own journal is that: only its catalog is followed.
    pub(crate) fn follow(&self, journal: JournalId) {
        let _ = self.adopted.set(journal); // a replica has one
    }

    /// The version of the protocol that the bazaar is at, as it was heard last.
    pub(crate) fn protocol(&self) -> BazaarProtocol {
        self.protocol.clone()
    }

    fn journal(&self) -> Vec<u8> {
        identity::to_wire(self.journal)
    }

    /// Commits orders; one outcome for each, in their order. `proposed` is given the rows that are
    /// about to be committed, where the catalog says so before.
    pub(crate) async fn trade<F>(
        &self,
        epoch: Epoch,
        (orders, mut spans): (Vec<Entry>, Spans),
        proposed: impl FnOnce(Vec<Row>) -> F,
    ) -> Result<Vec<Outcome>, CallError>
    where
        F: Future<Output = ()>,
    {
        let mut request = catalog::TradeRequest {
            epoch: epoch.0,
            orders: orders.iter().map(Into::into).collect(),
            journal: self.journal(),
        };
        for (at, span) in spans.iter() {
            request.orders[*at].traceparent = span.traceparent();
        }
        let mut client = self.client.clone();
        let open = async |requests| client.trade_many(requests).await;
        within(Call::Change, TRADE_TIMEOUT, async {
            let mut call = self.trades.call(request, open).await?;
            let mut answer = call.message().await?;
            if !answer.proposed.is_empty() {
                proposed(wire::rows(answer.proposed)?).await;
                answer = call.message().await?;
            }
            let outcomes = outcomes(&orders, answer.results)?;
            call.end();
            Ok(outcomes)
        })
        .await
        .inspect_err(|error| spans.fail(&error.to_string()))
    }

    pub(crate) async fn set_in_sync(
        &self,
        epoch: Epoch,
        change: ChangeNumber,
        in_sync: &BTreeSet<ReplicaId>,
    ) -> Result<JournalHead, CallError> {
        let in_sync = in_sync.iter().map(|id| id.get()).collect();
        let request = catalog::SetInSyncRequest {
            epoch: epoch.0,
            in_sync,
            change: change.get(),
            journal: self.journal(),
        };
        let mut client = self.client.clone();
        within(Call::Change, SET_IN_SYNC_TIMEOUT, async {
            let response = client.set_in_sync(request).await?;
            Ok(head(response.get_ref())?)
        })
        .await
    }

    /// Which journal the catalog keeps, who leads, and how long the journal is.
    pub(crate) async fn get_leadership(&self, timeout: Duration) -> Result<Heard, CallError> {
        let request = catalog::GetLeadershipRequest {
            journal: self.journal(),
        };
        let mut client = self.client.clone();
        within(Call::GetLeadership, timeout, async {
            let response = client.get_leadership(request).await?;
            let leadership = response.get_ref();
            let identity = wire::leadership::identity(leadership)?;
            if let Some(journal) = self.journal {
                // A catalog of before does not look at what is named.
                identity::check(identity.journal.as_bytes(), journal)?;
            }
            self.protocol.set(wire::leadership::protocol(leadership)?);
            Ok(Heard {
                identity,
                head: head(leadership)?,
                healed: leadership.healed,
                run: CatalogRun::new(leadership.run),
            })
        })
        .await
    }

    /// At most `rows_max` rows of the journal. With the chain hash of the row before them an
    /// answer says that the journal has that row, too.
    pub(crate) async fn read_journal(
        &self,
        from: RowNumber,
        previous: Option<ChainHash>,
        rows_max: usize,
    ) -> Result<Vec<Row>, CallError> {
        let request = catalog::ReadJournalRequest {
            from: from.0,
            rows_max: rows_max as u64,
            previous: previous.map_or_else(Vec::new, |chain| chain.as_bytes().to_vec()),
            order: None,
            journal: self.journal(),
        };
        self.read(request, rows_max).await
    }

    /// The row of an order, if the journal has it.
    pub(crate) async fn read_order(&self, number: OrderNumber) -> Result<Vec<Row>, CallError> {
        let request = catalog::ReadJournalRequest {
            order: Some(number.0),
            // A catalog that does not know of stocks being changed has it there.
            from: number.0,
            rows_max: 1,
            previous: Vec::new(),
            journal: self.journal(),
        };
        self.read(request, 1).await
    }

    async fn read(
        &self,
        request: catalog::ReadJournalRequest,
        rows_max: usize,
    ) -> Result<Vec<Row>, CallError> {
        let mut client = self.client.clone();
        within(Call::Read, JOURNAL_TIMEOUT, async {
            let stream = client.read_journal(request).await?.into_inner();
            collect(stream, rows_max, |response| response.rows).await
        })
        .await
    }

    /// Tells a catalog that has started what is here. Returns from where on its journal lacks rows of the ledger.
    pub(crate) async fn report_ledger(
        &self,
        report: &Report,
        last_epoch: Epoch,
        beside: &[Row],
    ) -> Result<Option<RowNumber>, CallError> {
        let request = catalog::ReportLedgerRequest {
            replica: report.replica.get(),
            run: report.run.get(),
            rows: report.end.rows.0,
            stock_changes: report.end.stock_changes,
            chain_hash: report.end.chain.as_bytes().to_vec(),
            beside: beside.iter().map(Into::into).collect(),
            epoch: report.term.epoch.0,
            leader: report.term.leader.map_or(0, ReplicaId::get),
            peers: report.peers.iter().map(|peer| peer.get()).collect(),
            lease_horizon_ms: report.lease_horizon.as_millis() as u64,
            empty: report.is_empty,
            last_epoch: last_epoch.0,
            journal: self.journal(),
        };
        let mut client = self.client.clone();
        within(Call::Report, HEAD_TIMEOUT, async {
            let answer = client.report_ledger(request).await?.into_inner();
            Ok(answer.missing_from.map(row_number).transpose()?)
        })
        .await
    }

    /// Shows such a catalog rows that it lacks. Returns from where on it still lacks rows of the ledger.
    pub(crate) async fn put_back(
        &self,
        report: &Report,
        rows: Vec<Row>,
    ) -> Result<Option<RowNumber>, CallError> {
        let request = catalog::PutBackRequest {
            replica: report.replica.get(),
            run: report.run.get(),
            rows: rows.iter().map(Into::into).collect(),
            journal: self.journal(),
        };
        let mut client = self.client.clone();
        within(Call::Report, JOURNAL_TIMEOUT, async {
            let answer = client.put_back(request).await?.into_inner();
            Ok(answer.missing_from.map(row_number).transpose()?)
        })
        .await
    }

    /// Shows the catalog a row that follows its journal's last one.
    pub(crate) async fn report_missing(
        &self,
        replica: ReplicaId,
        row: &Row,
    ) -> Result<(), CallError> {
        let request = catalog::ReportMissingRequest {
            replica: replica.get(),
            row: Some(row.into()),
            journal: self.journal(),
        };
        let mut client = self.client.clone();
        let reported = client.report_missing(request);
        let reported = within(Call::ReportMissing, JOURNAL_TIMEOUT, reported).await;
        reported.map(drop).inspect_err(|error| {
            let number = row.number;
            tracing::error!(%number, %error, "the catalog does not take that it lost rows");
        })
    }
}

/// What a replica has, but for what is beside its ledger on the disk.
#[derive(Debug, Clone)]
pub(crate) struct Report {
    pub(crate) replica: ReplicaId,
    pub(crate) run: CatalogRun,
    /// Where the ledger ends, with the committed rows that are yet to be saved.
    pub(crate) end: LedgerEnd,
    pub(crate) term: Term,
    pub(crate) peers: Vec<ReplicaId>,
    /// The longest time for which a catalog was heard to count a lease.
    pub(crate) lease_horizon: Duration,
    /// The disk has nothing of this journal, not even its name.
    pub(crate) is_empty: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Peers {
    own_id: ReplicaId,
    /// `None` until it is known.
    journal: Option<JournalId>,
    peers: Arc<BTreeMap<ReplicaId, Peer>>,
}

#[derive(Debug)]
struct Peer {
    client: ReplicationClient<Channel>,
    appends: Calls<order::AppendRequest, order::AppendResponse>,
}

impl Peers {
    pub(crate) fn new(config: &Config) -> Result<Self, ConfigError> {
        let peer = |(id, url): &(ReplicaId, String)| {
            let security = Security::of(config.cluster.as_ref(), Expected::Replica(*id));
            let channel = rpc::connect::lazy(url, &security);
            let channel = channel.map_err(|source| ConfigError::Url {
                url: url.to_owned(),
                source,
            })?;
            let peer = Peer {
                client: ReplicationClient::new(channel),
                appends: Calls::default(),
            };
            Ok((*id, peer))
        };
        let peers = config.peers.iter().map(peer);
        let peers = peers.collect::<Result<_, ConfigError>>()?;
        Ok(Self {
            own_id: config.id,
            journal: None,
            peers: Arc::new(peers),
        })
    }

    /// The same peers as long as they keep copies of this journal.
    pub(crate) fn of(self, journal: JournalId) -> Self {
        Self {
            journal: Some(journal),
            ..self
        }
    }

    /// Who they are.
    pub(crate) fn ids(&self) -> impl Iterator<Item = ReplicaId> {
        self.peers.keys().copied()
    }

    /// Sends rows to a follower, which answers what it holds.
    pub(crate) async fn append(
        &self,
        peer: ReplicaId,
        epoch: Epoch,
        (rows, spans): (&[Row], &Spans),
        committed: RowNumber,
    ) -> Result<LedgerEnd, CallError> {
        let request = order::AppendRequest {
            epoch: epoch.0,
            leader: self.own_id.get(),
            rows: rows.iter().map(Into::into).collect(),
            committed: committed.0,
            traced: spans.to_wire(rows),
            journal: identity::to_wire(self.journal),
        };
        let peer = self.peer(peer);
        let mut client = peer.client.clone();
        let open = async |requests| client.append_many(requests).await;
        within(Call::Change, APPEND_TIMEOUT, async {
            let mut call = peer.appends.call(request, open).await?;
            let answer = call.message().await?;
            call.end();
            Ok(end(answer.rows, answer.stock_changes, &answer.chain_hash)?)
        })
        .await
    }

    /// At most `rows_max` rows of a peer's ledger.
    pub(crate) async fn fetch(
        &self,
        peer: ReplicaId,
        from: RowNumber,
        rows_max: usize,
    ) -> Result<Vec<Row>, CallError> {
        let request = order::FetchRequest {
            from: from.0,
            rows_max: rows_max as u64,
            journal: identity::to_wire(self.journal),
        };
        let mut client = self.peer(peer).client.clone();
        within(Call::Read, FETCH_TIMEOUT, async {
            let stream = client.fetch(request).await?.into_inner();
            collect(stream, rows_max, |response| response.rows).await
        })
        .await
    }

    fn peer(&self, peer: ReplicaId) -> &Peer {
        self.peers.get(&peer).expect("the core knows these peers")
    }
}

async fn within<T>(
    what: Call,
    timeout: Duration,
    call: impl Future<Output = Result<T, Status>>,
) -> Result<T, CallError> {
    let late =
        |_| Status::deadline_exceeded(format!("no answer within {} ms", timeout.as_millis()));
    let result = tokio::time::timeout(timeout, call).await.map_err(late);
    result
        .flatten()
        .map_err(|status| CallError::of(what, status))
}

/// The rows of a stream, which may not be more than asked for.
async fn collect<M>(
    mut stream: Streaming<M>,
    rows_max: usize,
    rows: impl Fn(M) -> Vec<catalog::JournalRow>,
) -> Result<Vec<Row>, Status> {
    let mut collected = Vec::new();
    while let Some(message) = stream.message().await? {
        collected.extend(wire::rows(rows(message))?);
        if collected.len() > rows_max {
            return Err(Malformed(Invalid::new(
                "rows",
                format!("are more than the {rows_max} asked for"),
            ))
            .into());
        }
    }
    Ok(collected)
}

/// Checks that there is one outcome for each order, and that every row is its order's.
fn outcomes(
    orders: &[Entry],
    results: Vec<catalog::TradeResult>,
) -> Result<Vec<Outcome>, Malformed> {
    if results.len() != orders.len() {
        return Err(Malformed(Invalid::new(
            "results",
            format!("are {} for {} orders", results.len(), orders.len()),
        )));
    }
    orders
        .iter()
        .zip(results)
        .map(|(order, result)| outcome(order, result))
        .collect()
}

fn outcome(order: &Entry, result: catalog::TradeResult) -> Result<Outcome, Malformed> {
    use catalog::trade_result::Result as Is;
    match result.result {
        Some(Is::Row(row)) => {
            let row = Row::try_from(row)?;
            if !row.entry.is_same_as(order) {
                return Err(Malformed(Invalid::new(
                    "result",
                    format!("for key {} is another order's row", order.key()),
                )));
            }
            Ok(Outcome::Row(row))
        }
        Some(Is::Refusal(refusal)) => Ok(Outcome::Refused(wire::refusal(refusal)?)),
        None => Err(Malformed(Invalid::new("result", "is missing"))),
    }
}
