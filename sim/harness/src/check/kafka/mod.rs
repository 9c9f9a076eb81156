//! What must be true of Kafka, from what its clients saw.

use crate::system::CheckWords;

/// The checks of Kafka, by the names that findings and `breaks` give them.
pub const CHECKS: &[CheckWords] = &[];
