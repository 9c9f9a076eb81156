//! Fewer replicas are in sync than there must be.

use std::sync::Arc;

use crate::account::Account;
use crate::stage::{Stage, StageError};
use crate::watch::Telling;
use crate::writer::{append, plain};

pub(super) async fn acks_1(stage: Arc<dyn Stage>) -> Result<Account, StageError> {
    let telling = Telling::begin(stage, &[1, 2], &[("min.insync.replicas", "2")]).await?;
    let watch = telling.watch();
    let mut line = telling.line(1);
    let write = async |line: &mut crate::wire::Line, label: &str, acks: i16| {
        let mut codes = Vec::new();
        for number in 0..5 {
            let batch = plain(&telling.context, &format!("{label}-{number}"));
            codes.push(append(line, acks, 3_000, batch).await);
        }
        codes.dedup();
        codes.join(" ")
    };
    let both = write(&mut line, "both", -1).await;
    telling.account().fact("acks=all with both in sync", both);
    telling.at(2).await;
    telling.kill(2).await?;
    telling.until("one is in sync", |seen| seen.in_sync.len() == 1).await?;
    let one = write(&mut line, "one", 1).await;
    let all = write(&mut line, "all", -1).await;
    telling.account().fact("acks=1 with one in sync", one);
    telling.account().fact("acks=all with one in sync", all);
    let latest = telling.latest(1, false).await;
    telling.account().fact("high watermark with one in sync", format!("{latest:?}"));
    let read = telling.read_all(1, false).await.unwrap_or_default();
    telling.account().fact("visible with one in sync", read.len());
    telling.start(2).await?;
    telling.until("both are in sync", |seen| seen.in_sync.len() == 2).await?;
    let latest = telling
        .eventually("the high watermark moves", async || {
            telling.latest(1, false).await.filter(|latest| *latest > 5)
        })
        .await?;
    telling.account().fact("high watermark with both in sync again", latest);
    let read = telling.read_all(1, false).await.unwrap_or_default();
    telling.account().fact("visible in the end", read.join(" "));
    telling.end(watch).await
}
