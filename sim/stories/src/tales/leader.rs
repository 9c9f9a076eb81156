//! The leader goes away: killed and started again, or stopped in its tracks.

use std::sync::Arc;

use crate::account::Account;
use crate::stage::{Stage, StageError};
use crate::watch::Telling;
use crate::writer::Writer;

const CAREFUL: &[(&str, &str)] = &[("min.insync.replicas", "2")];

pub(super) async fn killed(stage: Arc<dyn Stage>) -> Result<Account, StageError> {
    let telling = Telling::begin(stage, &[1, 2, 3], CAREFUL).await?;
    let watch = telling.watch();
    let writer = Writer::begin(&telling, "acks-all", -1, None);
    telling.at(5).await;
    telling.kill(1).await?;
    telling.at(8).await;
    telling.start(1).await?;
    telling.until("another leads", |seen| seen.leader > 1).await?;
    telling.until("all are in sync again", |seen| seen.in_sync.len() == 3).await?;
    let until = telling.seconds() as u64 + 3;
    telling.at(until).await;
    finish(telling, writer, watch).await
}

pub(super) async fn paused(stage: Arc<dyn Stage>) -> Result<Account, StageError> {
    let telling = Telling::begin(stage, &[1, 2, 3], CAREFUL).await?;
    let watch = telling.watch();
    let writer = Writer::begin(&telling, "acks-all", -1, None);
    telling.at(5).await;
    telling.pause(1).await?;
    telling.at(17).await;
    telling.resume(1).await?;
    telling.until("all are in sync again", |seen| seen.leader != 1 && seen.in_sync.len() == 3).await?;
    let until = telling.seconds() as u64 + 3;
    telling.at(until).await;
    finish(telling, writer, watch).await
}

async fn finish(telling: Telling, writer: Writer, watch: context::Task<()>) -> Result<Account, StageError> {
    let written = writer.stop().await?;
    let seen = telling.until("somebody leads", |seen| seen.leader > 0).await?;
    let read =
        telling.eventually("everything is read", async || telling.read_all(seen.leader, false).await).await?;
    written.tell(&telling, &read);
    telling.end(watch).await
}
