//! Results for CI servers: one suite a scenario, one case a seed, and one more for what only shows over all seeds. A scenario
//! that was skipped is a suite with one case, which says why.
//!
//! `time` is simulated: the same results give the same bytes.

use std::fmt::Write as _;
use std::time::Duration;

use crate::{Finding, ScenarioResult, Skipped};

/// All scenarios of one `run`, as JUnit's XML.
pub fn results(results: &[ScenarioResult], skipped: &[Skipped]) -> String {
    let mut xml =
        String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"shakedown\">\n");
    for result in results {
        suite(&mut xml, result);
    }
    for skipped in skipped {
        left_out(&mut xml, skipped);
    }
    xml.push_str("</testsuites>\n");
    xml
}

fn suite(xml: &mut String, result: &ScenarioResult) {
    let broken =
        result.seeds.iter().filter(|seed| !seed.held()).count() + usize::from(!result.findings.is_empty());
    let simulated: Duration = result.seeds.iter().map(|seed| seed.simulated).sum();
    // Writing to a string cannot fail.
    let _ = writeln!(
        xml,
        "  <testsuite name=\"{}\" tests=\"{}\" failures=\"{broken}\" errors=\"{}\" time=\"{}\">",
        escape(&result.name),
        result.seeds.len() + result.failed.len() + 1,
        result.failed.len(),
        seconds(simulated),
    );
    case(xml, result, "over all seeds", Duration::ZERO, &result.findings, None);
    for seed in &result.seeds {
        let replay = result.replay_command(seed);
        case(xml, result, &format!("seed {}", seed.seed), seed.simulated, &seed.findings, Some(&replay));
    }
    for failed in &result.failed {
        let (class, seed, why) = (escape(&result.name), failed.seed, escape(&failed.why));
        let _ = writeln!(xml, "    <testcase classname=\"{class}\" name=\"seed {seed}\">");
        let replay = escape(&result.replay_command_of_failed(failed));
        let _ = writeln!(xml, "      <error message=\"{why}\">replay: {replay}</error>\n    </testcase>");
    }
    xml.push_str("  </testsuite>\n");
}

fn left_out(xml: &mut String, skipped: &Skipped) {
    let (name, why) = (escape(&skipped.name), escape(&skipped.why));
    let _ = writeln!(
        xml,
        "  <testsuite name=\"{name}\" tests=\"1\" failures=\"0\" errors=\"0\" skipped=\"1\" time=\"0.000\">\n    \
         <testcase classname=\"{name}\" name=\"over all seeds\" time=\"0.000\">\n      \
         <skipped message=\"{why}\"/>\n    </testcase>\n  </testsuite>"
    );
}

fn case(
    xml: &mut String,
    result: &ScenarioResult,
    name: &str,
    simulated: Duration,
    findings: &[Finding],
    replay: Option<&str>,
) {
    let (class, time) = (escape(&result.name), seconds(simulated));
    let _ = write!(xml, "    <testcase classname=\"{class}\" name=\"{name}\" time=\"{time}\"");
    let Some(first) = findings.first() else {
        xml.push_str("/>\n");
        return;
    };
    let message = escape(&format!("{}: {}", first.check, first.says));
    let _ = write!(xml, ">\n      <failure type=\"{}\" message=\"{message}\">", escape(&first.check));
    let _ = writeln!(xml, "claim: {}", escape(&result.claim));
    for finding in findings {
        let _ = writeln!(xml, "{}: {}", escape(&finding.check), escape(&finding.says));
        for evidence in &finding.evidence {
            let at = evidence.at.map_or_else(|| "at the end".to_owned(), |at| format!("{} s", seconds(at)));
            let place = evidence.place.as_ref().map(|place| format!("{place}  ")).unwrap_or_default();
            let _ = writeln!(xml, "  {at}  {}{}", escape(&place), escape(&evidence.what));
        }
    }
    if let Some(replay) = replay {
        let _ = writeln!(xml, "replay: {}", escape(replay));
    }
    xml.push_str("</failure>\n    </testcase>\n");
}

fn seconds(span: Duration) -> String {
    format!("{}.{:03}", span.as_secs(), span.subsec_millis())
}

/// XML's five, and the control characters that XML 1.0 cannot hold at all.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&apos;"),
            '\n' | '\t' => escaped.push(character),
            control if control.is_control() => escaped.push('\u{fffd}'),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::escape;

    #[test]
    fn what_xml_cannot_hold_is_replaced() {
        assert_eq!(escape("a < b & \"c\" \u{1}"), "a &lt; b &amp; &quot;c&quot; \u{fffd}");
    }
}
