//! `launch --batch`: the lines of a file go to the service while its answers come back.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::Method;
use hyper::body::Frame;
use hyper::header::CONTENT_TYPE;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::mpsc;

use super::answer::{BatchLine, BatchProblem};
use super::args::{LaunchArgs, OutputForm};
use super::output::{Printer, plain};
use super::service::{Body, Service, query, usage};
use super::{Failure, say};
use crate::exit::Exit;

const PIECE_BYTES: usize = 64 << 10;
/// How many pieces are read ahead.
const PIECES: usize = 4;

/// What became of the lines.
#[derive(Debug, Default)]
struct Sums {
    launched: u64,
    not_launched: u64,
    refused: u64,
    /// Of them, those that may be taken later.
    unavailable: u64,
    /// Of them, those that the token does not allow.
    not_allowed: u64,
}

/// The lines on their way.
struct Source {
    /// In bytes, where it is known.
    length: Option<u64>,
    sent: Arc<AtomicU64>,
    /// Why it could not be read to its end.
    failed: Arc<Mutex<Option<io::Error>>>,
}

pub(super) async fn launch(
    service: &Service,
    args: &LaunchArgs,
    file: &Path,
    printer: &mut Printer,
) -> Result<Exit, Failure> {
    let pairs: Vec<_> = args.handler.iter().map(|handler| ("handler", handler.clone())).collect();
    let (body, source) = read(file)?;
    let request = service.request(Method::POST, &format!("/tasks{}", query(&pairs)));
    let request = request.header(CONTENT_TYPE, "application/x-ndjson");
    // Standard input may be as slow as it likes; the service says when it is too slow.
    let silence_max = if source.length.is_some() { args.service.answer_within } else { Duration::MAX };
    let bar = bar(source.length);
    let mut sums = Sums::default();
    let answered = async {
        let mut lines = service.lines(service.send(request, body, Duration::ZERO).await?);
        while let Some(line) = lines.next(silence_max).await? {
            let answer: BatchLine = serde_json::from_str(&line).map_err(|error| service.foreign(&error))?;
            sums.take(&line, &answer, printer)?;
            bar.set_position(source.sent.load(Ordering::Relaxed));
            bar.set_message(sums.words());
        }
        Ok(())
    };
    let answered = answered.await;
    bar.finish_and_clear();
    printer.flush()?;
    let unread = source.failed.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(error) = unread {
        let why = format!("{} cannot be read to its end: {error}; {}", file.display(), sums.words());
        return Err(usage(why));
    }
    match answered {
        Ok(()) => {
            say(&sums.words());
            Ok(sums.exit())
        }
        Err(Failure::Told { exit, message, .. }) => {
            let so_far = sums.words();
            Err(Failure::new(exit, format!("{message}\n{so_far} so far; sending it all again is safe")))
        }
        Err(failure) => Err(failure),
    }
}

impl Sums {
    fn take(&mut self, line: &str, answer: &BatchLine, printer: &mut Printer) -> io::Result<()> {
        match answer {
            BatchLine::Decided(task) => {
                let is_launched = task.launched == Some(true);
                self.launched += u64::from(is_launched);
                self.not_launched += u64::from(!is_launched);
                match printer.form {
                    OutputForm::Json => printer.line(line.as_bytes()),
                    OutputForm::Ids if is_launched => printer.line(task.id.as_bytes()),
                    // What went well is in the sums.
                    OutputForm::Ids | OutputForm::Table => Ok(()),
                }
            }
            BatchLine::Refused(BatchProblem { line: number, status, detail }) => {
                self.refused += 1;
                self.unavailable += u64::from(matches!(status, 408 | 429 | 500..));
                self.not_allowed += u64::from(matches!(status, 401 | 403));
                match printer.form {
                    OutputForm::Json => printer.line(line.as_bytes()),
                    OutputForm::Table | OutputForm::Ids => {
                        say(&format_args!("line {number}: {}", plain(detail)));
                        Ok(())
                    }
                }
            }
        }
    }

    fn words(&self) -> String {
        let Self { launched, not_launched, refused, .. } = self;
        format!("{launched} launched, {not_launched} not launched, {refused} refused")
    }

    fn exit(&self) -> Exit {
        match self {
            Self { refused: 0, .. } => Exit::Fine,
            Self { not_allowed: 1.., .. } => Exit::NotAllowed,
            Self { unavailable: 1.., .. } => Exit::Unavailable,
            Self { .. } => Exit::Refused,
        }
    }
}

/// Hidden where standard error is no terminal.
fn bar(length: Option<u64>) -> ProgressBar {
    let (bar, template) = match length {
        Some(length) => (ProgressBar::new(length), "{wide_bar} {percent}% {msg} {eta}"),
        None => (ProgressBar::new_spinner(), "{spinner} {msg}"),
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}

/// A thread reads, because standard input may be silent for as long as it likes.
fn read(file: &Path) -> Result<(Body, Source), Failure> {
    let (mut input, length): (Box<dyn Read + Send>, _) = if file == Path::new("-") {
        (Box::new(io::stdin()), None)
    } else {
        let unreadable = |error| usage(format!("{} cannot be read: {error}", file.display()));
        let opened = File::open(file).map_err(unreadable)?;
        let about = opened.metadata().map_err(unreadable)?;
        (Box::new(opened), about.is_file().then_some(about.len()))
    };
    let sent = Arc::new(AtomicU64::new(0));
    let failed = Arc::new(Mutex::new(None));
    let (pieces, coming) = mpsc::channel(PIECES);
    let source = Source { length, sent: Arc::clone(&sent), failed: Arc::clone(&failed) };
    thread::spawn(move || {
        loop {
            let mut piece = vec![0; PIECE_BYTES];
            let piece = match input.read(&mut piece) {
                Ok(0) => return,
                Ok(read) => {
                    piece.truncate(read);
                    Ok(Frame::data(Bytes::from(piece)))
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    let told = io::Error::from(error.kind());
                    *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                    Err(told)
                }
            };
            let is_last = piece.is_err();
            // An error means that nobody sends it any more.
            if pieces.blocking_send(piece).is_err() || is_last {
                return;
            }
        }
    });
    let pieces = stream::unfold(coming, |mut coming| async move { Some((coming.recv().await?, coming)) });
    let counted = pieces.inspect(move |piece| {
        let bytes = piece.as_ref().ok().and_then(Frame::data_ref).map_or(0, Bytes::len);
        sent.fetch_add(bytes as u64, Ordering::Relaxed);
    });
    Ok((StreamBody::new(counted).boxed_unsync(), source))
}
