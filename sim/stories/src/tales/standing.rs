//! Last replica standing: all replicas die one after the other, and come back in another order.

use std::sync::Arc;

use crate::account::Account;
use crate::stage::{Stage, StageError};
use crate::watch::Telling;
use crate::writer::{append, plain};

pub(super) async fn last_replica(stage: Arc<dyn Stage>) -> Result<Account, StageError> {
    let telling = Telling::begin(stage, &[1, 2, 3], &[("min.insync.replicas", "2")]).await?;
    let watch = telling.watch();
    let mut line = telling.line(1);
    let all = append(&mut line, -1, 3_000, plain(&telling.context, "all")).await;
    telling.account().fact("acks=all with all in sync", all);
    telling.at(2).await;
    telling.kill(3).await?;
    telling.until("two are in sync", |seen| seen.in_sync.len() == 2).await?;
    let two = append(&mut line, -1, 3_000, plain(&telling.context, "two")).await;
    telling.account().fact("acks=all with two in sync", two);
    telling.kill(2).await?;
    telling.until("one is in sync", |seen| seen.in_sync.len() == 1).await?;
    let one = append(&mut line, 1, 3_000, plain(&telling.context, "one")).await;
    telling.account().fact("acks=1 with one in sync", one);
    telling.kill(1).await?;
    // C left first, and comes back first: it lacks what the others have.
    telling.start(3).await?;
    let back = telling.seconds() as u64 + 15;
    telling.until("C answers", |_| true).await?;
    telling.at(back).await;
    telling.start(2).await?;
    let back = telling.seconds() as u64 + 15;
    telling.at(back).await;
    telling.start(1).await?;
    telling.until("all are in sync again", |seen| seen.leader > 0 && seen.in_sync.len() == 3).await?;
    let seen = telling.until("somebody leads", |seen| seen.leader > 0).await?;
    let read =
        telling.eventually("everything is read", async || telling.read_all(seen.leader, false).await).await?;
    telling.account().fact("there in the end", read.join(" "));
    telling.end(watch).await
}
