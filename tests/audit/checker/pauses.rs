//! A handler that is paused starts nothing.

use super::launches::own_runs;
use super::story::told;
use crate::history::{Answer, Name, Operation, Pause, Phase};
use crate::receiver::{Call, Kind};
use crate::shell;
use crate::workload::handler;

/// What is launched during a pause waits for its end.
pub(super) fn nothing_starts(pauses: &[Pause], operations: &[&Operation], calls: &[&Call]) -> Vec<String> {
    let mut wrong = Vec::new();
    for (launch, run) in own_runs(operations) {
        let is_during = |pause: &&Pause| {
            pause.handler == handler(&launch.id) && pause.known < launch.began && launch.began < pause.until
        };
        let Some(pause) = pauses.iter().find(is_during) else { continue };
        let is_early = |call: &&&Call| {
            // A command tells when it began too early.
            let late = if handler(&call.id) == "shell" { shell::EARLIER_MAX } else { 0 };
            call.kind == Kind::Run && call.run == run && call.began + late < pause.until
        };
        if calls.iter().any(|call| is_early(&call)) {
            wrong.push(format!("run {run} was called while its handler was paused"));
        }
        let is_waiting = match &launch.answer {
            Answer::Seen { seen, .. } | Answer::Glimpsed { seen, .. } => {
                seen.name == Name::Working && seen.phase == Some(Phase::Queued)
            }
            _ => true,
        };
        if !is_waiting && launch.ended < pause.until {
            wrong.push(format!("it does not wait while its handler is paused: {}", told(launch)));
        }
    }
    wrong
}
