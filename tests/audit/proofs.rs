//! The checkers find what is wrong: histories made by hand, one at least for each rule, and one that is right.

use libtest_mimic::{Failed, Trial};

use crate::checker::{Evidence, check, id};
use crate::history::{Answer, Ask, Crash, Listed, Name, Operation, Phase, Seen, Time, Walk};
use crate::receiver::{Call, Effect, Kind};

/// What makes a good history bad, and what is to be said of it.
type Case = (&'static str, fn(&mut Evidence), &'static [&'static str]);

const CASES: [Case; 22] = [
    ("nothing in a history that is right", |_| {}, &[]),
    (
        "nothing in writes without an answer that may have been done, or not",
        |evidence| {
            let operations = &mut evidence.operations;
            // The launch was done, the revoke was not.
            operations.extend([unknown(Ask::Launch, 130), unknown(Ask::Revoke, 200)]);
            evidence.calls.push(call(4, 1, Effect::Done, 150));
            operations.push(sees(Ask::Read, 210, 220, Seen { revision: 12, run: 4, ..success() }));
            settle(evidence, Seen { revision: 12, run: 4, ..success() });
        },
        &[],
    ),
    (
        "nothing in a run that a crash cut off",
        |evidence| {
            evidence.operations.push(own(Ask::Launch, 130, 140, working(11, 4)));
            evidence.crashes.push(crash(150, 160));
            let failed =
                Seen { revision: 12, run: 4, error: Some(("interrupted".to_owned(), true)), ..failed() };
            evidence.operations.push(sees(Ask::Read, 170, 180, failed.clone()));
            settle(evidence, failed);
        },
        &[],
    ),
    (
        "an acknowledged launch that is lost",
        |evidence| {
            evidence.operations.push(own(Ask::Launch, 130, 140, working(11, 4)));
            evidence.operations.push(absent(Ask::Read, 150, 160, false));
        },
        &["lost", "oracle"],
    ),
    (
        "an outcome that is undone",
        |evidence| {
            evidence.operations.push(own(Ask::Launch, 130, 140, working(11, 4)));
            evidence.calls.push(call(4, 1, Effect::Done, 141));
            let after = Seen { revision: 12, run: 4, ..success() };
            evidence.operations.push(sees(Ask::Read, 150, 160, after));
            evidence.operations.push(sees(Ask::Read, 170, 180, working(11, 4)));
        },
        &["older than what was known", "oracle"],
    ),
    (
        "a revision that was given twice",
        |evidence| {
            evidence.operations.push(own(Ask::Launch, 130, 140, working(11, 4)));
            let other = Seen { since: "another time".to_owned(), ..working(11, 4) };
            evidence.operations.push(sees(Ask::Read, 150, 160, other));
        },
        &["two contents of one revision"],
    ),
    (
        "a success that runs again",
        |evidence| {
            evidence.operations.push(sees(Ask::Read, 45, 46, success()));
            evidence.operations.push(own(Ask::Launch, 47, 48, working(3, 2)));
        },
        &["an illegal step", "oracle"],
    ),
    (
        "a launch of one id that started twice",
        |evidence| {
            evidence.operations.push(own(Ask::Launch, 130, 145, working(11, 4)));
            evidence.operations.push(own(Ask::Launch, 132, 144, working(11, 4)));
        },
        &["was started by two requests", "oracle"],
    ),
    (
        "a success that turns into a failure",
        |evidence| {
            let failed = Seen { revision: 5, run: 1, ..failed() };
            evidence.operations.push(sees(Ask::Read, 47, 48, failed));
        },
        &["an illegal step", "oracle"],
    ),
    (
        "a refusal that is not so",
        |evidence| {
            let refused = Answer::Refused(Some(Name::Failed));
            evidence.operations.push(operation(Ask::Cancel, 45, 46, refused));
        },
        &["oracle"],
    ),
    (
        "a forget that was not kept",
        |evidence| {
            evidence.operations.push(own(Ask::Launch, 130, 140, working(11, 4)));
            let failed = Seen { revision: 12, run: 4, ..failed() };
            evidence.operations.push(sees(Ask::Read, 150, 160, failed.clone()));
            evidence.operations.push(absent(Ask::Forget, 170, 180, true));
            evidence.operations.push(sees(Ask::Read, 190, 200, failed));
        },
        &["older than what was known", "oracle"],
    ),
    (
        "an attempt that was called twice",
        |evidence| evidence.calls.push(call(2, 1, Effect::Refused, 131)),
        &["was called twice"],
    ),
    (
        "a call after its success was known",
        |evidence| evidence.calls.push(call(1, 2, Effect::Done, 45)),
        &["called after its success was known"],
    ),
    (
        "two successes without a revoke",
        |evidence| {
            for operation in &mut evidence.operations {
                if operation.ask == Ask::Revoke {
                    operation.answer = Answer::Refused(None);
                }
            }
        },
        &["2 runs succeeded, with 0 revokes", "lost", "oracle"],
    ),
    (
        "two successes under one key",
        |evidence| evidence.calls.iter_mut().for_each(|call| "task_a".clone_into(&mut call.key)),
        &["two successes under one webhook-id"],
    ),
    (
        "a success that the receiver knows nothing of",
        |evidence| evidence.calls.retain(|call| call.run != 2 || call.kind != Kind::Run),
        &["a success without a call"],
    ),
    (
        "a doubt that is not told",
        |evidence| {
            evidence.operations.push(own(Ask::Launch, 130, 140, working(11, 4)));
            evidence.calls.push(call(4, 1, Effect::Unclear, 145));
            let error = Some(("status".to_owned(), false));
            let failed = Seen { revision: 12, run: 4, error, ..failed() };
            evidence.operations.push(sees(Ask::Read, 150, 160, failed));
        },
        &["not in doubt, and yet"],
    ),
    (
        "a list that misses one, and one that is late",
        |evidence| {
            evidence.walks.push(walk(111, 112, Vec::new()));
            evidence.walks.push(walk(111, 112, vec![listed(1), listed(2)]));
        },
        &["is missing in a list", "was known to have left"],
    ),
    (
        "a list that holds one twice",
        |evidence| evidence.walks.push(walk(111, 112, vec![listed(2), listed(2)])),
        &["twice in one list"],
    ),
    ("counts that disagree", |evidence| evidence.rest.counts = [0, 2, 0], &["the counts say"]),
    (
        "work without an end",
        |evidence| {
            let listed = Listed { name: Name::Working, ..listed(3) };
            evidence.rest.listed = vec![listed];
            evidence.rest.counts = [1, 0, 0];
        },
        &["at rest 1 are working", "at rest the record says"],
    ),
    (
        "an outcome that nobody was told of",
        |evidence| evidence.calls.retain(|call| call.kind != Kind::Notice),
        &["nobody was told of the outcome of run 3"],
    ),
];

pub(crate) fn trials() -> Vec<Trial> {
    let trial = |(name, spoil, told): Case| {
        Trial::test(format!("the_checkers_find: {name}"), move || prove(spoil, told))
    };
    CASES.into_iter().map(trial).collect()
}

fn prove(spoil: fn(&mut Evidence), told: &[&str]) -> Result<(), Failed> {
    let mut evidence = right();
    spoil(&mut evidence);
    let found = check(&evidence);
    let text = found.violations.join("\n");
    if found.judged != 1 {
        return Err(format!("the oracle has judged {} ids", found.judged).into());
    }
    if told.is_empty() && !found.violations.is_empty() {
        return Err(format!("a violation where there is none:\n{text}").into());
    }
    match told.iter().find(|told| !text.contains(**told)) {
        Some(missing) => Err(format!("no word of {missing:?}:\n{text}").into()),
        None => Ok(()),
    }
}

/// The id 2, whose handler is `told`: a success, revoked, a success again, revoked again, and a failure in doubt.
fn right() -> Evidence {
    let revoking = Seen { revision: 3, phase: Some(Phase::Revoking), ..success() };
    let again = Seen { revision: 6, run: 2, since: "t6".to_owned(), ..success() };
    let revoking_again = Seen { revision: 7, phase: Some(Phase::Revoking), ..again.clone() };
    let last = Seen { revision: 10, run: 3, since: "t10".to_owned(), ..failed() };
    let mut evidence = Evidence {
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
fn settle(evidence: &mut Evidence, seen: Seen) {
    evidence.calls.push(Call { kind: Kind::Notice, ..call(seen.run, 1, Effect::Done, 900) });
    let is_failed = u64::from(seen.name == Name::Failed);
    evidence.rest.counts = [0, 1 - is_failed, is_failed];
    evidence.rest.listed = vec![Listed { name: seen.name, since: seen.since.clone(), ..listed(seen.run) }];
    evidence.rest.records = [(id(2).to_string(), Some(seen.clone()))].into();
    evidence.operations.retain(|operation| operation.began < 1_000);
    evidence.operations.push(sees(Ask::Read, 1_000, 1_001, seen));
}

fn operation(ask: Ask, began: Time, ended: Time, answer: Answer) -> Operation {
    Operation { id: id(2), ask, began, ended, answer }
}

fn unknown(ask: Ask, began: Time) -> Operation {
    operation(ask, began, Time::MAX, Answer::Unknown)
}

fn own(ask: Ask, began: Time, ended: Time, seen: Seen) -> Operation {
    operation(ask, began, ended, Answer::Seen { own: true, seen })
}

fn sees(ask: Ask, began: Time, ended: Time, seen: Seen) -> Operation {
    operation(ask, began, ended, Answer::Seen { own: false, seen })
}

fn absent(ask: Ask, began: Time, ended: Time, own: bool) -> Operation {
    operation(ask, began, ended, Answer::Absent { own })
}

fn working(revision: u64, run: u64) -> Seen {
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
fn success() -> Seen {
    Seen { name: Name::Success, phase: None, attempt: 0, since: "t2".to_owned(), ..working(2, 1) }
}

fn failed() -> Seen {
    Seen { name: Name::Failed, error: Some(("timeout".to_owned(), true)), ..success() }
}

fn call(run: u64, attempt: u64, effect: Effect, began: Time) -> Call {
    Call { kind: Kind::Run, id: id(2), run, attempt, key: format!("task_{run}"), began, effect }
}

fn crash(began: Time, ended: Time) -> Crash {
    Crash { began, ended, is_recovered: true, what: "by hand".to_owned() }
}

fn listed(run: u64) -> Listed {
    let since = if run == 1 { "t2" } else { "t6" }.to_owned();
    Listed { id: id(2).to_string(), name: Name::Success, run, since }
}

fn walk(began: Time, ended: Time, listed: Vec<Listed>) -> Walk {
    Walk { name: Name::Success, began, ended, pages: 1, listed }
}
