//! The shell: loads a saga, hands it what happened, lets the logic do what comes out, saves it.

use std::fmt;
use std::sync::Arc;

use context::{Context, Timestamp};
use proto::{MessageId, SagaId};

use super::{Cancellation, Definition, Input, Instance, Output};
use crate::store::Json;
use crate::timer::Timer;
use crate::{HandlerError, Message, ReadTables, StoreError, Table, Tables, Unit};

const SAGAS: Table<SagaId, Instance, Json> = Table::new("kit.sagas");
/// By time, then saga.
const DEADLINES: Table<(Timestamp, SagaId), (), Json> = Table::new("kit.sagas.deadlines");

/// What a saga's steps mean: the service's part. Everything happens in the transaction that moves the saga.
pub trait Logic: Send + Sync + 'static {
    /// The steps.
    fn definition(&self) -> &Definition;

    /// Publishes the command of `step` with [`Unit::publish_for`], or does a step of the service's own.
    ///
    /// # Errors
    /// Only what keeps the whole transaction from happening; a refusal is an [`Answer`].
    fn command(&self, unit: &mut Unit<'_>, saga: &Saga<'_>, step: &str) -> Result<Answer, HandlerError>;

    /// Publishes the compensation of `step`. It may be repeated, and may concern something that never happened.
    ///
    /// # Errors
    /// As [`Logic::command`].
    fn compensate(&self, unit: &mut Unit<'_>, saga: &Saga<'_>, step: &str) -> Result<Answer, HandlerError>;

    /// The saga has reached its end, [`super::Status::Completed`] or [`super::Status::Compensated`].
    ///
    /// # Errors
    /// As [`Logic::command`].
    fn ended(&self, unit: &mut Unit<'_>, saga: &Saga<'_>) -> Result<(), HandlerError>;
}

/// A saga as its logic sees it.
#[derive(Clone, Copy, Debug)]
pub struct Saga<'a> {
    /// Its id.
    pub id: &'a SagaId,
    /// Its state.
    pub state: &'a Instance,
}

/// How a step answers to its command or compensation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A participant will answer by a message.
    Later,
    /// It is done, or undone: it was the service's own to do.
    Done,
    /// It is refused. To a compensation this is no answer: it is repeated at its deadline.
    Refused(String),
}

/// How a participant answered by a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The step is done.
    Succeeded,
    /// The step is refused; nothing was done. Why, for people.
    Refused(String),
    /// The step is undone.
    Compensated,
}

/// All sagas of a service.
pub struct Sagas<L> {
    logic: L,
}

impl<L: Logic> Sagas<L> {
    /// The sagas that `logic` knows, to be shared between handlers and [`crate::Service::timer`].
    pub fn new(logic: L) -> Arc<Sagas<L>> {
        Arc::new(Sagas { logic })
    }

    /// The service's part.
    pub fn logic(&self) -> &L {
        &self.logic
    }

    /// Begins a saga about `key`; false if there is one of this id.
    ///
    /// # Errors
    /// Those of the store and of the logic.
    pub fn start(&self, unit: &mut Unit<'_>, id: &SagaId, key: &str) -> Result<bool, HandlerError> {
        if SAGAS.get(unit.tables(), id)?.is_some() {
            return Ok(false);
        }
        let mut saga = Instance::new(self.logic.definition(), key, unit.now());
        saga.correlation_id = unit.correlation_id().map(|id| id.to_string());
        self.advance(unit, id, saga, Input::Start)?;
        Ok(true)
    }

    /// Hands a participant's answer to the saga and step that its headers name. A message without them is no answer to a
    /// saga: it is noted and ignored, as is one for a saga that is not there.
    ///
    /// # Errors
    /// Those of the store and of the logic.
    pub fn reply(&self, unit: &mut Unit<'_>, message: &Message, reply: Reply) -> Result<(), HandlerError> {
        let (Some(id), Some(step)) = (&message.saga_id, &message.step) else {
            unit.trouble(format_args!("saga: {message} names no saga and step"));
            return Ok(());
        };
        let Some(saga) = SAGAS.get(unit.tables(), id)? else {
            unit.trouble(format_args!("saga {id}: unknown, though {message} answers to it"));
            return Ok(());
        };
        let step = step.clone();
        let input = match reply {
            Reply::Succeeded => Input::Succeeded { step },
            Reply::Refused(detail) => Input::Refused { step, detail },
            Reply::Compensated => Input::Compensated { step },
        };
        self.advance(unit, id, saga, input)
    }

    /// Undoes a saga, if it still can be.
    ///
    /// # Errors
    /// Those of the store and of the logic.
    pub fn cancel(
        &self,
        unit: &mut Unit<'_>,
        id: &SagaId,
        detail: &str,
    ) -> Result<Cancellation, HandlerError> {
        let Some(saga) = SAGAS.get(unit.tables(), id)? else { return Ok(Cancellation::Unknown) };
        let cancellation = saga.cancellation(self.logic.definition());
        if cancellation == Cancellation::Begun {
            self.advance(unit, id, saga, Input::Cancel { detail: detail.to_owned() })?;
        }
        Ok(cancellation)
    }

    fn advance(
        &self,
        unit: &mut Unit<'_>,
        id: &SagaId,
        mut saga: Instance,
        input: Input,
    ) -> Result<(), HandlerError> {
        let definition = self.logic.definition();
        if !saga.fits(definition) {
            let cause = format!("saga {id} began as `{}`, this is `{}`", saga.definition, definition.name);
            return Err(StoreError::Corrupt { table: SAGAS.name().to_owned(), cause }.into());
        }
        let deadline_before = saga.deadline_ms;
        let now = unit.now();
        // A step of the service's own answers at once, and its answer is the next input.
        let mut inputs = vec![input];
        let mut out = Vec::new();
        while let Some(input) = inputs.pop() {
            unit.note(format_args!("saga {id}: {}", Told(&input)));
            saga.handle(definition, now, input, &mut out);
            for output in out.drain(..) {
                inputs.extend(self.perform(unit, id, &saga, output)?);
            }
        }
        if saga.deadline_ms != deadline_before {
            let key = |deadline: u64| (Timestamp::from_millis(deadline), id.clone());
            if let Some(deadline) = deadline_before {
                DEADLINES.delete(unit.tables(), &key(deadline))?;
            }
            if let Some(deadline) = saga.deadline_ms {
                DEADLINES.put(unit.tables(), &key(deadline), &())?;
            }
        }
        Ok(SAGAS.put(unit.tables(), id, &saga)?)
    }

    fn perform(
        &self,
        unit: &mut Unit<'_>,
        id: &SagaId,
        state: &Instance,
        output: Output,
    ) -> Result<Option<Input>, HandlerError> {
        let saga = Saga { id, state };
        let name = |step: usize| self.logic.definition().steps[step].name;
        let step = |step: usize| name(step).to_owned();
        match output {
            Output::Command { step: at, try_number } => {
                unit.note(format_args!("saga {id}: do {} (try {try_number})", name(at)));
                Ok(match self.logic.command(unit, &saga, name(at))? {
                    Answer::Later => None,
                    Answer::Done => Some(Input::Succeeded { step: step(at) }),
                    Answer::Refused(detail) => Some(Input::Refused { step: step(at), detail }),
                })
            }
            Output::Compensate { step: at, try_number } => {
                unit.note(format_args!("saga {id}: undo {} (try {try_number})", name(at)));
                Ok(match self.logic.compensate(unit, &saga, name(at))? {
                    Answer::Later => None,
                    Answer::Done => Some(Input::Compensated { step: step(at) }),
                    Answer::Refused(detail) => {
                        unit.trouble(format_args!("saga {id}: undoing {} was refused: {detail}", name(at)));
                        None
                    }
                })
            }
            Output::Ended => {
                unit.note(format_args!("saga {id}: {state}"));
                self.logic.ended(unit, &saga)?;
                Ok(None)
            }
            Output::Ignored(why) => {
                unit.note(format_args!("saga {id}: ignored, {why}"));
                Ok(None)
            }
        }
    }
}

/// The state of one saga.
///
/// # Errors
/// As [`Table::get`].
pub fn get(tables: &(impl ReadTables + ?Sized), id: &SagaId) -> Result<Option<Instance>, StoreError> {
    SAGAS.get(tables, id)
}

/// The states of all sagas, in the order of their ids.
///
/// # Errors
/// As [`Table::all`].
pub fn all(tables: &(impl ReadTables + ?Sized)) -> Result<Vec<(SagaId, Instance)>, StoreError> {
    SAGAS.all(tables)
}

/// How many sagas were started.
///
/// # Errors
/// As [`Table::count`].
pub fn started(tables: &(impl ReadTables + ?Sized)) -> Result<u64, StoreError> {
    SAGAS.count(tables)
}

/// How many sagas have not ended.
///
/// # Errors
/// As [`Table::count`].
pub fn open(tables: &(impl ReadTables + ?Sized)) -> Result<u64, StoreError> {
    // A saga has a deadline exactly until its end.
    DEADLINES.count(tables)
}

impl<L: Logic> Timer for Sagas<L> {
    fn name(&self) -> &'static str {
        self.logic.definition().name
    }

    fn next(&self, tables: &dyn ReadTables) -> Result<Option<Timestamp>, StoreError> {
        Ok(DEADLINES.first(tables)?.map(|((at, _), ())| at))
    }

    fn fire(&self, context: &Context, tables: &mut dyn Tables, now: Timestamp) -> Result<(), HandlerError> {
        let Some(((due, id), ())) = DEADLINES.first(tables)? else { return Ok(()) };
        if due > now {
            return Ok(());
        }
        let saga = SAGAS.get(tables, &id)?;
        let saga = saga.ok_or_else(|| StoreError::Corrupt {
            table: DEADLINES.name().to_owned(),
            cause: format!("the deadline of saga {id}, which is not there"),
        })?;
        let correlation_id = saga.correlation_id.as_deref().and_then(|text| MessageId::parse(text).ok());
        // A deadline passes once: it names the unit.
        let name = format!("saga/{id}/deadline/{}", due.as_millis());
        let mut unit = Unit::named(context, tables, name, correlation_id);
        self.advance(&mut unit, &id, saga, Input::Wake)
    }
}

impl<L: fmt::Debug> fmt::Debug for Sagas<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sagas").field("logic", &self.logic).finish()
    }
}

/// An input in words.
struct Told<'a>(&'a Input);

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Input::Start => f.write_str("starts"),
            Input::Succeeded { step } => write!(f, "{step} succeeded"),
            Input::Refused { step, detail } => write!(f, "{step} refused: {detail}"),
            Input::Compensated { step } => write!(f, "{step} undone"),
            Input::Wake => f.write_str("deadline"),
            Input::Cancel { detail } => write!(f, "cancelled: {detail}"),
        }
    }
}
