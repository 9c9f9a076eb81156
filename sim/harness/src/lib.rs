//! Faults, workload, scenario files, checks, trace and runner, generic over the system under test.

pub mod scenario;
