//! A history that is right, and what it is made of.

use crate::checker::{Evidence, id};
use crate::history::{
    Answer, Ask, Crash, How, Listed, Name, Noted, Operation, Phase, Seen, Stream, Tiding, Time, Told, Walk,
};
use crate::receiver::{Call, Effect, Kind};

/// The id 2, whose handler is `told`: a success, revoked, a success again, revoked again, and a failure in doubt.
pub(super) fn right() -> Evidence {
    let revoking = Seen { revision: 3, phase: Some(Phase::Revoking), ..success() };
    let again = Seen { revision: 6, run: 2, since: "t6".to_owned(), ..success() };
    let revoking_again = Seen { revision: 7, phase: Some(Phase::Revoking), ..again.clone() };
    let last = Seen { revision: 10, run: 3, since: "t10".to_owned(), ..failed() };
    let noted = Noted {
        operations: vec![
            absent(Ask::Read, 0, 5, false),
            own(Ask::Launch, 10, 20, working(1, 1)),
            operation(Ask::Retry, 12, 22, Answer::Refused(Some(Name::Working))),
            sees(Ask::Launch, 21, 23, working(1, 1)),
            sees(Ask::Read, 30, 40, success()),
            own(Ask::Revoke, 50, 60, revoking),
            absent(Ask::Read, 70, 75, false),
            own(Ask::LaunchAndWait, 80, 110, again.clone()),
            sees(Ask::Read, 90, 95, working(5, 2)),
            sees(Ask::Read, 113, 114, again),
            own(Ask::Revoke, 115, 118, revoking_again),
            own(Ask::Launch, 120, 123, working(9, 3)),
            sees(Ask::Read, 126, 128, last.clone()),
        ],
        ..Noted::default()
    };
    let mut evidence = Evidence {
        noted,
        calls: vec![
            call(1, 1, Effect::Done, 25),
            call(2, 1, Effect::Done, 91),
            call(3, 1, Effect::Unclear, 124),
        ],
        ..Evidence::default()
    };
    settle(&mut evidence, last);
    evidence
}

/// This is how it stands at rest.
pub(super) fn settle(evidence: &mut Evidence, seen: Seen) {
    evidence.calls.push(Call { kind: Kind::Notice, ..call(seen.run, 1, Effect::Done, 900) });
    let is_failed = u64::from(seen.name == Name::Failed);
    evidence.rest.counts = [0, 1 - is_failed, is_failed];
    evidence.rest.listed = vec![Listed { name: seen.name, since: seen.since.clone(), ..listed(seen.run) }];
    evidence.rest.records = [(id(2).to_string(), Some(seen.clone()))].into();
    evidence.noted.operations.retain(|operation| operation.began < 1_000);
    evidence.noted.operations.push(sees(Ask::Read, 1_000, 1_001, seen));
}

pub(super) fn operation(ask: Ask, began: Time, ended: Time, answer: Answer) -> Operation {
    Operation { id: id(2), ask, how: How::default(), began, ended, answer }
}

pub(super) fn unknown(ask: Ask, began: Time) -> Operation {
    operation(ask, began, Time::MAX, Answer::Unknown)
}

pub(super) fn own(ask: Ask, began: Time, ended: Time, seen: Seen) -> Operation {
    operation(ask, began, ended, Answer::Seen { own: true, seen })
}

pub(super) fn sees(ask: Ask, began: Time, ended: Time, seen: Seen) -> Operation {
    operation(ask, began, ended, Answer::Seen { own: false, seen })
}

pub(super) fn absent(ask: Ask, began: Time, ended: Time, own: bool) -> Operation {
    operation(ask, began, ended, Answer::Absent { own })
}

pub(super) fn working(revision: u64, run: u64) -> Seen {
    Seen {
        revision,
        run,
        name: Name::Working,
        phase: Some(Phase::Running),
        attempt: 1,
        since: format!("t{revision}"),
        error: None,
        has_revoke_error: false,
    }
}

/// Of the first run.
pub(super) fn success() -> Seen {
    Seen { name: Name::Success, phase: None, attempt: 0, since: "t2".to_owned(), ..working(2, 1) }
}

pub(super) fn failed() -> Seen {
    Seen { name: Name::Failed, error: Some(("timeout".to_owned(), true)), ..success() }
}

pub(super) fn call(run: u64, attempt: u64, effect: Effect, began: Time) -> Call {
    Call { kind: Kind::Run, id: id(2), run, attempt, key: format!("task_{run}"), began, effect }
}

pub(super) fn crash(began: Time, ended: Time) -> Crash {
    Crash { began, ended, is_recovered: true, what: "by hand".to_owned() }
}

pub(super) fn listed(run: u64) -> Listed {
    let since = if run == 1 { "t2" } else { "t6" }.to_owned();
    Listed { id: id(2).to_string(), name: Name::Success, run, since }
}

pub(super) fn walk(began: Time, ended: Time, listed: Vec<Listed>) -> Walk {
    Walk { name: Name::Success, began, ended, pages: 1, listed }
}

/// What a reader is told of it.
pub(super) fn right_events() -> Stream {
    let absent = |revision, run, since: &str| Seen {
        name: Name::NotFound,
        phase: None,
        attempt: 0,
        since: since.to_owned(),
        ..working(revision, run)
    };
    let revoking = Seen { revision: 3, phase: Some(Phase::Revoking), ..success() };
    let again = Seen { revision: 6, run: 2, since: "t6".to_owned(), ..success() };
    let revoking_again = Seen { revision: 7, phase: Some(Phase::Revoking), ..again.clone() };
    let last = Seen { revision: 10, run: 3, since: "t10".to_owned(), ..failed() };
    let all = [
        (20, working(1, 1)),
        (30, success()),
        (60, revoking),
        (75, absent(4, 1, "t4")),
        (85, working(5, 2)),
        (110, again),
        (118, revoking_again),
        (119, absent(8, 2, "t8")),
        (122, working(9, 3)),
        (126, last),
    ];
    let told = all
        .into_iter()
        .map(|(at, seen)| Told { at, what: Tiding::Event { seq: seen.revision, id: id(2), seen } });
    Stream { told: told.collect(), is_whole: true, ..Stream::default() }
}
