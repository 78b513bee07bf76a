use domain::{Rate, Take};
use tokio::task::JoinSet;
use tonic::{Code, Status};
use wire::catalog::v1;
use wire::takes::{taken, to_wire};

use super::harness::{Client, LONG_LEASE, Leader, Running, disk, until};
use crate::takes::TAKES_MAX;
use std::time::Duration;

const BURST: u32 = 30;

/// So slow that nothing comes back while a test runs.
const PER_TOKEN: Duration = Duration::from_secs(24 * 60 * 60);

fn take(key: u128, cost: u32) -> Take {
    Take {
        key,
        crowd: u128::MAX,
        rate: Rate::of_token(PER_TOKEN, BURST).unwrap(),
        cost,
    }
}

/// Takes on a stream of their own; whether each was granted.
async fn take_all(
    mut client: Client,
    journal: &[u8],
    takes: &[Take],
) -> Result<Vec<Result<(), Duration>>, Status> {
    let takes = (0..).zip(takes).map(|(tag, take)| to_wire(tag, take));
    let request = v1::TakeRequest {
        takes: takes.collect(),
        journal: journal.to_vec(),
    };
    let answers = client.take_many(tokio_stream::iter([request])).await?;
    let ended = || Status::unavailable("the stream ended");
    let answer = answers.into_inner().message().await?.ok_or_else(ended)?;
    assert!(answer.answers.iter().map(|answer| answer.tag).is_sorted());
    Ok(answer.answers.iter().map(taken).collect())
}

#[tokio::test]
async fn a_burst_is_granted_once_over_all_streams_and_not_again_after_a_restart() {
    let disk = disk();
    let running = Running::start_on(&disk, LONG_LEASE).await;
    let Leader { journal, .. } = running.elect_leader().await;
    let mut taking = JoinSet::new();
    for _ in 0..3 {
        let (client, journal) = (running.client(), journal.clone());
        taking.spawn(async move { take_all(client, &journal, &[take(1, 1); 20]).await });
    }
    let mut granted = 0;
    while let Some(all) = taking.join_next().await {
        for one in all.unwrap().unwrap() {
            match one {
                Ok(()) => granted += 1,
                Err(wait) => assert!(wait > PER_TOKEN * 9 / 10 && wait <= PER_TOKEN, "{wait:?}"),
            }
        }
    }
    assert_eq!(granted, BURST);
    let others = [take(2, BURST), take(3, 1)];
    let others = take_all(running.client(), &journal, &others).await.unwrap();
    assert_eq!(others, [Ok(()); 2]);
    running.stop().await;

    let running = Running::start_on(&disk, LONG_LEASE).await;
    // Of those of whom nothing is known, neither.
    for key in [1, 3, 4] {
        let taken = take_all(running.client(), &journal, &[take(key, 1)]).await;
        assert!(taken.unwrap()[0].is_err(), "{key}");
    }
    running.stop().await;
}

#[tokio::test]
async fn nothing_is_taken_before_the_first_election_by_which_a_start_knows_of_it() {
    let disk = disk();
    let journal = crate::store::memory::JOURNAL.as_bytes();
    for _ in 0..2 {
        let running = Running::start_on(&disk, LONG_LEASE).await;
        let refused = take_all(running.client(), journal, &[take(1, 1)]).await;
        assert_eq!(refused.unwrap_err().code(), Code::Unavailable);
        running.stop().await;
    }
    let running = Running::start_on(&disk, LONG_LEASE).await;
    running.elect_leader().await;
    let granted = take_all(running.client(), journal, &[take(1, BURST)]).await;
    assert_eq!(granted.unwrap(), [Ok(())]);
}

#[tokio::test]
async fn takes_about_another_journal_and_takes_that_cannot_be_are_refused_whole() {
    let running = Running::start_on(&disk(), LONG_LEASE).await;
    let Leader { journal, .. } = running.elect_leader().await;
    let one = take(1, 1);
    let never = Take { cost: 31, ..one };
    let too_many = vec![one; TAKES_MAX + 1];
    for (journal, takes, code) in [
        (&[9; 16][..], &[one][..], Code::PermissionDenied),
        (&[], &[one], Code::InvalidArgument),
        (&journal, &[one, never], Code::InvalidArgument),
        (&journal, &too_many, Code::InvalidArgument),
    ] {
        let refused = take_all(running.client(), journal, takes).await;
        assert_eq!(refused.unwrap_err().code(), code);
    }
    let all = take_all(running.client(), &journal, &[take(1, BURST)]).await;
    assert_eq!(all.unwrap(), [Ok(())], "nothing was taken");
}

#[tokio::test]
async fn takes_do_not_wait_for_the_disk() {
    let disk = disk();
    let running = Running::start_on(&disk, LONG_LEASE).await;
    let leader = running.elect_leader().await;
    disk.set_held(true);
    let buy = leader.start_buy("key", "acme");
    until("a commit is under way", async || disk.is_waiting()).await;
    let granted = take_all(running.client(), &leader.journal, &[take(1, 1)]).await;
    assert_eq!(granted.unwrap(), [Ok(())]);
    disk.set_held(false);
    buy.await.unwrap().unwrap();
}
