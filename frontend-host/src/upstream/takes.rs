//! Tokens that policies take out of buckets. The catalog keeps the buckets, so that a limit holds over
//! all gateways, and is asked for each take, unless it is known that there are no tokens.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use domain::time::BootTime;
use domain::{JournalId, Take};
use frontend_core::Denials;
use frontend_core::timing::ATTEMPT_TIME_MAX;
use rpc::failover::Endpoints;
use sha2::{Digest as _, Sha256};
use tonic::transport::Channel;
use tonic::{Response, Status, Streaming};
use wire::catalog::v1::catalog_client::CatalogClient;
use wire::catalog::v1::{TakeRequest, TakeResponse};
use wire::takes;

use crate::journal::OwnJournal;
use crate::upstream::batches::{Batched, Batches, Outgoing};
use frontend_policy::decision::Bucket;

/// Most takes in one message; the catalog refuses longer ones.
const MESSAGE_TAKES_MAX: usize = 1024;

/// Locks that what is known of buckets is spread over. A power of two.
const SHARDS: usize = 64;

/// Denials that are remembered, of one lock: 262,144 in all, which take some 20 MiB. Beyond them the
/// catalog is asked each time.
const ROOM: usize = 4096;

/// What came of a take that was answered: there are so many tokens after so long.
pub type Taken = Result<(), Duration>;

/// How tokens are taken.
pub struct Takes {
    catalog: Batches<CatalogTakes>,
    journal: Arc<OwnJournal>,
    denials: Vec<Mutex<Denials>>,
}

impl Takes {
    /// At a catalog, which is connected to when there is something to take.
    pub fn new(catalog: Endpoints, journal: Arc<OwnJournal>) -> Self {
        Self {
            catalog: Batches::new(catalog, Arc::clone(&journal)),
            journal,
            denials: (0..SHARDS)
                .map(|_| Mutex::new(Denials::new(ROOM)))
                .collect(),
        }
    }

    /// What is to be taken, by names that all gateways of a journal have for it. `None` while the
    /// journal is not known.
    pub fn identify(&self, bucket: &Bucket, key: &[u8], cost: u32) -> Option<Take> {
        let journal = self.journal.known()?;
        Some(identified(journal, bucket, key, cost))
    }

    /// How long it takes until there are so many tokens, where there certainly are not.
    pub fn known_wait(&self, take: &Take) -> Option<Duration> {
        self.denials(take).wait(take, BootTime::now())
    }

    /// Takes tokens at the catalog. Where that fails they may be taken, and where it takes long, more than once.
    pub async fn take(&self, take: Take) -> Result<Taken, Status> {
        let asked = BootTime::now();
        let taken = self.catalog.ask(|| take, Ok).await?;
        if let Err(wait) = taken {
            self.denials(&take)
                .note(&take, wait, asked, BootTime::now());
        }
        Ok(taken)
    }

    fn denials(&self, take: &Take) -> MutexGuard<'_, Denials> {
        let denials = &self.denials[take.key as usize % SHARDS];
        denials.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The bucket by hashes that are the same at every gateway of a journal, whichever version of the policy
/// takes out of it. They do not tell what the key is, which may be a secret; and who does not know the
/// journal's id cannot tell which keys are in the same part of the catalog's room.
fn identified(journal: JournalId, bucket: &Bucket, key: &[u8], cost: u32) -> Take {
    let all = Sha256::new()
        .chain_update(journal.as_bytes())
        .chain_update(bucket.rate.per_token().as_nanos().to_be_bytes())
        .chain_update(bucket.rate.burst().to_be_bytes())
        .chain_update(&bucket.name)
        .finalize();
    let one = Sha256::new().chain_update(all).chain_update(key).finalize();
    let id = |hash: &[u8]| u128::from_be_bytes(*hash.first_chunk().expect("it has 32 bytes"));
    Take {
        key: id(&one),
        crowd: id(&all),
        rate: bucket.rate,
        cost,
    }
}

struct CatalogTakes;

impl Batched for CatalogTakes {
    type Item = Take;
    type Answer = Taken;
    type Request = TakeRequest;
    type Response = TakeResponse;

    const MESSAGE_ITEMS_MAX: usize = MESSAGE_TAKES_MAX;
    const ATTEMPT_TIME_MAX: Duration = ATTEMPT_TIME_MAX;

    fn message(takes: Vec<(u64, Take)>, journal: Vec<u8>) -> TakeRequest {
        let takes = takes.iter().map(|(tag, take)| takes::to_wire(*tag, take));
        TakeRequest {
            takes: takes.collect(),
            journal,
        }
    }

    fn answers(message: TakeResponse) -> impl Iterator<Item = (u64, Option<Taken>)> {
        let answers = message.answers.into_iter();
        answers.map(|answer| (answer.tag, Some(takes::taken(&answer))))
    }

    async fn open(
        catalog: Channel,
        messages: Outgoing<Self>,
    ) -> Result<Response<Streaming<TakeResponse>>, Status> {
        CatalogClient::new(catalog).take_many(messages).await
    }
}

#[cfg(test)]
mod tests {
    use frontend_policy::decision::Rate;

    use super::*;

    const OURS: JournalId = JournalId::new([1; JournalId::BYTES]);

    fn bucket(name: &str, burst: u32) -> Bucket {
        Bucket {
            name: name.to_owned(),
            rate: Rate::new(1, Duration::from_secs(3600), burst).unwrap(),
        }
    }

    #[test]
    fn each_name_rate_and_key_has_a_bucket_of_its_own_and_each_journal() {
        let mut keys = Vec::new();
        let mut crowds = Vec::new();
        for journal in [OURS, JournalId::new([2; JournalId::BYTES])] {
            for bucket in [bucket("a", 1), bucket("b", 1), bucket("a", 2)] {
                crowds.push(identified(journal, &bucket, b"", 1).crowd);
                for key in [&b""[..], b"x", b"y"] {
                    let one = identified(journal, &bucket, key, 1);
                    assert_eq!(one, identified(journal, &bucket, key, 1), "it is the same");
                    keys.push(one.key);
                }
            }
        }
        let buckets = keys.len() + crowds.len();
        keys.extend(crowds);
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), buckets);
    }
}
