//! The topics that the six need.
//!
//! Whoever comes first makes those that are not there; so no order of starts is asked for. Where topics are an operator's to
//! make (`topics.create = false`), a service waits until they are there.

use std::time::Duration;

use broker::{Admin, Broker as _, Error, ErrorCode, NewTopic, Properties};
use context::Context;

use crate::config::Topics;
use crate::{Config, exit};

/// How long to wait before Kafka is asked again.
const PAUSE: Duration = Duration::from_secs(1);
/// UNKNOWN_TOPIC_OR_PARTITION: an operator has not made it yet.
const UNKNOWN_TOPIC: ErrorCode = ErrorCode::Broker(3);
/// TOPIC_ALREADY_EXISTS: somebody else was faster.
const ALREADY_EXISTS: ErrorCode = ErrorCode::Broker(36);
/// INVALID_REPLICATION_FACTOR: fewer brokers have registered than a topic shall have replicas, as while a cluster starts.
const INVALID_REPLICATION_FACTOR: ErrorCode = ErrorCode::Broker(38);

/// What is waited for, though Kafka calls it no matter of time.
const WAITED_FOR: &[ErrorCode] = &[UNKNOWN_TOPIC, INVALID_REPLICATION_FACTOR];

/// `services topics`: makes what is missing, and says so.
pub(crate) async fn command(config: &Config) -> u8 {
    let made = async {
        let context = crate::errand("topics")?;
        let settings = Topics { create: true, ..config.topics.clone() };
        let admin = crate::broker(config, &context).admin(&Properties::new()).await;
        let admin = admin.map_err(|error| error.to_string())?;
        make_missing(&*admin, &settings).await.map_err(|error| error.to_string())
    };
    match made.await {
        Ok(made) => {
            made.iter().for_each(|topic| tracing::info!("made {topic}"));
            tracing::info!("all topics are there");
            exit::DONE
        }
        Err(error) => exit::complain(&error, exit::UNAVAILABLE),
    }
}

/// Returns when every topic is there. Kafka may take its time; what it refuses for good is an error.
///
/// # Errors
/// A setting that Kafka or its client refuses.
pub(crate) async fn ensure(config: &Config, context: &Context) -> Result<(), Error> {
    let admin = crate::broker(config, context).admin(&Properties::new()).await?;
    loop {
        match make_missing(&*admin, &config.topics).await {
            Ok(made) => {
                made.iter().for_each(|topic| tracing::info!("made the topic {topic}"));
                return Ok(());
            }
            Err(error) if error.is_retriable() || WAITED_FOR.contains(&error.code) => {
                context.trouble(format_args!("waits for Kafka and its topics: {error}"));
                context.sleep(PAUSE).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Makes the topics that are not there; gives their names.
async fn make_missing(admin: &dyn Admin, settings: &Topics) -> Result<Vec<String>, Error> {
    let there = admin.describe_topics(&[]).await?;
    let is_there = |name: &String| there.iter().any(|topic| &*topic.name == name);
    let missing: Vec<String> = proto::topics::all().into_iter().filter(|name| !is_there(name)).collect();
    if missing.is_empty() {
        return Ok(missing);
    }
    if !settings.create {
        let text = format!("`topics.create` is false, and there is no {}", missing.join(", "));
        return Err(Error::new(UNKNOWN_TOPIC, broker::ErrorClass::Retriable, text));
    }
    for name in &missing {
        let topic = NewTopic {
            name: name.clone(),
            partitions: Some(settings.partitions),
            replication_factor: settings.replication_factor,
            config: settings.config.clone(),
        };
        match admin.create_topics(&[topic]).await {
            Err(error) if error.code == ALREADY_EXISTS => {}
            made => made?,
        }
    }
    Ok(missing)
}
