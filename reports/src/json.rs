//! Results for programs. Times are milliseconds of the run's time, rates parts per million, hashes hexadecimal text, or null
//! where a seed does not give the same run again.

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    Durations, Evidence, FailedSeed, FaultReport, Finding, FindingKind, Sagas, ScenarioResult, SeedResult,
    Skipped,
};

/// All scenarios of one `run`. Whether a claim held is said of those that ran.
pub fn results(results: &[ScenarioResult], skipped: &[Skipped]) -> Value {
    json!({
        "held": results.iter().all(ScenarioResult::held),
        "scenarios": results.iter().map(scenario).collect::<Vec<_>>(),
        "skipped": skipped.iter().map(left_out).collect::<Vec<_>>(),
    })
}

fn left_out(skipped: &Skipped) -> Value {
    json!({
        "scenario": skipped.name,
        "file": skipped.file.display().to_string(),
        "claim": skipped.claim,
        "why": skipped.why,
    })
}

fn scenario(result: &ScenarioResult) -> Value {
    json!({
        "scenario": result.name,
        "file": result.file.display().to_string(),
        "claim": result.claim,
        "held": result.held(),
        "sagas": sagas(&result.sagas()),
        "saga_duration": durations(&result.saga_durations()),
        "order_latency": durations(&result.order_latencies()),
        "findings": result.findings.iter().map(finding).collect::<Vec<_>>(),
        "seeds": result.seeds.iter().map(|run| seed(result, run)).collect::<Vec<_>>(),
        "failed": result.failed.iter().map(|seed| failed(result, seed)).collect::<Vec<_>>(),
    })
}

/// One run; the `result.json` of a broken seed.
pub fn seed(result: &ScenarioResult, run: &SeedResult) -> Value {
    let hop = |hop: &crate::Hop| json!({ "hop": hop.name, "latency": durations(&hop.latencies) });
    json!({
        "scenario": run.scenario,
        "claim": result.claim,
        "seed": run.seed,
        "engine": run.engine,
        "held": run.held(),
        "hash": run.hash.map(|_| run.hash_text()),
        "events": run.events,
        "simulated_ms": millis(run.simulated),
        "recovered_in_ms": run.recovered_in.map(millis),
        "sagas": sagas(&run.sagas),
        "saga_duration": durations(&run.saga_durations),
        "order_latency": durations(&run.order_latencies),
        "hops": run.hops.iter().map(hop).collect::<Vec<_>>(),
        "faults": run.faults.iter().map(fault).collect::<Vec<_>>(),
        "findings": run.findings.iter().map(finding).collect::<Vec<_>>(),
        "replay": result.replay_command(run),
    })
}

fn failed(result: &ScenarioResult, failed: &FailedSeed) -> Value {
    json!({
        "seed": failed.seed,
        "engine": failed.engine,
        "why": failed.why,
        "replay": result.replay_command_of_failed(failed),
    })
}

fn sagas(sagas: &Sagas) -> Value {
    json!({
        "started": sagas.started,
        "completed": sagas.completed,
        "compensated": sagas.compensated,
        "stuck": sagas.stuck,
        "success_rate_ppm": sagas.success_rate_ppm(),
    })
}

fn durations(durations: &Durations) -> Value {
    let percentile = |percent| durations.percentile(percent).map(millis);
    json!({
        "count": durations.count(),
        "mean_ms": durations.mean().map(millis),
        "p50_ms": percentile(50),
        "p95_ms": percentile(95),
        "p99_ms": percentile(99),
        "longest_ms": durations.longest().map(millis),
        "shortest_ms": durations.shortest().map(millis),
    })
}

fn fault(fault: &FaultReport) -> Value {
    let active = fault.active.iter().map(|(from, to)| json!([millis(*from), millis(*to)]));
    json!({
        "line": fault.line,
        "fault": fault.what,
        "active_ms": active.collect::<Vec<_>>(),
        "effects": fault.effects,
        "inert": fault.inert(),
    })
}

fn finding(finding: &Finding) -> Value {
    json!({
        "kind": kind(finding.kind),
        "check": finding.check,
        "says": finding.says,
        "evidence": finding.evidence.iter().map(evidence).collect::<Vec<_>>(),
    })
}

fn kind(kind: FindingKind) -> &'static str {
    match kind {
        FindingKind::Safety => "safety",
        FindingKind::NoProgress => "no_progress",
        FindingKind::Missed => "missed",
    }
}

fn evidence(evidence: &Evidence) -> Value {
    json!({
        "at_ms": evidence.at.map(millis),
        "event": evidence.event,
        "place": evidence.place,
        "what": evidence.what,
    })
}

fn millis(span: Duration) -> f64 {
    span.as_secs_f64() * 1_000.0
}
