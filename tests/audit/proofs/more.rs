//! The same for conditions, keys, records, events, bulk operations and pauses.

use super::Case;
use super::right::{
    absent, call, crash, failed, operation, own, right_events, sees, settle, success, working,
};
use crate::checker::{Evidence, id};
use crate::history::{
    Answer, Ask, Attempt, Bare, Bulk, How, Name, Operation, Pause, Recorded, Seen, Stand, Stream, Tiding,
    Time, Told,
};
use crate::receiver::Effect;

pub(super) const CASES: [Case; 27] = [
    (
        "nothing in conditions that are kept, and in a key that is known",
        |evidence| {
            let operations = &mut evidence.noted.operations;
            operations.push(conditional(if_match(1), 42, 43, Answer::Unmet(Some(Name::Success))));
            operations.push(conditional(if_unknown(), 44, 45, Answer::Unmet(Some(Name::Success))));
            operations.push(conditional(if_match(2), 46, 47, Answer::Seen { own: false, seen: success() }));
            operations.push(conditional(if_match(1), 6, 7, Answer::Unmet(None)));
            let launched = Answer::Seen { own: true, seen: working(11, 4) };
            operations.push(conditional(How { key: Some(1), ..if_match(10) }, 130, 140, launched));
            let failed = Seen { revision: 12, run: 4, ..failed() };
            operations.push(conditional(key(), 150, 160, Answer::Same(failed.clone())));
            evidence.calls.push(call(4, 1, Effect::Unclear, 141));
            settle(evidence, failed);
        },
        &[],
    ),
    (
        "a key that starts a second run",
        |evidence| {
            evidence.noted.operations.clear();
            evidence.calls.clear();
            let launched = |seen| Answer::Seen { own: true, seen };
            evidence.noted.operations.push(conditional(key(), 10, 20, launched(working(1, 1))));
            evidence.noted.operations.push(sees(Ask::Read, 30, 31, failed()));
            evidence.noted.operations.push(conditional(key(), 40, 50, launched(working(3, 2))));
        },
        &["one key has started the runs 1 and 2", "oracle"],
    ),
    (
        "a key that is not known, and yet refused",
        |evidence| evidence.noted.operations.push(conditional(key(), 42, 43, Answer::Same(success()))),
        &["oracle"],
    ),
    (
        "a condition that holds, and yet is refused",
        |evidence| {
            let unmet = Answer::Unmet(Some(Name::Success));
            evidence.noted.operations.push(conditional(if_match(2), 42, 43, unmet));
        },
        &["oracle"],
    ),
    (
        "a condition that does not hold, and is not looked at",
        |evidence| {
            let launched = Answer::Seen { own: true, seen: working(11, 4) };
            evidence.noted.operations.push(conditional(if_match(9), 130, 140, launched));
            let told = Answer::Seen { own: false, seen: success() };
            evidence.noted.operations.push(conditional(if_unknown(), 46, 47, told.clone()));
            evidence.noted.operations.push(conditional(if_match(1), 42, 43, told));
        },
        &["launched at another revision than 9", "and yet not refused", "told to be at revision 1", "oracle"],
    ),
    (
        "a refusal that has changed something",
        |evidence| {
            let unmet = Answer::Unmet(Some(Name::Failed));
            evidence.noted.operations.push(conditional(if_match(9), 130, 140, unmet));
            evidence.noted.operations.push(sees(Ask::Read, 150, 160, working(11, 4)));
        },
        &["oracle"],
    ),
    (
        "a lookup that is older than what was known",
        |evidence| {
            let seen = Seen { revision: 0, ..success() };
            evidence.noted.operations.push(operation(
                Ask::Read,
                130,
                131,
                Answer::Glimpsed { own: false, seen },
            ));
        },
        &["older than run 3, which was known", "oracle"],
    ),
    (
        "a line of a batch that started what another one had",
        |evidence| {
            let seen = Seen { revision: 0, ..working(0, 3) };
            evidence.noted.operations.push(operation(
                Ask::Launch,
                119,
                124,
                Answer::Glimpsed { own: true, seen },
            ));
        },
        &["run 3 was started by two requests", "oracle"],
    ),
    (
        "nothing in a record that is right",
        |evidence| record(evidence, 126, failed_3(), &[(3, 1, false)]),
        &[],
    ),
    (
        "an attempt that was left out",
        |evidence| record(evidence, 126, failed_3(), &[(2, 2, false), (3, 1, false)]),
        &["attempts that cannot be so"],
    ),
    (
        "an attempt behind a success",
        |evidence| record(evidence, 126, failed_3(), &[(2, 1, true), (3, 1, false)]),
        &["attempts that cannot be so"],
    ),
    (
        "an attempt that is lost",
        |evidence| {
            record(evidence, 126, failed_3(), &[(3, 1, false)]);
            record(evidence, 130, failed_3(), &[]);
        },
        &["attempts are lost"],
    ),
    (
        "an attempt that the receiver knows otherwise",
        |evidence| {
            record(
                evidence,
                113,
                Seen { revision: 6, run: 2, since: "t6".to_owned(), ..success() },
                &[(2, 1, true)],
            );
            evidence
                .calls
                .iter_mut()
                .filter(|call| call.run == 2)
                .for_each(|call| call.effect = Effect::Refused);
        },
        &["attempt 1 of run 2 succeeded, and did Some(Refused)"],
    ),
    (
        "a list of bare ids that misses one, and one that holds one twice",
        |evidence| {
            let list = |ids| Bare { name: Name::Success, began: 111, ended: 112, ids };
            evidence.noted.bare.push(list(Vec::new()));
            evidence.noted.bare.push(list(vec![id(2).to_string(), id(2).to_string()]));
        },
        &["missing in a list of bare ids", "twice in one list of bare ids"],
    ),
    ("nothing in events that are right", |evidence| evidence.noted.streams.push(right_events()), &[]),
    (
        "nothing in a gap that a crash explains",
        |evidence| {
            evidence.noted.crashes.push(crash(76, 79));
            let mut stream = right_events();
            stream.told[4] = Told { at: 80, what: Tiding::Gap { from: 5, to: 5 } };
            evidence.noted.streams.push(stream);
        },
        &[],
    ),
    (
        "a gap without a reason",
        |evidence| {
            let mut stream = right_events();
            stream.told[4] = Told { at: 80, what: Tiding::Gap { from: 5, to: 5 } };
            evidence.noted.streams.push(stream);
        },
        &["is told of a gap from 5 to 5 at 4"],
    ),
    (
        "an event that was missed",
        |evidence| {
            let mut stream = right_events();
            stream.told.remove(4);
            evidence.noted.streams.extend([stream, right_events()]);
        },
        &["has missed something of t-2: 6 tells", "was not told of 5"],
    ),
    (
        "an event that was told twice",
        |evidence| {
            let mut stream = right_events();
            stream.told.insert(5, stream.told[4].clone());
            evidence.noted.streams.push(stream);
        },
        &["was told of 5 after 5"],
    ),
    (
        "an event of something that never was",
        |evidence| {
            let mut stream = right_events();
            let Tiding::Event { seen, .. } = &mut stream.told[5].what else { return };
            seen.name = Name::Failed;
            evidence.noted.streams.extend([stream, right_events()]);
        },
        &["two contents of one revision", "events: two of number 6"],
    ),
    (
        "an event that nobody asked for",
        |evidence| evidence.noted.streams.push(Stream { handler: Some("hook"), ..right_events() }),
        &["did not ask for 1"],
    ),
    (
        "an end that was not told",
        |evidence| {
            let mut stream = right_events();
            stream.told.pop();
            evidence.noted.streams.push(stream);
        },
        &["was told of t-2 at last revision 9"],
    ),
    (
        "nothing in a bulk operation that has forgotten a failure",
        |evidence| {
            evidence.noted.bulks.push(bulk(Ask::Forget, 130, &[(true, 1, [1, 0, 0])]));
            evidence.noted.operations.push(absent(Ask::Read, 150, 160, false));
            evidence.noted.operations.push(own(Ask::Launch, 170, 180, working(12, 4)));
            evidence.calls.push(call(4, 1, Effect::Done, 181));
            settle(evidence, Seen { revision: 13, run: 4, ..success() });
        },
        &[],
    ),
    (
        "a bulk operation that runs a success",
        |evidence| {
            evidence.noted.bulks.push(bulk(Ask::Retry, 41, &[(true, 1, [1, 0, 0])]));
            evidence.noted.operations.push(sees(Ask::Read, 47, 48, working(3, 2)));
        },
        &["an illegal step", "oracle"],
    ),
    (
        "a bulk operation that counts wrongly, and one that goes on",
        |evidence| {
            let of = |stands: &[_]| bulk(Ask::Cancel, 41, stands);
            evidence.noted.bulks.push(of(&[(true, 2, [1, 0, 0])]));
            evidence
                .noted
                .bulks
                .push(Bulk { op: Some(2), ..of(&[(true, 1, [1, 0, 0]), (false, 1, [0, 0, 0])]) });
            evidence.noted.bulks.push(Bulk { op: Some(3), ..of(&[(false, 1, [0; 3]), (false, 2, [0; 3])]) });
            evidence.noted.bulks.push(of(&[]));
        },
        &[
            "has counted wrongly",
            "was over, and goes on",
            "matches otherwise",
            "two bulk operations of one number",
        ],
    ),
    (
        "nothing in a launch that waits until its handler is resumed",
        |evidence| evidence.noted.pauses.push(Pause { handler: "told", known: 119, until: 120 }),
        &[],
    ),
    (
        "a launch that does not wait although its handler is paused",
        |evidence| evidence.noted.pauses.push(Pause { handler: "told", known: 119, until: 125 }),
        &["run 3 was called while its handler was paused", "it does not wait while its handler is paused"],
    ),
];

fn conditional(how: How, began: Time, ended: Time, answer: Answer) -> Operation {
    Operation { how, ..operation(Ask::Launch, began, ended, answer) }
}

fn key() -> How {
    How { key: Some(1), ..How::default() }
}

fn if_match(revision: u64) -> How {
    How { if_match: Some(revision), ..How::default() }
}

fn if_unknown() -> How {
    How { if_unknown: true, ..How::default() }
}

/// As it is in the end.
fn failed_3() -> Seen {
    Seen { revision: 10, run: 3, since: "t10".to_owned(), ..failed() }
}

fn record(evidence: &mut Evidence, began: Time, seen: Seen, attempts: &[(u64, u64, bool)]) {
    let attempt = |(run, attempt, is_success): &(u64, u64, bool)| Attempt {
        run: *run,
        number: *attempt,
        error: (!is_success).then(|| ("timeout".to_owned(), true)),
    };
    let attempts = attempts.iter().map(attempt).collect();
    evidence.noted.recorded.push(Recorded { id: id(2), began, ended: began + 1, seen, attempts });
}

fn bulk(ask: Ask, began: Time, stands: &[(bool, u64, [u64; 3])]) -> Bulk {
    let stand = |(is_over, matched, counts): &(bool, u64, [u64; 3])| Stand {
        at: began + 5,
        is_over: *is_over,
        matched: *matched,
        counts: *counts,
    };
    let stands = stands.iter().map(stand).collect();
    Bulk { ask, prefix: "t-".to_owned(), began, answered: began + 1, op: Some(1), stands }
}
