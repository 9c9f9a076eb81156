//! Fetch sessions (KIP-227): what a client or follower asks for again and again, remembered, so that a request names only
//! what changed and an answer holds only what is new.
//!
//! As Kafka's `FetchSession`: a request with epoch 0 asks in full and may get a session; each later one brings the next
//! epoch. A session that is not known, or an epoch that is not the next, is an error, after which the asker begins anew.
//! At most `max.incremental.fetch.session.cache.slots` are kept; a new one takes the place of one that was idle for two
//! minutes, or of a smaller one that had its time. A client without a session asks in full each time, which is always
//! right.
//!
//! What is read for a partition is [`super::fetch`]'s business.

use std::collections::BTreeMap;
use std::time::Duration;

use context::Timestamp;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::fetch_request::{FetchPartition, ForgottenTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::{FetchRequest, TopicName};
use uuid::Uuid;

/// Of a request that asks in full, and may get a session.
const INITIAL_EPOCH: i32 = 0;
/// Of a request that asks in full, and wants none.
const FINAL_EPOCH: i32 = -1;
/// Kafka's `MIN_INCREMENTAL_FETCH_SESSION_EVICTION_MS`.
const EVICTION: Duration = Duration::from_secs(120);

/// What a fetch asks of one partition.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    /// By name before version 13.
    pub(super) topic: TopicName,
    /// By id from version 13 on.
    pub(super) topic_id: Uuid,
    /// The rest.
    pub(super) partition: FetchPartition,
}

/// What a fetch asks for.
#[derive(Clone, Debug)]
pub(super) enum Scope {
    /// These, and no session.
    Alone(Vec<Asked>),
    /// These, and a session if there is room for one.
    New(Vec<Asked>),
    /// What the session holds.
    Session {
        /// Its id.
        id: i32,
        /// Its epoch while this fetch is answered.
        epoch: i32,
    },
}

type Place = (Uuid, TopicName, i32);

#[derive(Clone, Debug)]
struct Cached {
    asked: Asked,
    /// As last told; -1 after an error.
    high_watermark: i64,
    log_start_offset: i64,
}

#[derive(Clone, Debug)]
struct Session {
    epoch: i32,
    uses_topic_ids: bool,
    of_follower: bool,
    created: Timestamp,
    last_used: Timestamp,
    places: BTreeMap<Place, u64>,
    /// In the order in which they are read: what brought records goes to the end, so that all have their turn.
    partitions: BTreeMap<u64, Cached>,
    next_place: u64,
}

/// The sessions of a broker.
#[derive(Clone, Debug, Default)]
pub(super) struct FetchSessions {
    by_id: BTreeMap<i32, Session>,
}

impl Asked {
    fn place(&self) -> Place {
        (self.topic_id, self.topic.clone(), self.partition.partition)
    }
}

impl Session {
    fn put(&mut self, cached: Cached) {
        let place = self.next_place;
        self.next_place += 1;
        if let Some(before) = self.places.insert(cached.asked.place(), place) {
            self.partitions.remove(&before);
        }
        self.partitions.insert(place, cached);
    }

    fn update(&mut self, asked: Vec<Asked>, forgotten: &[ForgottenTopic]) {
        for asked in asked {
            match self.places.get(&asked.place()) {
                Some(place) => {
                    self.partitions.get_mut(place).expect("a place that is listed is taken").asked = asked;
                }
                None => self.put(Cached { asked, high_watermark: -1, log_start_offset: -1 }),
            }
        }
        for topic in forgotten {
            for &index in &topic.partitions {
                if let Some(place) = self.places.remove(&(topic.topic_id, topic.topic.clone(), index)) {
                    self.partitions.remove(&place);
                }
            }
        }
    }
}

impl Cached {
    /// Whether an answer must name this partition; what it is told is remembered.
    fn is_news(&mut self, data: &PartitionData) -> bool {
        let has_records = data.records.as_ref().is_some_and(|records| !records.is_empty());
        let moved =
            (self.high_watermark, self.log_start_offset) != (data.high_watermark, data.log_start_offset);
        let failed = data.error_code != 0;
        // After an error the partition is named again when it is over.
        self.high_watermark = if failed { -1 } else { data.high_watermark };
        self.log_start_offset = data.log_start_offset;
        let elsewhere = data.preferred_read_replica.0 >= 0;
        has_records || moved || failed || elsewhere || data.diverging_epoch.end_offset >= 0
    }
}

impl FetchSessions {
    /// What a request asks for, with or without a session.
    ///
    /// # Errors
    /// `FETCH_SESSION_ID_NOT_FOUND`, `INVALID_FETCH_SESSION_EPOCH`, `FETCH_SESSION_TOPIC_ID_ERROR`: the asker begins anew.
    pub(super) fn scope(
        &mut self,
        now: Timestamp,
        version: i16,
        request: &FetchRequest,
    ) -> Result<Scope, ResponseError> {
        let asked = || {
            let asked = request.topics.iter().flat_map(|topic| {
                topic.partitions.iter().map(|partition| Asked {
                    topic: topic.topic.clone(),
                    topic_id: topic.topic_id,
                    partition: partition.clone(),
                })
            });
            asked.collect::<Vec<_>>()
        };
        let id = request.session_id;
        if version < 7 || matches!(request.session_epoch, INITIAL_EPOCH | FINAL_EPOCH) {
            self.by_id.remove(&id);
            let wants_session = version >= 7 && request.session_epoch == INITIAL_EPOCH;
            return Ok(if wants_session { Scope::New(asked()) } else { Scope::Alone(asked()) });
        }
        let session = self.by_id.get_mut(&id).ok_or(ResponseError::FetchSessionIdNotFound)?;
        if session.epoch != request.session_epoch {
            return Err(ResponseError::InvalidFetchSessionEpoch);
        }
        if session.uses_topic_ids != (version >= 13) {
            return Err(ResponseError::FetchSessionTopicIdError);
        }
        session.update(asked(), &request.forgotten_topics_data);
        if session.partitions.is_empty() {
            self.by_id.remove(&id);
            return Ok(Scope::Alone(asked()));
        }
        session.last_used = now;
        session.epoch = next_epoch(session.epoch);
        Ok(Scope::Session { id, epoch: session.epoch })
    }

    /// The partitions of a scope, in the order in which they are read; `None` if its session is gone, or went on with
    /// another request.
    pub(super) fn asked<'a>(&'a self, scope: &'a Scope) -> Option<Vec<&'a Asked>> {
        match scope {
            Scope::Alone(asked) | Scope::New(asked) => Some(asked.iter().collect()),
            Scope::Session { id, epoch } => {
                let session = self.by_id.get(id).filter(|session| session.epoch == *epoch)?;
                Some(session.partitions.values().map(|cached| &cached.asked).collect())
            }
        }
    }

    /// Whether a session begins with this answer; its id is drawn by the caller.
    pub(super) fn open(
        &mut self,
        now: Timestamp,
        (slots, draw): (usize, impl FnMut() -> i32),
        (uses_topic_ids, of_follower): (bool, bool),
        answered: Vec<(Asked, &PartitionData)>,
    ) -> i32 {
        if answered.is_empty() || !self.has_room(now, slots, of_follower, answered.len()) {
            return 0;
        }
        let id = std::iter::repeat_with(draw).find(|id| *id > 0 && !self.by_id.contains_key(id));
        let id = id.expect("a draw without end finds a free id");
        let mut session = Session {
            epoch: next_epoch(INITIAL_EPOCH),
            uses_topic_ids,
            of_follower,
            created: now,
            last_used: now,
            places: BTreeMap::new(),
            partitions: BTreeMap::new(),
            next_place: 0,
        };
        for (asked, data) in answered {
            let mut cached = Cached { asked, high_watermark: -1, log_start_offset: -1 };
            cached.is_news(data);
            session.put(cached);
        }
        self.by_id.insert(id, session);
        id
    }

    /// Which of the answers of a session, in its order, must be sent.
    pub(super) fn news(&mut self, id: i32, answers: &[PartitionData]) -> Vec<bool> {
        let Some(session) = self.by_id.get_mut(&id) else { return vec![true; answers.len()] };
        let mut news = Vec::with_capacity(answers.len());
        let mut read = Vec::new();
        for ((&place, cached), data) in session.partitions.iter_mut().zip(answers) {
            let is_news = cached.is_news(data);
            if is_news && data.records.as_ref().is_some_and(|records| !records.is_empty()) {
                read.push(place);
            }
            news.push(is_news);
        }
        for place in read {
            let cached = session.partitions.remove(&place).expect("it was just read");
            session.places.remove(&cached.asked.place());
            session.put(cached);
        }
        news
    }

    /// Makes room for a session, if one may be evicted for it.
    fn has_room(&mut self, now: Timestamp, slots: usize, of_follower: bool, size: usize) -> bool {
        if self.by_id.len() < slots {
            return true;
        }
        let idle = self.by_id.iter().min_by_key(|(id, session)| (session.last_used, **id));
        let Some((&oldest, session)) = idle else { return false };
        if now.since(session.last_used) > EVICTION {
            self.by_id.remove(&oldest);
            return true;
        }
        // Followers come before clients, larger before smaller; but each has two minutes.
        let worth = |session: &Session| (session.of_follower, session.partitions.len());
        let had_its_time = |session: &&Session| now.since(session.created) > EVICTION;
        let evictable = self
            .by_id
            .iter()
            .filter(|(_, session)| had_its_time(session) || (of_follower && !session.of_follower));
        let least = evictable.min_by_key(|(id, session)| (worth(session), **id));
        match least {
            Some((&id, session)) if (of_follower, size) > worth(session) => self.by_id.remove(&id).is_some(),
            _ => false,
        }
    }
}

/// After the largest comes 1: 0 means a new session.
pub(super) fn next_epoch(epoch: i32) -> i32 {
    if epoch == i32::MAX { 1 } else { epoch + 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(id: i32, epoch: i32, topics: &[(u128, i32)]) -> FetchRequest {
        let topics = topics.iter().map(|&(topic, partition)| {
            kafka_protocol::messages::fetch_request::FetchTopic::default()
                .with_topic_id(Uuid::from_u128(topic))
                .with_partitions(vec![FetchPartition::default().with_partition(partition)])
        });
        FetchRequest::default().with_session_id(id).with_session_epoch(epoch).with_topics(topics.collect())
    }

    fn open(sessions: &mut FetchSessions, now: u64, slots: usize, size: usize, of_follower: bool) -> i32 {
        let data = PartitionData::default();
        let asked = |index| Asked {
            topic: TopicName::default(),
            topic_id: Uuid::nil(),
            partition: FetchPartition::default().with_partition(index),
        };
        let answered = (0..size as i32).map(|index| (asked(index), &data)).collect();
        let mut next = 0;
        let draw = || {
            next += 1;
            next
        };
        sessions.open(Timestamp::from_millis(now), (slots, draw), (true, of_follower), answered)
    }

    #[test]
    fn each_request_of_a_session_brings_the_next_epoch() {
        let (mut sessions, now) = (FetchSessions::default(), Timestamp::from_millis(0));
        let id = open(&mut sessions, 0, 10, 1, false);
        assert!(matches!(sessions.scope(now, 17, &request(id, 1, &[])), Ok(Scope::Session { epoch: 2, .. })));
        let again = sessions.scope(now, 17, &request(id, 1, &[])).unwrap_err();
        assert_eq!(again, ResponseError::InvalidFetchSessionEpoch);
        let unknown = sessions.scope(now, 17, &request(id + 1, 1, &[])).unwrap_err();
        assert_eq!(unknown, ResponseError::FetchSessionIdNotFound);
        let by_name = sessions.scope(now, 12, &request(id, 2, &[])).unwrap_err();
        assert_eq!(by_name, ResponseError::FetchSessionTopicIdError);
    }

    #[test]
    fn a_session_without_partitions_ends() {
        let (mut sessions, now) = (FetchSessions::default(), Timestamp::from_millis(0));
        let id = open(&mut sessions, 0, 10, 1, false);
        let forgotten = ForgottenTopic::default().with_topic_id(Uuid::nil()).with_partitions(vec![0]);
        let request = request(id, 1, &[]).with_forgotten_topics_data(vec![forgotten]);
        assert!(matches!(sessions.scope(now, 17, &request), Ok(Scope::Alone(asked)) if asked.is_empty()));
        assert!(sessions.by_id.is_empty());
    }

    #[test]
    fn only_news_is_told_and_what_was_read_goes_last() {
        let mut sessions = FetchSessions::default();
        let id = open(&mut sessions, 0, 10, 2, false);
        let quiet = PartitionData::default();
        let news = PartitionData::default().with_records(Some(bytes::Bytes::from_static(b"batch")));
        assert_eq!(sessions.news(id, &[news, quiet]), [true, false]);
        let scope = Scope::Session { id, epoch: 1 };
        let order: Vec<i32> =
            sessions.asked(&scope).unwrap().iter().map(|asked| asked.partition.partition).collect();
        assert_eq!(order, [1, 0]);
    }

    #[test]
    fn a_full_cache_gives_up_the_idle_first_and_then_the_small() {
        let mut sessions = FetchSessions::default();
        assert_ne!(open(&mut sessions, 0, 1, 1, false), 0);
        assert_eq!(open(&mut sessions, 1_000, 1, 5, false), 0, "it has two minutes");
        assert_ne!(open(&mut sessions, 1_000, 1, 1, true), 0, "a follower comes before a client");
        assert_eq!(open(&mut sessions, 1_000, 1, 9, true), 0);
        assert_ne!(open(&mut sessions, 200_000, 1, 1, false), 0, "it was idle");
    }
}
