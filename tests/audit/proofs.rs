//! The checkers find what is wrong: histories made by hand, one at least for each rule, and one that is right.

mod more;
mod right;

use libtest_mimic::{Failed, Trial};

use self::right::{
    absent, call, crash, failed, listed, operation, own, right, sees, settle, success, unknown, walk, working,
};
use crate::checker::{Evidence, check};
use crate::history::{Answer, Ask, Listed, Name, Seen};
use crate::receiver::{Effect, Kind};

/// What makes a good history bad, and what is to be said of it.
type Case = (&'static str, fn(&mut Evidence), &'static [&'static str]);

const CASES: [Case; 24] = [
    ("nothing in a history that is right", |_| {}, &[]),
    (
        "nothing in writes without an answer that may have been done, or not",
        |evidence| {
            let operations = &mut evidence.noted.operations;
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
            evidence.noted.operations.push(own(Ask::Launch, 130, 140, working(11, 4)));
            evidence.noted.crashes.push(crash(150, 160));
            let failed =
                Seen { revision: 12, run: 4, error: Some(("interrupted".to_owned(), true)), ..failed() };
            evidence.noted.operations.push(sees(Ask::Read, 170, 180, failed.clone()));
            settle(evidence, failed);
        },
        &[],
    ),
    (
        "nothing in a launch that was waited for, and whose record was forgotten meanwhile",
        |evidence| {
            let operations = &mut evidence.noted.operations;
            operations.push(absent(Ask::LaunchAndWait, 130, 160, true));
            operations.push(absent(Ask::Forget, 145, 150, true));
            operations.push(own(Ask::Launch, 170, 180, working(14, 5)));
            let failed = Seen { revision: 15, run: 5, ..failed() };
            operations.push(sees(Ask::Read, 190, 195, failed.clone()));
            evidence.calls.extend([call(4, 1, Effect::Unclear, 135), call(5, 1, Effect::Unclear, 181)]);
            settle(evidence, failed);
        },
        &[],
    ),
    (
        "a launch that was waited for, and whose record is gone although nobody has forgotten it",
        |evidence| evidence.noted.operations.push(absent(Ask::LaunchAndWait, 130, 160, true)),
        &["oracle"],
    ),
    (
        "an acknowledged launch that is lost",
        |evidence| {
            evidence.noted.operations.push(own(Ask::Launch, 130, 140, working(11, 4)));
            evidence.noted.operations.push(absent(Ask::Read, 150, 160, false));
        },
        &["lost", "oracle"],
    ),
    (
        "an outcome that is undone",
        |evidence| {
            evidence.noted.operations.push(own(Ask::Launch, 130, 140, working(11, 4)));
            evidence.calls.push(call(4, 1, Effect::Done, 141));
            let after = Seen { revision: 12, run: 4, ..success() };
            evidence.noted.operations.push(sees(Ask::Read, 150, 160, after));
            evidence.noted.operations.push(sees(Ask::Read, 170, 180, working(11, 4)));
        },
        &["older than what was known", "oracle"],
    ),
    (
        "a revision that was given twice",
        |evidence| {
            evidence.noted.operations.push(own(Ask::Launch, 130, 140, working(11, 4)));
            let other = Seen { since: "another time".to_owned(), ..working(11, 4) };
            evidence.noted.operations.push(sees(Ask::Read, 150, 160, other));
        },
        &["two contents of one revision"],
    ),
    (
        "a success that runs again",
        |evidence| {
            evidence.noted.operations.push(sees(Ask::Read, 45, 46, success()));
            evidence.noted.operations.push(own(Ask::Launch, 47, 48, working(3, 2)));
        },
        &["an illegal step", "oracle"],
    ),
    (
        "a launch of one id that started twice",
        |evidence| {
            evidence.noted.operations.push(own(Ask::Launch, 130, 145, working(11, 4)));
            evidence.noted.operations.push(own(Ask::Launch, 132, 144, working(11, 4)));
        },
        &["was started by two requests", "oracle"],
    ),
    (
        "a success that turns into a failure",
        |evidence| {
            let failed = Seen { revision: 5, run: 1, ..failed() };
            evidence.noted.operations.push(sees(Ask::Read, 47, 48, failed));
        },
        &["an illegal step", "oracle"],
    ),
    (
        "a refusal that is not so",
        |evidence| {
            let refused = Answer::Refused(Some(Name::Failed));
            evidence.noted.operations.push(operation(Ask::Cancel, 45, 46, refused));
        },
        &["oracle"],
    ),
    (
        "a forget that was not kept",
        |evidence| {
            evidence.noted.operations.push(own(Ask::Launch, 130, 140, working(11, 4)));
            let failed = Seen { revision: 12, run: 4, ..failed() };
            evidence.noted.operations.push(sees(Ask::Read, 150, 160, failed.clone()));
            evidence.noted.operations.push(absent(Ask::Forget, 170, 180, true));
            evidence.noted.operations.push(sees(Ask::Read, 190, 200, failed));
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
            for operation in &mut evidence.noted.operations {
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
            evidence.noted.operations.push(own(Ask::Launch, 130, 140, working(11, 4)));
            evidence.calls.push(call(4, 1, Effect::Unclear, 145));
            let error = Some(("status".to_owned(), false));
            let failed = Seen { revision: 12, run: 4, error, ..failed() };
            evidence.noted.operations.push(sees(Ask::Read, 150, 160, failed));
        },
        &["not in doubt, and yet"],
    ),
    (
        "a list that misses one, and one that is late",
        |evidence| {
            evidence.noted.walks.push(walk(111, 112, Vec::new()));
            evidence.noted.walks.push(walk(111, 112, vec![listed(1), listed(2)]));
        },
        &["is missing in a list", "was known to have left"],
    ),
    (
        "a list that holds one twice",
        |evidence| evidence.noted.walks.push(walk(111, 112, vec![listed(2), listed(2)])),
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
    CASES.into_iter().chain(more::CASES).map(trial).collect()
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
