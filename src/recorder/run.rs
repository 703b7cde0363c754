//! One run: from its claim over its attempts to its settled outcome. Between attempts it lives in its lane.

use std::any::Any;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tracing::field::display;

use super::endings::Ending;
use super::lane::{Lane, Next, Place};
use super::tally::{HandlerTally, LaunchResult};
use super::{Inner, Launch};
use crate::pauses::Pauses;
use crate::store::{Claim, Claimed, Moved, StoreError, Unsettled};
use crate::sync::time::{Instant, sleep, sleep_until};
use crate::task::{
    ANSWER_BYTES_KEPT, Attempt, Change, ErrorKind, Failure, Outcome, Output, Refusal, Start, Task, TaskId,
};

/// How long a write that failed waits until it is tried again, at first and at most.
pub(super) const PAUSES: Pauses = Pauses::new(Duration::from_millis(100), Duration::from_secs(2));

/// What a launch came to, said as soon as it is durable.
type Word = Result<Launch, StoreError>;

/// Claims the id, says so, and runs `work` once.
pub(super) async fn run_once<W, F>(
    inner: Arc<Inner>,
    id: TaskId,
    start: Start,
    work: W,
    first_word: oneshot::Sender<Word>,
) where
    W: FnOnce(Arc<Task>, u32, CancellationToken) -> F,
    F: Future<Output = Outcome>,
{
    let (told, claim) = inner.claim(&id, start).await;
    say(first_word, told);
    let Some(claim) = claim else { return };
    let task = Arc::clone(claim.task());
    let (attempt, output, _) = inner.attempt(&task, &inner.tally.of(&task.handler), work).await;
    inner.settle(claim, attempt, output).await;
}

/// Claims the id, says so, and runs it in its lane: now, or when it is its turn.
pub(super) async fn run_in_lane(
    inner: Arc<Inner>,
    lane: Arc<Lane>,
    mut place: Place,
    id: TaskId,
    start: Start,
    first_word: oneshot::Sender<Word>,
) {
    let (told, claim) = inner.claim(&id, start).await;
    let Some(claim) = claim else {
        // First: who is told may launch the next one at once, and finds the place free.
        drop(place);
        return say(first_word, told);
    };
    let task = Arc::clone(claim.task());
    if place.is_queued {
        place.fill(claim);
        inner.leave_if_canceled(&lane, &task).await;
        say(first_word, told);
    } else {
        say(first_word, told);
        place.used();
        // Boxed, because most of the future is this, and what is spawned is moved several times.
        Box::pin(attempt_in_lane(&inner, &lane, claim, task)).await;
    }
}

/// Starts the tasks of a lane when it is their turn, until the recorder stops.
pub(super) async fn dispatch(inner: Arc<Inner>, lane: Arc<Lane>) {
    while !inner.draining.is_cancelled() {
        let wait_until = match lane.next() {
            Next::Start(place, claim) => {
                inner.runs.spawn(begin(Arc::clone(&inner), Arc::clone(&lane), place, claim));
                continue;
            }
            Next::Abandon(claims) => {
                join_all(claims.into_iter().map(|claim| inner.abandon(claim))).await;
                continue;
            }
            Next::Wait(until) => until,
        };
        let due = async {
            match wait_until {
                Some(instant) => sleep_until(instant).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = lane.woken() => {}
            () = due => {}
            () = inner.draining.cancelled() => {}
        }
    }
}

/// Begins an attempt of a task that has waited.
async fn begin(inner: Arc<Inner>, lane: Arc<Lane>, mut place: Place, claim: Claim) {
    let waiting = Arc::clone(claim.task());
    // Durable first: after a crash nobody may take an attempt for one that had not begun.
    match inner.persist(&waiting, Write::Change(Change::Begin { run: waiting.run })).await {
        Some(Moved::Done(task)) => attempt_in_lane(&inner, &lane, claim, task).await,
        // It was canceled while it waited, and is settled.
        Some(Moved::Refused(_)) => place.unused(),
        None => {}
    }
}

async fn attempt_in_lane(inner: &Arc<Inner>, lane: &Arc<Lane>, claim: Claim, task: Arc<Task>) {
    // Both as they are at that moment: a reload may come in between, and may take the handler away.
    let Some(spec) = lane.spec() else { return inner.abandon(claim).await };
    let work = |task, number, ending| (spec.work)(task, number, ending);
    let (attempt, output, retry) = inner.attempt(&task, &lane.tally, work).await;
    let spec = lane.spec();
    let pause = match (retry, spec.as_ref().map(|spec| &spec.policy.retry)) {
        (Retry::Possible { asked, is_in_doubt }, Some(policy)) if attempt.attempt < policy.attempts => {
            let is_allowed = policy.in_doubt || !is_in_doubt;
            is_allowed.then(|| policy.pause(attempt.attempt, asked, fastrand::f64()))
        }
        (Retry::Possible { .. } | Retry::Never, _) => None,
    };
    let Some(pause) = pause else { return inner.settle(claim, attempt, output).await };

    let next_attempt_at = Timestamp::now() + SignedDuration::try_from(pause).unwrap_or(SignedDuration::MAX);
    let due = Instant::now() + pause;
    let change = Change::BackOff { run: task.run, attempt: attempt.clone(), next_attempt_at };
    match inner.persist(&task, Write::Change(change)).await {
        Some(Moved::Done(_)) => {
            lane.back_off(claim, due);
            inner.leave_if_canceled(lane, &task).await;
        }
        Some(Moved::Refused(refused)) if refused.reason == Refusal::Canceling => {
            inner.settle(claim, not_tried_again(attempt), output).await;
        }
        Some(refused @ Moved::Refused(_)) => inner.note(&refused),
        None => {}
    }
}

/// Whether another attempt may follow, as far as the attempt itself tells.
enum Retry {
    Never,
    Possible { asked: Option<Duration>, is_in_doubt: bool },
}

/// What has to be written, sooner or later.
pub(super) enum Write {
    Change(Change),
    Settle(Claim, Attempt, Option<Output>),
}

impl Inner {
    /// Claims. Returns the first word, and the claim if there is one.
    async fn claim(&self, id: &TaskId, start: Start) -> (Word, Option<Claim>) {
        match self.store.claim(id, start).await {
            Ok(Claimed::Started(claim)) => {
                self.tally.count(LaunchResult::Started);
                (Ok(Launch::Started(Arc::clone(claim.task()))), Some(claim))
            }
            Ok(Claimed::Refused(refused)) => {
                self.tally.count(refused.reason);
                (Ok(Launch::Refused(refused)), None)
            }
            Err(error) => (Err(error), None),
        }
    }

    /// A cancel that came before the task waited in the lane has found nothing there to take out.
    async fn leave_if_canceled(&self, lane: &Lane, waiting: &Task) {
        // Where the store cannot tell, it leaves when it is its turn.
        let Ok(now) = self.store.get(&waiting.id).await else { return };
        if !now.is_some_and(|now| now.is_working() && now.run == waiting.run) {
            lane.remove(waiting.entered);
        }
    }

    /// What tells an attempt to end, also one that begins when all have been told.
    pub(super) fn ending(&self, task: &Task) -> Ending {
        let ending = self.endings.enter(task);
        if self.aborting.is_cancelled() {
            ending.token().cancel();
        }
        ending
    }

    /// One attempt. Never panics, and ends soon after it was told to.
    async fn attempt<W, F>(
        &self,
        task: &Arc<Task>,
        tally: &HandlerTally,
        work: W,
    ) -> (Attempt, Option<Output>, Retry)
    where
        W: FnOnce(Arc<Task>, u32, CancellationToken) -> F,
        F: Future<Output = Outcome>,
    {
        let number = task.attempt().unwrap_or(1);
        let (started, begun) = (Timestamp::now(), std::time::Instant::now());
        self.tally.in_flight.fetch_add(1, Ordering::Relaxed);
        let ending = self.ending(task);
        let work = async { work(Arc::clone(task), number, ending.token()).await };
        let outcome = AssertUnwindSafe(work).catch_unwind().await.unwrap_or_else(|panic| {
            self.tally.panics.fetch_add(1, Ordering::Relaxed);
            let message = format!("the handler panicked: {}", text_of(panic.as_ref()));
            let trace_id = task.trace_id().map(display);
            tracing::error!(task.id = %task.id, run = task.run, trace.id = trace_id, message, "run panicked");
            Outcome::failed(Failure::new(ErrorKind::Panic, message))
        });
        let was_told = ending.token().is_cancelled();
        drop(ending);

        let retry = if outcome.may_be_retried(true) && !was_told {
            let is_in_doubt = !outcome.may_be_retried(false);
            Retry::Possible { asked: outcome.retry_after, is_in_doubt }
        } else {
            Retry::Never
        };
        let Outcome { code, output, result, .. } = outcome;
        let ended = Timestamp::now();
        let failure = result.err();
        tracing::debug!(
            task.id = %task.id,
            run = task.run,
            trace.id = task.trace_id().map(display),
            attempt = number,
            error.kind = failure.as_ref().map(|failure| failure.kind.as_str()),
            "attempt ended"
        );
        let failed = output.as_ref().filter(|_| failure.is_some());
        let answer = failed.and_then(|output| output.beginning(ANSWER_BYTES_KEPT));
        let attempt = Attempt { run: task.run, attempt: number, started, ended, code, failure, answer };
        let attempt = match was_told {
            true if self.aborting.is_cancelled() => shut_down(attempt),
            true => canceled(attempt),
            false => attempt,
        };
        self.tally.in_flight.fetch_sub(1, Ordering::Relaxed);
        tally.count_attempt(attempt.failure.as_ref(), begun.elapsed());
        self.tell_attempt(task, &attempt);
        (attempt, output, retry)
    }

    /// Writes the outcome, as often as it takes, and tells those who wait.
    pub(super) async fn settle(&self, claim: Claim, attempt: Attempt, output: Option<Output>) {
        let task = Arc::clone(claim.task());
        let is_notice_due = self.wants_notice(&task.handler, attempt.failure.is_some());
        let settle = Write::Settle(claim.with_notice(is_notice_due), attempt, output);
        match self.persist(&task, settle).await {
            Some(Moved::Done(settled)) => {
                self.tally.count_doubt(&settled);
                self.tell_run(&task, &settled);
                self.enqueue_notice(&settled);
            }
            Some(refused @ Moved::Refused(_)) => self.note(&refused),
            None => {}
        }
        // A cancel that came between the end of the attempt and this has told nobody.
        self.endings.forget(&task);
        self.waiters.notify(&task.id);
    }

    /// Writes until it is written. None where the store or the process ends first.
    pub(super) async fn persist(&self, task: &Task, write: Write) -> Option<Moved> {
        let id = &task.id;
        let (mut write, mut error) = match self.write(id, write).await {
            Ok(moved) => return Some(moved),
            Err(left) => left,
        };
        self.tally.unsettled.fetch_add(1, Ordering::Relaxed);
        let (run, trace_id) = (task.run, task.trace_id().map(display));
        tracing::warn!(task.id = %id, run, trace.id = trace_id, %error, "outcome not recorded yet, will try again");
        let mut pauses = PAUSES;
        let done = loop {
            let is_final = matches!(error, StoreError::Dead(_) | StoreError::Closed);
            if is_final || self.giving_up.is_cancelled() {
                tracing::error!(task.id = %id, run, trace.id = trace_id, %error, "outcome lost, the next start finds the run unsettled");
                break None;
            }
            tokio::select! {
                () = sleep(pauses.take()) => {}
                () = self.giving_up.cancelled() => {}
            }
            match self.write(id, write).await {
                Ok(moved) => break Some(moved),
                Err(left) => (write, error) = left,
            }
        };
        self.tally.unsettled.fetch_sub(1, Ordering::Relaxed);
        done
    }

    /// Gives back what could not be written.
    async fn write(&self, id: &TaskId, write: Write) -> Result<Moved, (Write, StoreError)> {
        match write {
            Write::Change(change) => {
                let moved = self.store.change(id, change.clone()).await;
                moved.map_err(|error| (Write::Change(change), error))
            }
            Write::Settle(claim, attempt, output) => {
                self.store.settle(claim, attempt, output).await.map_err(|unsettled| {
                    let Unsettled { claim, attempt, output, error } = *unsettled;
                    (Write::Settle(claim, attempt, output), error)
                })
            }
        }
    }

    fn note(&self, settled: &Moved) {
        if let Moved::Refused(refused) = settled {
            self.tally.stale.fetch_add(1, Ordering::Relaxed);
            let task = refused.task.as_deref();
            let (id, run) = (task.map(|task| task.id.as_str()), task.map(|task| task.run));
            let trace_id = task.and_then(Task::trace_id).map(display);
            tracing::warn!(task.id = id, run, trace.id = trace_id, reason = %refused.reason, "a late outcome was refused");
        }
    }
}

/// Says the first word. Where nobody waits for it any more, the run goes on all the same.
fn say(first_word: oneshot::Sender<Word>, word: Word) {
    let _ = first_word.send(word);
}

/// The attempt of a run that a caller has canceled. One that succeeded all the same has succeeded.
fn canceled(attempt: Attempt) -> Attempt {
    told(attempt, ErrorKind::Canceled, "a caller canceled the run")
}

/// The attempt of a run that the end of the service cut off.
fn shut_down(attempt: Attempt) -> Attempt {
    told(attempt, ErrorKind::Shutdown, "the service stopped before the run ended")
}

/// The attempt of a run that a caller has canceled before its next one.
fn not_tried_again(mut attempt: Attempt) -> Attempt {
    if let Some(failure) = attempt.failure.as_mut() {
        failure.kind = ErrorKind::Canceled;
        failure.message = format!("a caller canceled the run after an attempt: {}", failure.message);
    }
    attempt
}

/// What happened to it otherwise, a panic for example, stays what it is.
fn told(mut attempt: Attempt, kind: ErrorKind, message: &str) -> Attempt {
    if let Some(failure) = attempt.failure.as_mut().filter(|failure| failure.kind == ErrorKind::Canceled) {
        failure.kind = kind;
        failure.message = format!("{message}: {}", failure.message);
    }
    attempt
}

/// What a panic said.
fn text_of(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_panic_says_is_found_where_it_is_a_text() {
        assert_eq!(text_of(&"a literal"), "a literal");
        assert_eq!(text_of(&format!("{} words", 2)), "2 words");
        assert_eq!(text_of(&42), "no message");
    }
}
